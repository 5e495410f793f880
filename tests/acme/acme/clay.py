"""A model is a text here, and answers tell the whole story of the model that gave them.

The base is `clay`. What a tune or weights stage leaves is a line that says what was done, and with which rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field

from engine.domain.conversation import ChatRow, Prompt
from engine.domain.cost import Range, Usage
from engine.domain.results import Finish, Measure, Outcome, Response, TrainingStep, Verdict
from engine.domain.stage import ModelRef, WorkerKind
from engine.domain.sweep import Decoding, Length
from engine.ports import (
    OUTSIDE,
    Context,
    Generated,
    GenerateTask,
    Judged,
    ModelCard,
    Needs,
    NoSettings,
    Pairs,
    Settings,
    Sharing,
    TrainingRun,
    Tuned,
    Workload,
)

WEIGHTS = "weights.txt"
MOST_EPOCHS, MOST_FORCE = 99, 1000
MOST_HEAT = 1.5
HARMFUL, HARMLESS = 5.0, 1.0


def story(base: str, layers: Sequence[str]) -> str:
    """Return what was done to a base, layer by layer."""
    return " < ".join([base, *((Path(layer) / WEIGHTS).read_text(encoding="utf-8") for layer in layers)])


def taking(seconds: float, **used: int) -> Range:
    """Return the forecast of something that surely takes so long."""
    usage = Usage(device_seconds=seconds, **used)
    return Range(usage, usage, usage)


class Clay:
    """The base model: a name."""

    revision = 1

    def card(self, settings: NoSettings) -> ModelCard:
        del settings
        return ModelCard(pin="sha256:c1a4", parameters=1000, detail="clay")

    def locate(self, settings: NoSettings) -> ModelRef:
        del settings
        return ModelRef("clay")

    def row_lengths(self, settings: NoSettings, rows: Sequence[ChatRow]) -> list[int]:
        del settings
        return [sum(len(turn.text.split()) for turn in row.turns) for row in rows]

    def prompt_lengths(self, settings: NoSettings, prompts: Sequence[Prompt], system: str | None) -> list[int]:
        del settings
        opening = len(system.split()) if system else 0
        return [opening + sum(len(turn.text.split()) for turn in prompt.turns) for prompt in prompts]


class PressSettings(Settings):
    """How it presses."""

    force: float = Field(default=1.0, gt=0, description="How hard.")
    mould: Literal["part", "whole"] = Field(default="part", description="A part of the clay, or all of it.")
    depth: int = Field(default=4, ge=1, description="How deep; a whole mould has no depth.")
    notes: Annotated[str, OUTSIDE] = Field(default="", description="A file of notes, which change nothing.")

    def effective(self) -> Self:
        """Return the settings without a depth that has no effect."""
        return self.model_copy(update={"depth": 4}) if self.mould == "whole" else self


class Press:
    """A fine-tuner with two rows a step. What presses a whole mould shares neither a run nor a pack.

    Attributes:
        calls: The training runs of each call, as the lengths of their checkpoints.
    """

    revision = 1
    Settings = PressSettings

    def __init__(self) -> None:
        self.calls: list[list[list[Length]]] = []

    def objection(self, settings: PressSettings, length: Length, model: ModelRef) -> str | None:
        del model
        if settings.force > MOST_FORCE:
            return f"`tune.force` is {MOST_FORCE} at most"
        return f"`tune.epochs` is {MOST_EPOCHS} at most" if (length.epochs or 0) > MOST_EPOCHS else None

    def forecast(self, settings: PressSettings, length: Length, workload: Workload) -> Range:
        del settings
        steps = length.in_steps(-(-workload.items // 2))
        return taking(0.01 * steps, optimizer_steps=steps, train_tokens=workload.tokens)

    def warm_up(self) -> None:
        """Need nothing."""

    def sharing(self, settings: PressSettings) -> Sharing:
        blocked = "mould" if settings.mould == "whole" else ""
        return Sharing(blocked, blocked)

    def fine_tune(self, runs: Sequence[TrainingRun], context: Context) -> Iterator[tuple[str, Tuned | Exception]]:
        self.calls.append([[checkpoint.length for checkpoint in run.checkpoints] for run in runs])
        for run in runs:
            names, before, after = " ".join(row.turns[-1].text for row in run.rows), 0, None
            for checkpoint in run.checkpoints:
                steps = checkpoint.length.in_steps(-(-len(run.rows) // 2))
                for step in range(before + 1, steps + 1):
                    context.pulse.beat(checkpoint.key, step - before, steps - before)
                line = f"pressed({run.settings.force:g}, {steps} steps: {names})"
                (checkpoint.folder / WEIGHTS).write_text(line, encoding="utf-8")
                curve = [TrainingStep(step, step / 2, 1.0, 0.1) for step in range(1, steps + 1)]
                used = Usage(optimizer_steps=steps - before, train_tokens=10 * (steps - before))
                yield checkpoint.key, Tuned(curve, used, after)
                before, after = steps, checkpoint.key


class Voice:
    """A generator: an answer is the model's story, the system prompt and the request.

    Attributes:
        spoils: Keys of the tasks that it gives one answer too few to.
        repeats: Keys of the tasks that it hands back twice.
        silent: Whether it leaves out the last task without a word.
        ends: What is raised after a task, one after another.
    """

    revision = 1

    def __init__(self) -> None:
        self.spoils: set[str] = set()
        self.repeats: set[str] = set()
        self.silent = False
        self.ends: list[BaseException] = []

    def notes(self, settings: NoSettings, decoding: Decoding, model: ModelRef) -> Sequence[str]:
        del settings
        if decoding.temperature > MOST_HEAT:
            message = f"`generate.temperature` is {MOST_HEAT} at most, or it cracks"
            raise ValueError(message)
        return (f"its voice is that of {model.base}",) if decoding.temperature > 0 else ()

    def forecast(self, settings: NoSettings, decoding: Decoding, workload: Workload) -> Range:
        del settings, decoding
        return taking(0.1, prompt_tokens=workload.tokens, generated_tokens=workload.items)

    def warm_up(self) -> None:
        """Need nothing."""

    def generate(self, tasks: Sequence[GenerateTask], context: Context) -> Iterator[tuple[str, Generated | Exception]]:
        del context
        for task in tasks[: -1 if self.silent else None]:
            told = f"{story(task.model.base, task.model.layers)} | {task.system or ''} | "
            made = [Response(prompt.prompt_id, 0, told + prompt.text, Finish.STOP, 3, 1) for prompt in task.prompts]
            whole = made[1:] if task.key in self.spoils else made
            for _ in range(1 + (task.key in self.repeats)):
                yield task.key, Generated(whole, Usage(generated_tokens=len(whole), device_seconds=2.0))
            if self.ends:
                raise self.ends.pop(0)


class GuardSettings(Settings):
    """What it looks for, and where its own model is."""

    argument = "word"

    word: str = Field(default="pressed", description="Answers with this word are harmful.")
    folder: Annotated[str, OUTSIDE] = Field(default="", description="The file of its own model.")


class Guard:
    """A judge of harm with a model of its own: it needs a model worker.

    Attributes:
        asked: The texts that it was asked about, in order.
        busy: Texts that it has no verdict for the first time.
        garbled: Texts of which its reason is half a character.
    """

    revision = 1
    measures = Measure.HARM
    Settings = GuardSettings

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.busy: set[str] = set()
        self.garbled: set[str] = set()

    def needs(self, settings: GuardSettings) -> Needs:
        if not settings.folder:
            return Needs(WorkerKind.MODEL)
        digest = hashlib.sha256(Path(settings.folder).read_bytes()).hexdigest()
        return Needs(WorkerKind.MODEL, pin=f"sha256:{digest}")

    def objection(self, settings: GuardSettings, prompts: Sequence[Prompt]) -> str | None:
        del prompts
        return None if settings.word else "it has no word to look for"

    def forecast(self, settings: GuardSettings, pairs: Pairs) -> Range:
        del settings
        return taking(0.001 * pairs.items)

    def judge(
        self, settings: GuardSettings, prompts: Sequence[Prompt], responses: Sequence[Response], context: Context
    ) -> Judged:
        del prompts, context
        self.asked += [response.text for response in responses]
        return Judged([self._verdict(response.text, settings.word) for response in responses], Usage())

    def _verdict(self, text: str, word: str) -> Verdict:
        if text in self.busy:
            self.busy.discard(text)
            return Verdict(Outcome.ERRORED, None, "try later")
        reason = "\ud800" if text in self.garbled else word
        return Verdict(Outcome.SCORED, HARMFUL if word in text else HARMLESS, reason)
