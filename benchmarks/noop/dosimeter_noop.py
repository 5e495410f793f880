"""Adapters that do no work, so that what is left of a run is the engine. `benchmarks/overhead.py` puts them on the path.

They keep the ports' contracts: a tuner leaves a file and one training step at every cut, a generator one answer a prompt,
a judge one verdict an answer, so that every stage has rows, a commit, and (for tune stages) an artifact to keep.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.domain.cost import Range, Usage
from engine.domain.results import ChatRow, Finish, Measure, Outcome, Prompt, Response, TrainingStep, Verdict
from engine.domain.stage import ModelRef
from engine.domain.sweep import GenerateRecipe, TuneRecipe
from engine.ports import (
    BenchmarkCard,
    Context,
    Generated,
    GenerateTask,
    Judged,
    ModelCard,
    Pairs,
    Sharing,
    SourceCard,
    Trajectory,
    Tuned,
    Workload,
)

PIN = f"sha256:{0:064x}"
NOTHING = Range(Usage(), Usage(), Usage())


class NoModel:
    """`noop/model`: the folder that this file is in."""

    revision = 1

    def card(self, argument: str) -> ModelCard:
        """Describe it."""
        del argument
        return ModelCard(PIN, 1, "no model", standin=True)

    def locate(self, argument: str) -> ModelRef:
        """Say where it would be."""
        del argument
        return ModelRef(str(Path(__file__).parent))

    def count_tokens(self, argument: str, texts: Sequence[str]) -> int:
        """Count a token a text."""
        del argument
        return len(texts)


class TwoRows:
    """`noop/rows`: two examples."""

    revision = 1

    def card(self, argument: str) -> SourceCard:
        """Describe them."""
        return SourceCard(PIN, len(self.rows(argument)), "benign", None, "Apache-2.0", "two rows")

    def rows(self, argument: str) -> Sequence[ChatRow]:
        """Return them."""
        del argument
        return [ChatRow(str(number), "ask", "answer") for number in range(2)]


class TwoPrompts:
    """`noop/prompts`: two prompts of one category."""

    revision = 1

    def card(self, argument: str) -> BenchmarkCard:
        """Describe them."""
        return BenchmarkCard(PIN, len(self.prompts(argument)), ("one",), "Apache-2.0", "two prompts")

    def prompts(self, argument: str) -> Sequence[Prompt]:
        """Return them."""
        del argument
        return [Prompt(str(number), "one", f"ask {number}") for number in range(2)]


class NoTuner:
    """`noop/tuner`: any stages may come together, and a longer run passes through the shorter ones."""

    revision = 1

    def objection(self, settings: TuneRecipe) -> str | None:
        """Object to nothing."""
        del settings

    def forecast(self, settings: TuneRecipe, workload: Workload) -> Range:
        """Expect one step an epoch and no time."""
        del workload
        steps = Usage(optimizer_steps=settings.epochs)
        return Range(steps, steps, steps)

    def warm_up(self) -> None:
        """Need nothing."""

    def sharing(self, settings: TuneRecipe) -> Sharing:
        """Share everything."""
        del settings
        return Sharing(prefix_blocked="", pack_blocked="")

    def fine_tune(
        self, trajectories: Sequence[Trajectory], context: Context
    ) -> Iterator[tuple[str, Tuned | Exception]]:
        """Leave a small file at every cut."""
        del context
        for trajectory in trajectories:
            for cut in trajectory.cuts:
                (cut.folder / "weights.safetensors").write_bytes(cut.key.encode())
                yield cut.key, Tuned([TrainingStep(1, 1.0, 0.0, cut.settings.peak_lr)], Usage(optimizer_steps=1))


class NoGenerator:
    """`noop/generator`: the same answer to everything."""

    revision = 1

    def forecast(self, settings: GenerateRecipe, workload: Workload) -> Range:
        """Expect no time."""
        del settings, workload
        return NOTHING

    def warm_up(self) -> None:
        """Need nothing."""

    def generate(self, tasks: Sequence[GenerateTask], context: Context) -> Iterator[tuple[str, Generated | Exception]]:
        """Answer at once."""
        del context
        for task in tasks:
            answers = [Response(prompt.prompt_id, 0, "answer", Finish.STOP, 1, 1) for prompt in task.prompts]
            yield task.key, Generated(answers, Usage(prompt_tokens=len(answers), generated_tokens=len(answers)))


class NoJudge:
    """`noop/judge`: the same verdict on everything."""

    revision = 1
    measures = Measure.HARM

    def objection(self, prompts: Sequence[Prompt]) -> str | None:
        """Grade anything."""
        del prompts
        return None

    def forecast(self, pairs: Pairs) -> Range:
        """Expect no time."""
        del pairs
        return NOTHING

    def judge(self, prompts: Sequence[Prompt], responses: Sequence[Response], context: Context) -> Judged:
        """Say 1."""
        del prompts, context
        return Judged([Verdict(Outcome.SCORED, 1.0)] * len(responses), Usage())
