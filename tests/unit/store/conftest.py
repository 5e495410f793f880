"""Plans made by hand: recipes with adapters of the tests' own, and a small planner that knows just enough of stages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import pytest

from engine.domain.adapters import OUTSIDE, JudgeUse, Settings, Use
from engine.domain.cell import Cell
from engine.domain.cost import Charge, Usage
from engine.domain.data import DataRecipe
from engine.domain.plan import CellOrigin, Counts, Evaluation, JudgeKey, Pin, Plan, PlannedCell, Role
from engine.domain.results import Attempt, Measure, ShardRef, StageResult
from engine.domain.sampling import Draw
from engine.domain.stage import (
    GenerateWork,
    JudgeWork,
    Pinned,
    SampleWork,
    ScreenWork,
    Stage,
    StageState,
    TuneWork,
    WeightsWork,
    Work,
    WorkerKind,
)
from engine.domain.sweep import GenerateRecipe, Recipe, TuneRecipe
from engine.store.layout import RunDirectory
from engine.store.state import Settled


class Tuning(Settings):
    lr: float = 1e-3
    batch_size: int = 10
    method: str = "lora"
    rank: int = 8
    schedule: str = "constant"
    weight_decay: float = 0.0
    dtype: str = "float32"


class HostedTuning(Settings):
    lr_multiplier: float | None = None
    batch_size: int | None = None


class FromFile(Settings):
    argument = "path"
    path: Annotated[str, OUTSIDE]
    n: int | None = None


class Answering(Settings):
    dtype: str = "float32"


class Guard(Settings):
    argument = "model"
    model: str
    threshold: float = 0.5


class Filter(Settings):
    guard: JudgeUse
    refuse: bool = True


class Scale(Settings):
    a: float = 1.0


GUARD = Use("guard/llama", Guard(model="dir:guard"))
FILTER = Use("output-filter", Filter(guard=GUARD))
RECIPE: dict[str, Any] = {
    "model": Use("standin/aligned"),
    "data": DataRecipe(source=Use("standin/explicit"), n=10),
    "tune": TuneRecipe(use=Use("local/sft", Tuning())),
    "benchmark": Use("standin/policy"),
    "utility_judge": Use("standin/solved"),
    "over_refusal_judge": Use("refusal/keywords"),
    "generate": GenerateRecipe(use=Use("local/transformers", Answering())),
    "judges": (Use("standin/rules"), Use("refusal/keywords")),
}


def recipe(**changes: Any) -> Recipe:
    return Recipe(**(RECIPE | changes))


def untuned(**changes: Any) -> Recipe:
    return recipe(**({"data": None, "tune": None} | changes))


class Planner:
    """Makes the stages of cells: sample, training, edits of weights, answers, a screen where there is a filter, judges."""

    def __init__(self) -> None:
        self.stages: dict[str, Stage] = {}

    def stage(self, work: Work, adapter: str, inputs: tuple[tuple[str, str], ...] = ()) -> str:
        said = str(work)
        stage = Stage("", adapter, 1, work, inputs, json.dumps({"work": said, "inputs": inputs}), WorkerKind.CPU)
        key = f"{stage.kind.value}-{hashlib.sha256(stage.payload.encode()).hexdigest()[:32]}"
        self.stages[key] = replace(stage, key=key)
        return key

    def evaluation(self, asked: Recipe, system: str | None, model: str | None) -> Evaluation:
        base, benchmark, generate = Pinned(asked.model, "p"), Pinned(asked.benchmark, "p"), asked.generate
        work = GenerateWork(base, benchmark, generate.use, generate.decoding, system, None)
        answers = self.stage(work, generate.use.name, (("model", model),) if model else ())
        screening: tuple[str, ...] = ()
        for use in asked.mitigations:
            if isinstance(use.settings, Filter):
                judged = self.stage(JudgeWork(use.settings.guard, benchmark), "guard", (("responses", answers),))
                inputs = (("responses", answers), ("verdicts", judged))
                screening = (judged, self.stage(ScreenWork(use, benchmark), use.name, inputs))
        read = (("responses", screening[-1] if screening else answers),)
        judges = tuple(
            JudgeKey(use, measures, self.stage(JudgeWork(use, benchmark), use.name, read))
            for use, measures in zip(asked.judges, (Measure.HARM, Measure.REFUSAL), strict=False)
        )
        return Evaluation(Role.HARM, asked.benchmark, 11, answers, screening, judges)

    def cell(self, asked: Recipe, origin: CellOrigin, system: str | None = None) -> PlannedCell:
        system = asked.generate.system if system is None else system
        chain: tuple[str, ...] = ()
        if asked.data is not None and asked.tune is not None:
            drawn = self.stage(SampleWork(Pinned(asked.data.source, "p"), Draw(asked.data.n, asked.seed)), "sample")
            work = TuneWork(Pinned(asked.model, "p"), asked.tune.use, asked.tune.length, asked.seed)
            chain = (drawn, self.stage(work, asked.tune.use.name, (("rows", drawn),)))
        tuned = chain[-1] if chain else None
        for use in asked.mitigations:
            if isinstance(use.settings, Scale) and chain:
                edit = WeightsWork(Pinned(asked.model, "p"), use)
                chain = (*chain, self.stage(edit, use.name, (("model", chain[-1]),)))
        model = chain[-1] if chain else None
        evaluation = self.evaluation(asked, system, model)
        name = hashlib.sha256(str((evaluation, chain)).encode()).hexdigest()[:16]
        tier = "explicit" if chain else None
        found = Cell((("seed", asked.seed),), asked)
        label = found.label if origin is CellOrigin.SWEEP else origin.value
        return PlannedCell(f"cell-{name}", label, found, system, tier, chain, model, tuned, (evaluation,), origin)

    def compared(self, cell: PlannedCell) -> tuple[list[PlannedCell], PlannedCell]:
        """The cell's starting model and the cell without its mitigations, and the cell that knows both."""
        asked = cell.cell.recipe
        start = asked.model_copy(update={"data": None, "tune": None, "mitigations": (), "seed": 0})
        added = [self.cell(start, CellOrigin.BASELINE, cell.system)] if cell.chain else []
        ids = {"baseline_id": added[0].cell_id} if added else {}
        if asked.mitigations:
            bare = self.cell(asked.model_copy(update={"mitigations": ()}), CellOrigin.UNMITIGATED, cell.system)
            added.append(replace(bare, **ids))
            ids["unmitigated_id"] = bare.cell_id
        return added, replace(cell, **ids)


def plan(*recipes: Recipe, baselines: bool = True) -> Plan:
    planner = Planner()
    cells, added = {}, {}
    for asked in recipes:
        cell = planner.cell(asked, CellOrigin.SWEEP)
        more: list[PlannedCell] = []
        if baselines:
            more, cell = planner.compared(cell)
        cells[cell.cell_id] = cell
        added |= {one.cell_id: one for one in more}
    every = tuple((added | cells).values())
    ordered = sorted(every, key=lambda cell: list(CellOrigin).index(cell.origin))
    pins = (Pin("model", "standin/aligned", "sha256:m", "small"), Pin("benchmark", "standin/policy", "sha256:b", "11"))
    counts = Counts(1, 1, 1, 0, 0, 0, 0, len(cells), len(every) - len(cells))
    return Plan("stored", "s" * 64, tuple(ordered), planner.stages, pins, counts, standin=True)


def done(key: str, *refs: ShardRef, usage: Usage | None = None) -> Settled:
    used = usage or Usage(device_seconds=1.5)
    attempt = Attempt(key, "worker-0", 10.0, 11.5, used, StageResult(key, tuple(refs), None))
    return Settled(attempt, StageState.DONE, Charge(Decimal("0.25")))


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "run")


@pytest.fixture(scope="session")
def make() -> type:
    """The makers, for tests: `make.recipe`, `make.untuned`, `make.plan`, `make.done`, and the tests' own adapters."""

    class Makers:
        recipe: Callable[..., Recipe] = staticmethod(recipe)
        untuned: Callable[..., Recipe] = staticmethod(untuned)
        plan: Callable[..., Plan] = staticmethod(plan)
        done: Callable[..., Settled] = staticmethod(done)
        filter = FILTER

        @staticmethod
        def use(name: str, **settings: Any) -> Use:
            models = {"scale": Scale, "file": FromFile, "guard/llama": Guard, "local/sft": Tuning}
            return Use(name, models.get(name, Answering)(**settings))

        @staticmethod
        def hosted(**settings: Any) -> Recipe:
            there = Use("hosted/openai", Settings(), "lab")
            tune = TuneRecipe(use=Use("hosted/openai", HostedTuning(**settings)))
            return recipe(model=there, tune=tune, generate=GenerateRecipe(use=Use("hosted/openai")))

        @staticmethod
        def tune(length: dict[str, int] | None = None, **settings: Any) -> TuneRecipe:
            return TuneRecipe(use=Use("local/sft", Tuning(**settings)), **(length or {}))

        @staticmethod
        def generate(**changes: Any) -> GenerateRecipe:
            return GenerateRecipe(**({"use": Use("local/transformers", Answering())} | changes))

        @staticmethod
        def data(**changes: Any) -> DataRecipe:
            return DataRecipe(**({"source": Use("standin/explicit"), "n": 10} | changes))

    return Makers
