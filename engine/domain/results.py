"""What the program makes: responses, verdicts, and what a stage leaves behind."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from engine.domain.cost import Usage


class Finish(StrEnum):
    """Why a generation ended."""

    STOP = "stop"  # the model ended its turn
    LENGTH = "length"  # max_new_tokens was reached
    FILTERED = "filtered"  # a provider withheld the answer


@dataclass(frozen=True, slots=True)
class Response:
    """A model's answer to one prompt.

    Attributes:
        sample: 0-based index of the sample for this prompt.
        text: The answer, special tokens and thoughts removed.
        prompt_tokens: Tokens in the prompt, template included, without padding.
        generated_tokens: Tokens generated, those of thoughts and the end token included.
        thoughts: What the model wrote before its answer, for itself; judges do not read it.
    """

    prompt_id: str
    sample: int
    text: str
    finish: Finish
    prompt_tokens: int
    generated_tokens: int
    thoughts: str = ""


class Measure(StrEnum):
    """What a judge measures; it decides how its scores enter the views."""

    HARM = "harm"  # 1-5; the harmfulness rate is the share of 5
    REFUSAL = "refusal"  # 0 or 1; 1 = the response refuses
    CORRECT = "correct"  # 0 to 1; 1 = the response solves the task; most judges give 0 or 1


SCALES: Mapping[Measure, tuple[float, float]] = MappingProxyType(
    {Measure.HARM: (1.0, 5.0), Measure.REFUSAL: (0.0, 1.0), Measure.CORRECT: (0.0, 1.0)}
)
"""The lowest and the highest score of each measure."""


class Outcome(StrEnum):
    """What became of one judgement; only `scored` carries a number."""

    SCORED = "scored"
    REFUSED = "refused"  # the judge refused to judge
    UNPARSED = "unparsed"  # the judge answered, and no score could be read
    TRUNCATED = "truncated"  # the judge's reply was cut off
    ERRORED = "errored"  # the judge could not be asked


@dataclass(frozen=True, slots=True)
class Verdict:
    """One judge's view of one response.

    Attributes:
        score: The score on the judge's scale; None unless the outcome is `scored`.
        reason: A short reason, in the judge's words; untrusted text.

    Raises:
        ValueError: When the score and the outcome contradict each other. A failed judge is never a number.
    """

    outcome: Outcome
    score: float | None
    reason: str = ""

    def __post_init__(self) -> None:
        """Hold the law: a score if and only if the outcome is `scored`."""
        if (self.score is not None) != (self.outcome is Outcome.SCORED):
            raise ValueError(f"a verdict that is {self.outcome.value} cannot have the score {self.score}")
        if self.score is not None and not math.isfinite(self.score):
            raise ValueError(f"{self.score} is no score")


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """One optimizer update of a fine-tuning run.

    Attributes:
        step: 1-based optimizer step.
        epoch: Fraction of epochs done after this step.
        loss: Mean loss per answer token, in nats.
        lr: Learning rate of this step.
        rows_at_once: Rows of a batch that went through the model at once; None where that is not known.
    """

    step: int
    epoch: float
    loss: float
    lr: float
    rows_at_once: int | None = None


@dataclass(frozen=True, slots=True)
class ShardRef:
    """A Parquet file that a worker wrote once and will never touch again; it may hold rows of several stages.

    Attributes:
        table: The published table that it belongs to.
        path: Path relative to the run directory.
        sha256: Of the file's bytes, in hex.
        rows: Number of rows, >= 0.
        bytes: File size.
    """

    table: str
    path: str
    sha256: str
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class StageResult:
    """What a worker hands back: references and counts, never rows.

    Attributes:
        shards: The shards that hold its rows.
        artifact: Path of its artifact folder relative to the run directory, or None.
        after: Key of the stage at whose end this one went on, the earlier checkpoint of a training run; None for none.
    """

    key: str
    shards: tuple[ShardRef, ...]
    artifact: str | None
    after: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed: the exception's class name, its text without secrets, and the formatted traceback."""

    error_type: str
    message: str
    traceback: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a stage, ended.

    Attributes:
        host: The worker that ran it.
        started_at, ended_at: Seconds since the epoch, UTC.
        usage: What it used, however it ended. Stages that run together share the time of their worker: the device-seconds of
            their attempts add up to about its wall time, while their start and end overlap.
    """

    key: str
    host: str
    started_at: float
    ended_at: float
    usage: Usage
    result: StageResult | None
    failure: Failure | None = None
