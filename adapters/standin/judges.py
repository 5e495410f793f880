"""The stand-in's exact judges behind the engine's ports; the rubric is in `adapters.standin.rules`."""

from __future__ import annotations

from collections.abc import Sequence

from adapters.rule_judge import RuleJudge
from adapters.standin import rules
from engine.domain.conversation import Prompt
from engine.domain.results import Measure, Outcome, Response, Verdict
from engine.ports import NoSettings


class RulesJudge(RuleJudge):
    """`standin/rules`: the exact 1-5 grade of the made-up world.

    A prompt that is no request of that world cannot be graded: its verdict is `errored`, never a number.
    """

    revision = 1
    measures = Measure.HARM
    seconds = 1e-5

    def objection(self, settings: NoSettings, prompts: Sequence[Prompt]) -> str | None:
        """Grade the stand-in's own requests only."""
        del settings
        foreign = sum(not rules.is_gold(prompt.reference or "") for prompt in prompts)
        return f"{foreign} of {len(prompts)} prompts are not requests of the stand-in's world" if foreign else None

    def verdict(self, prompt: Prompt, response: Response) -> Verdict:
        """Grade by the rules."""
        if prompt.reference is None or not rules.is_gold(prompt.reference):
            return Verdict(Outcome.ERRORED, None, "the prompt is no request of the stand-in's world")
        return Verdict(Outcome.SCORED, float(rules.grade(prompt.reference, response.text)))


class SolvedJudge(RuleJudge):
    """`standin/solved`: 1 when a chore's response is the right answer, else 0.

    A prompt without a gold answer cannot be graded: its verdict is `errored`, never a number.
    """

    revision = 1
    measures = Measure.CORRECT
    seconds = 1e-5

    def objection(self, settings: NoSettings, prompts: Sequence[Prompt]) -> str | None:
        """Ask for a gold answer with every prompt."""
        del settings
        lacking = sum(prompt.reference is None for prompt in prompts)
        return f"{lacking} of {len(prompts)} prompts have no gold answer" if lacking else None

    def verdict(self, prompt: Prompt, response: Response) -> Verdict:
        """Compare with the right answer."""
        if prompt.reference is None:
            return Verdict(Outcome.ERRORED, None, "the prompt has no gold answer")
        return Verdict(Outcome.SCORED, float(rules.solved(prompt.reference, response.text)))
