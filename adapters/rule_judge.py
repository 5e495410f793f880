"""What judges that grade by a rule have in common. Shared by the families that have one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from engine.domain.conversation import Prompt
from engine.domain.cost import Range, Usage
from engine.domain.results import Measure, Response, Verdict
from engine.ports import Context, Judged, Needs, NoSettings, Pairs


class RuleJudge(ABC):
    """A judge that can be told nothing, needs nothing but a CPU, and takes some microseconds for a response."""

    revision: ClassVar[int]
    measures: ClassVar[Measure]
    seconds: ClassVar[float] = 5e-6  # for one response

    @abstractmethod
    def verdict(self, prompt: Prompt, response: Response) -> Verdict:
        """Grade one response."""

    def needs(self, settings: NoSettings) -> Needs:
        """Need nothing but a CPU."""
        del settings
        return Needs()

    def objection(self, settings: NoSettings, prompts: Sequence[Prompt]) -> str | None:
        """Grade anything."""
        del settings, prompts
        return None

    def forecast(self, settings: NoSettings, pairs: Pairs) -> Range:
        """Take `seconds` for each response."""
        del settings
        taken = Usage(device_seconds=0.01 + pairs.items * self.seconds)
        return Range(taken, taken, taken)

    def judge(
        self, settings: NoSettings, prompts: Sequence[Prompt], responses: Sequence[Response], context: Context
    ) -> Judged:
        """Grade every response by the rule."""
        del settings, context
        return Judged([self.verdict(*pair) for pair in zip(prompts, responses, strict=True)], Usage())
