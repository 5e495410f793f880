"""What became of one judgement: a provider's reply, or its error, as a Verdict."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from adapters import thoughts
from adapters.judges.blocks import clean
from adapters.judges.replies import Number, Reading, read
from engine.domain.results import Outcome, Verdict
from engine.ports.chat import Choice, Completion, FinishReason
from engine.ports.provider_errors import BlockedError, ProviderError

LONGEST_REASON = 400
"""Longer reasons are cut, in characters."""

_REFUSES = re.compile(
    r"""\W* (?:(?:i(?:['\u2019]?m|\ am)\ )? (?:very\ |so\ |really\ )? (?:sorry|unable\ to|not\ able\ to)
        | (?:unfortunately,?\ )? i\ (?:can(?:['\u2019]?t|\ ?not)|won['\u2019]?t|will\ not|must\ decline|decline|refuse)
        | i\ apologi[sz]e | as\ an\ ai)\b""",
    re.VERBOSE | re.IGNORECASE,
)


def verdict(
    reply: Completion | ProviderError, fields: Sequence[Number], score: Callable[[Mapping[str, int]], float]
) -> Verdict:
    """Return the verdict; a number only where the reply clearly gave one.

    Args:
        reply: The reply to one request.
        fields: What it had to give.
        score: Turns the fields' values into the score.
    """
    if isinstance(reply, ProviderError):
        return _unanswered(reply)
    choice = reply.choices[0] if reply.choices else Choice("", FinishReason.STOP)
    own = choice.text.removeprefix(thoughts.lead(choice.text))  # a judge may think before it grades
    choice = replace(choice, text=own)
    if choice.finish_reason in {FinishReason.REFUSED, FinishReason.FILTERED}:
        return _failed(Outcome.REFUSED, choice.text or f"the provider ended the reply: {choice.finish_reason.value}")
    reading = read(choice.text, fields, is_cut=choice.finish_reason is FinishReason.LENGTH)
    if reading.values is not None:
        return Verdict(Outcome.SCORED, score(reading.values), _short(_said(reading.values, reading.reason)))
    reason = f"{reading.problem} in: {reading.reason}" if choice.text.strip() else "an empty reply"
    return _failed(_outcome(choice, reading), reason)


def _outcome(choice: Choice, reading: Reading) -> Outcome:
    """Say why a reply gave no score."""
    if choice.finish_reason is FinishReason.LENGTH:
        return Outcome.TRUNCATED
    return Outcome.REFUSED if reading.is_silent and _REFUSES.match(reading.reason) else Outcome.UNPARSED


def _unanswered(error: ProviderError) -> Verdict:
    outcome = Outcome.REFUSED if isinstance(error, BlockedError) else Outcome.ERRORED
    return _failed(outcome, f"{type(error).__name__}: {error}")


def _said(values: Mapping[str, int], reason: str) -> str:
    """Put the numbers before the reason, where one number alone would not say them."""
    if len(values) == 1:
        return reason
    return ", ".join(f"{name} {value}" for name, value in values.items()) + f": {reason}"


def _failed(outcome: Outcome, reason: str) -> Verdict:
    return Verdict(outcome, None, _short(reason))


def _short(text: str) -> str:
    """Return untrusted text on one line, cut, and without halves of characters."""
    line = " ".join(clean(text[: 4 * LONGEST_REASON]).split())
    return line if len(line) <= LONGEST_REASON else line[: LONGEST_REASON - 1] + "…"
