"""Judging by asking: equal responses once over a batch, whoever asks for them, and again only where the judge failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from engine.domain.adapters import Use
from engine.domain.conversation import Prompt, Turn
from engine.domain.cost import Usage
from engine.domain.results import Finish, Outcome, Response, Verdict
from engine.ports import Settings
from engine.ports.account import HostedTuning, TuningRequest
from engine.ports.chat import ChatRequest, Choice, Completion, FinishReason
from engine.ports.provider_errors import BlockedError, ProviderError, UnavailableError
from engine.run.stages.judging import Given, GradingTask, judged, same

Flow = tuple[str, Sequence[Completion | ProviderError]]
PROMPTS = {name: Prompt.single(name, "a", f"request {name}") for name in "pq"}


class GraderSettings(Settings):
    """Whom it asks."""

    model: str = "grader"


JUDGE = Use("acme/length", GraderSettings(model="the grader"))


class Length:
    """Grades an answer by its length; counts two prompts' worth of requests: a first one about nothing, then one a response."""

    def requests(
        self, settings: GraderSettings, prompts: Sequence[Prompt], responses: Sequence[Response]
    ) -> Sequence[ChatRequest]:
        texts = ["", *(f"{p.text}: {r.text}" for p, r in zip(prompts, responses, strict=True))]
        return [ChatRequest(settings.model, (Turn("user", text),), 8) for text in texts]

    def verdicts(
        self,
        settings: GraderSettings,
        prompts: Sequence[Prompt],
        responses: Sequence[Response],
        replies: Sequence[Completion | ProviderError],
    ) -> Sequence[Verdict]:
        assert settings == JUDGE.settings
        assert len(prompts) == len(responses) == len(replies) - 1
        return [
            Verdict(Outcome.ERRORED, None, str(reply))
            if isinstance(reply, ProviderError)
            else Verdict(Outcome.SCORED, float(reply.choices[0].text))
            for reply in replies[1:]
        ]


@dataclass
class Account:
    """An account that answers at once, the stages in an order of its own, and where told with an error.

    Attributes:
        order: Flows that are done first.
        fails: Texts that are not answered, and may have been paid for once.
        refuses: Texts that moderation refuses, when they have been lost once.
        has: Flows that an earlier run bought replies for.
        asked: What was asked, by stage key.
    """

    order: tuple[str, ...] = ()
    fails: frozenset[str] = frozenset()
    refuses: frozenset[str] = frozenset()
    has: frozenset[str] = frozenset()
    asked: dict[str, list[str]] = field(default_factory=dict)

    def complete_all(self, requests: Mapping[str, Sequence[ChatRequest]], *, urgent: bool) -> Iterator[Flow]:
        assert urgent, "judges finish cells"
        for stage_key in sorted(requests, key=lambda stage_key: (stage_key not in self.order, stage_key)):
            self.asked[stage_key] = [request.turns[0].text for request in requests[stage_key]]
            assert {request.model for request in requests[stage_key]} == {"the grader"}
            yield stage_key, [self._reply(text) for text in self.asked[stage_key]]

    def begun(self, stage_key: str) -> bool:
        return stage_key in self.has

    def _reply(self, text: str) -> Completion | ProviderError:
        if text in self.fails:
            return _lost(UnavailableError("503"))
        if text in self.refuses:
            return _lost(BlockedError("no"))
        return Completion((Choice(str(len(text)), FinishReason.STOP),), 10, 0, 1)

    def fine_tune(self, requests: Sequence[TuningRequest]) -> Iterator[tuple[str, HostedTuning | ProviderError]]:
        raise AssertionError(requests)


LOST = Usage(possibly_billed_prompt_tokens=10, possibly_billed_generated_tokens=8)


def _lost(error: ProviderError) -> ProviderError:
    error.used = LOST
    return error


def response(answer: str, place: int = 0) -> Response:
    """A response such as `p:yes`."""
    name, _, text = answer.partition(":")
    return Response(name, place, text, Finish.STOP, 3, 1)


def task(key: str, *answers: str) -> GradingTask:
    """A stage with answers such as `p:yes`."""
    return GradingTask(key, JUDGE, [response(answer, place) for place, answer in enumerate(answers)], PROMPTS)


YES, NO = same(response("p:yes")), same(response("q:no"))


def run(tasks: Sequence[GradingTask], given: Given, account: Account) -> list[tuple[str, Usage | ProviderError]]:
    return list(judged(tasks, Length(), given, account))


def spent(requests: int) -> Usage:
    return Usage(prompt_tokens=10 * requests, generated_tokens=requests)


def test_equal_responses_are_asked_once_over_a_batch_and_whoever_asks_pays() -> None:
    account, given = Account(), dict[bytes, Verdict]()
    ended = run([task("a", "p:yes", "p:yes", "q:no"), task("b", "p:yes", "q:yes"), task("c", "q:no")], given, account)
    assert account.asked == {"a": ["", "request p: yes", "request q: no"], "b": ["", "request q: yes"]}
    assert dict(ended) == {"a": spent(3), "b": spent(2), "c": Usage()}
    assert given.keys() == {YES, NO, same(response("q:yes"))}
    assert given[YES].score == len("request p: yes")


def test_what_an_earlier_run_bought_for_a_stage_is_not_asked_for_another_one() -> None:
    account = Account(has=frozenset("b"))
    run([task("a", "p:yes", "p:no"), task("b", "p:yes", "q:yes")], {}, account)
    assert account.asked == {"b": ["", "request p: yes", "request q: yes"], "a": ["", "request p: no"]}


def test_a_stage_waits_for_the_verdicts_that_another_asks_for() -> None:
    account = Account(order=("b",))
    ended = run([task("a", "p:yes", "p:no"), task("b", "p:yes", "q:yes"), task("c", "q:yes")], {}, account)
    assert list(account.asked) == ["b", "a"]
    assert [key for key, _ in ended] == ["c", "a", "b"], "b had its own verdicts first, and lacked one of a's"


def test_a_stage_whose_verdicts_are_all_known_asks_nothing_and_ends_first() -> None:
    account, known = Account(), Verdict(Outcome.SCORED, 1.0)
    ended = run([task("a", "q:new"), task("b", "p:yes"), task("empty")], {YES: known}, account)
    assert ended == [("b", Usage()), ("empty", Usage()), ("a", spent(2))]
    assert list(account.asked) == ["a"]


def test_what_could_not_be_judged_is_asked_again_and_what_the_judge_would_not_judge_is_not() -> None:
    given = {YES: Verdict(Outcome.ERRORED, None, "503"), NO: Verdict(Outcome.REFUSED, None)}
    account = Account(fails=frozenset({"request p: yes"}))
    ((key, error),) = run([task("a", "p:yes", "q:no")], given, account)
    assert (key, type(error)) == ("a", UnavailableError), (
        "a judge that could not be asked is no verdict: the stage fails"
    )
    assert error.used == spent(1) + LOST, "with what was paid for before"
    assert YES not in given
    again = replace(account, fails=frozenset(), asked={})
    run([task("b", "p:yes", "q:no")], given, again)
    assert again.asked == {"b": ["", "request p: yes"]}
    assert given[YES].outcome is Outcome.SCORED
    assert given[NO].outcome is Outcome.REFUSED


def test_each_stage_is_charged_what_it_used_itself_whoever_failed() -> None:
    account = Account(fails=frozenset({"request p: yes"}))
    ended = dict(run([task("a", "p:yes", "q:no"), task("b", "p:yes", "q:yes"), task("c", "p:yes")], {}, account))
    assert {type(error) for error in ended.values()} == {UnavailableError}
    charged = {key: error.used for key, error in ended.items() if isinstance(error, UnavailableError)}
    assert charged == {"a": spent(2) + LOST, "b": spent(2), "c": Usage()}


def test_a_verdict_that_was_refused_in_the_end_may_have_been_paid_for_too() -> None:
    account = Account(refuses=frozenset({"request p: yes"}))
    assert run([task("a", "p:yes", "q:no")], {}, account) == [("a", spent(2) + LOST)]
