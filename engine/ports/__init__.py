"""What the engine asks of an adapter: one module a kind, with its Protocol and the small frozen things that pass through it.

An adapter is a class with no arguments, found by entry point (`engine.registry`). It has:

- `revision`, an integer that is part of every key in which it has a part: raise it when its behaviour or one of its defaults
  changes.
- `Settings`, a model derived from `engine.domain.adapters.Settings`, when it can be told anything. The methods get an
  instance of it as `settings`.

Adapters raise plain Python exceptions; the worker turns them into failed attempts. They import heavy libraries inside their
methods, so that planning starts neither torch nor Ray.
"""

from engine.domain.adapters import OUTSIDE, NoSettings, Settings, Use
from engine.ports.benchmark import Benchmark, BenchmarkCard
from engine.ports.context import Context, NoPulse, Pulse, StoppedError
from engine.ports.data import DataSource, SourceCard
from engine.ports.generator import (
    Generated,
    GenerateTask,
    Generator,
    GeneratorWithNotes,
    GeneratorWithPrompts,
    SizedGenerator,
)
from engine.ports.judge import ApiJudge, Judge, Judged, Needs, Pairs
from engine.ports.machine import Fit, Machine
from engine.ports.mitigation import (
    Change,
    ChangeRows,
    EditWeights,
    Mitigation,
    RowsChanger,
    Screen,
    Screener,
    Tune,
    WeightsEdit,
    WeightsEditor,
)
from engine.ports.model import ModelCard, ModelSource
from engine.ports.start import Claim, FirstJob, FirstSettings, HasStart, ModelWithNotes, ReadsPaths
from engine.ports.tuner import (
    Checkpoint,
    FineTuner,
    Sharing,
    SizedTuner,
    TrainingRun,
    Tuned,
    TunerWithNotes,
    TunerWithRemarks,
    TunerWithRows,
    Workload,
)
from engine.ports.warm import Warm

__all__ = [
    "OUTSIDE",
    "ApiJudge",
    "Benchmark",
    "BenchmarkCard",
    "Change",
    "ChangeRows",
    "Checkpoint",
    "Claim",
    "Context",
    "DataSource",
    "EditWeights",
    "FineTuner",
    "FirstJob",
    "FirstSettings",
    "Fit",
    "GenerateTask",
    "Generated",
    "Generator",
    "GeneratorWithNotes",
    "GeneratorWithPrompts",
    "HasStart",
    "Judge",
    "Judged",
    "Machine",
    "Mitigation",
    "ModelCard",
    "ModelSource",
    "ModelWithNotes",
    "Needs",
    "NoPulse",
    "NoSettings",
    "Pairs",
    "Pulse",
    "ReadsPaths",
    "RowsChanger",
    "Screen",
    "Screener",
    "Settings",
    "Sharing",
    "SizedGenerator",
    "SizedTuner",
    "SourceCard",
    "StoppedError",
    "TrainingRun",
    "Tune",
    "Tuned",
    "TunerWithNotes",
    "TunerWithRemarks",
    "TunerWithRows",
    "Use",
    "Warm",
    "WeightsEdit",
    "WeightsEditor",
    "Workload",
]
