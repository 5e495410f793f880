"""Answers: what was paid for, or may have been, is in the ledger, also where a task fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from adapters.hosted.answering import HostedGenerator
from engine.domain.adapters import NO_SETTINGS
from engine.domain.conversation import Image, Prompt, Turn
from engine.domain.cost import Usage
from engine.domain.results import Finish
from engine.domain.stage import ModelRef
from engine.domain.sweep import Decoding
from engine.ports import Context, Generated, GenerateTask
from engine.ports.account import HostedTuning, TuningRequest
from engine.ports.chat import ChatRequest, Choice, Completion, FinishReason
from engine.ports.provider_errors import BlockedError, ProviderError, UnavailableError
from engine.run.executors.workers import WarmSlots

LOST = Usage(possibly_billed_prompt_tokens=5, possibly_billed_generated_tokens=8)
TOLD = Usage(prompt_tokens=5, cached_tokens=2, generated_tokens=3)


@dataclass
class FakeAccount:
    """An account that gives one reply a prompt."""

    replies: Sequence[Completion | ProviderError]
    asked: list[ChatRequest] = field(default_factory=list)

    def complete_all(
        self, requests: Mapping[str, Sequence[ChatRequest]], *, urgent: bool
    ) -> Iterator[tuple[str, Sequence[Completion | ProviderError]]]:
        assert not urgent
        for stage_key, own in requests.items():
            assert len(own) == len(self.replies)
            self.asked += own
            yield stage_key, self.replies

    def begun(self, stage_key: str) -> bool:
        raise AssertionError(stage_key)

    def fine_tune(self, requests: Sequence[TuningRequest]) -> Iterator[tuple[str, HostedTuning | ProviderError]]:
        raise AssertionError(requests)


def completion(possibly_billed: Usage) -> Completion:
    return Completion((Choice("yes", FinishReason.STOP),), 5, 2, 3, possibly_billed=possibly_billed)


def lost(error: ProviderError) -> ProviderError:
    error.used = LOST
    return error


def answered(*replies: Completion | ProviderError) -> Generated | Exception:
    return generated([Prompt.single(str(place), "a", "why?") for place in range(len(replies))], FakeAccount(replies))


def generated(prompts: Sequence[Prompt], account: FakeAccount, system: str | None = None) -> Generated | Exception:
    task = GenerateTask("generate-1", ModelRef("m"), prompts, system, Decoding(8), NO_SETTINGS, 0)
    ((key, made),) = HostedGenerator().generate([task], Context("cpu", 1, 1, WarmSlots(), account))
    assert key == "generate-1"
    return made


def test_a_whole_conversation_is_sent_after_the_system_prompt() -> None:
    turns = (Turn("user", "why?"), Turn("assistant", "so"), Turn("user", "and why so?"))
    account = FakeAccount([completion(Usage())])
    assert isinstance(generated([Prompt("1", "a", turns)], account, "Be brief."), Generated)
    assert account.asked == [ChatRequest("m", (Turn("system", "Be brief."), *turns), 8)]


def test_images_are_refused_and_nothing_is_sent() -> None:
    account = FakeAccount([])
    made = generated([Prompt("1", "a", (Turn("user", "why?", (Image("a.png", "0" * 64),)),))], account)
    assert isinstance(made, ValueError)
    assert str(made) == "1 of 1 prompts have images, which are not sent yet"
    assert account.asked == []


@pytest.mark.parametrize("possibly_billed", [Usage(), LOST])
def test_a_reply_that_came_in_the_end_brings_what_was_lost_before_it(possibly_billed: Usage) -> None:
    made = answered(completion(possibly_billed), lost(BlockedError("no")))
    assert isinstance(made, Generated)
    assert made.usage == TOLD + possibly_billed + LOST, "a refusal too was asked for more than once"
    assert [response.finish for response in made.responses] == [Finish.STOP, Finish.FILTERED]


def test_a_task_that_fails_keeps_what_each_of_its_asks_used() -> None:
    made = answered(completion(LOST), lost(UnavailableError("503")), BlockedError("no"), lost(UnavailableError("503")))
    assert isinstance(made, UnavailableError)
    assert made.used == TOLD + LOST + LOST + LOST
