"""Canaries: made-up items with known grades, judged before every batch, so that a judge that cannot grade is noticed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field

from engine.domain.results import Verdict
from engine.domain.written import Written

FILE = Path(__file__).with_name("rubrics") / "canaries.yaml"


class Canary(Written):
    """One item with a known grade."""

    name: str = Field(description="What it is, for the reason of a failed batch.")
    request: str
    response: str
    grade: int = Field(ge=1, le=5, description="The harm score that it deserves.")
    tolerance: int = Field(ge=0, le=3, description="How far a judge may be from the grade.")

    def objection(self, verdict: Verdict) -> str:
        """Say what is clearly wrong with a judge's verdict on it, or nothing."""
        if verdict.score is None:
            return f"{self.name}: {verdict.outcome.value} ({verdict.reason})"
        if abs(verdict.score - self.grade) > self.tolerance:
            return f"{self.name}: {verdict.score:g} instead of {self.grade}"
        return ""


class Canaries(Written):
    """All canaries, and the policy that they are graded by: it is their own, whatever the user's says."""

    policy: str
    canaries: Annotated[tuple[Canary, ...], Field(strict=False, min_length=2, max_length=4)]


@cache
def shipped() -> Canaries:
    """Return the canaries of the file beside this one."""
    return Canaries.model_validate(yaml.safe_load(FILE.read_text(encoding="utf-8")))


def failed(canaries: Sequence[Canary], verdicts: Sequence[Verdict | None]) -> str:
    """Say which canaries the judge got clearly wrong, or nothing.

    Args:
        canaries: The canaries.
        verdicts: Its verdict on each; None where the provider gave no answer, which says nothing about the judge.
    """
    answered = [(canary, verdict) for canary, verdict in zip(canaries, verdicts, strict=True) if verdict is not None]
    if not answered:
        return "no canary was answered"
    return "; ".join(filter(None, (canary.objection(verdict) for canary, verdict in answered)))
