"""Judges: verdicts on responses, blind to the cell that they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from engine.domain.adapters import Use
from engine.domain.conversation import Prompt
from engine.domain.cost import Range, Usage
from engine.domain.results import Measure, Response, Verdict
from engine.domain.stage import WorkerKind
from engine.ports.chat import ChatRequest, Completion
from engine.ports.context import Context
from engine.ports.provider_errors import ProviderError


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdicts, one a response and in the same order, and what they used."""

    verdicts: Sequence[Verdict]
    usage: Usage


@dataclass(frozen=True, slots=True)
class Pairs:
    """What a judge's forecast is made from: prompts with responses, before there are any responses.

    Attributes:
        items: Responses to grade, >= 0.
        prompt_tokens: Tokens of their prompts, once for each response; counted as for the model that answers, >= 0.
        max_new_tokens: Longest response, in tokens of the model that answers, >= 1.
    """

    items: int
    prompt_tokens: int
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class Needs:
    """What a judge needs to run.

    Attributes:
        worker: A CPU worker, or a model worker with its device.
        model: The hosted model that it asks; None for a judge that runs here.
        pin: `sha256:` and hex digits over what it reads beside its settings, such as a folder or a policy; empty for nothing.
    """

    worker: WorkerKind = WorkerKind.CPU
    model: Use | None = None
    pin: str = ""


class Judge(Protocol):
    """Grades responses, blind to the cell that they come from.

    A verdict may depend on the prompt and on the response's text alone: equal ones are asked once.
    """

    revision: int
    measures: Measure

    def needs(self, settings: Any) -> Needs:
        """Say what it needs to run, without loading anything.

        Raises:
            OSError: A file that the settings name cannot be read.
            ValueError: There is something wrong with it.
        """

    def objection(self, settings: Any, prompts: Sequence[Prompt]) -> str | None:
        """Say why answers to these prompts cannot be graded, or None when they can; asked before anything runs."""

    def forecast(self, settings: Any, pairs: Pairs) -> Range:
        """Estimate the usage, before anything runs."""

    def judge(
        self, settings: Any, prompts: Sequence[Prompt], responses: Sequence[Response], context: Context
    ) -> Judged:
        """Grade `responses[i]` as an answer to `prompts[i]`; the two have one length."""


@runtime_checkable
class ApiJudge(Protocol):
    """A judge that asks a hosted model: both ends of it, without the asking in between. Its `needs` names the model."""

    def requests(
        self, settings: Any, prompts: Sequence[Prompt], responses: Sequence[Response]
    ) -> Sequence[ChatRequest]:
        """Return what to ask the model, so that `responses[i]` is graded as an answer to `prompts[i]`."""

    def verdicts(
        self,
        settings: Any,
        prompts: Sequence[Prompt],
        responses: Sequence[Response],
        replies: Sequence[Completion | ProviderError],
    ) -> Sequence[Verdict]:
        """Return one verdict a response, from the replies to `requests`."""
