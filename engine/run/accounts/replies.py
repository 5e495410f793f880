"""Replies that were paid for, on disk before they are used: whatever dies next, no reply is bought twice.

One sealed file a stage, of one line a reply, with what earlier sends of it may be billed for. A line is written when
its reply arrives; the file goes when the stage counts, or is read again by whoever runs the stage next. A line that was cut off
by a crash is a reply that was in flight.

An attempt that ends otherwise is in the ledger with what was bought for it, and a mark says so: the attempt's number, and how many
replies stood in the file. What is in the ledger is used again, and not counted again. The mark is written first, and counts once
the store has an attempt of that number: a crash in between leaves a mark that nobody believes, and what it stands for unbooked.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.domain.cost import Usage
from engine.domain.results import Attempt
from engine.ports.chat import ChatRequest, Choice, Completion, FinishReason
from engine.store.errors import mapped
from engine.store.layout import SEALED, RunDirectory

POSSIBLY_BILLED = ("possibly_billed_prompt_tokens", "possibly_billed_generated_tokens")
"""Fields of a usage that a line keeps under `possibly_billed`, in this order."""

Requests = Mapping[str, ChatRequest]
"""By the names of `names`."""


def names(requests: Sequence[ChatRequest]) -> Requests:
    """Return requests, in their order, by names that follow from what is asked; equal ones are numbered."""
    seen: Counter[str] = Counter()
    named = {}
    for request in requests:
        text = json.dumps(asdict(request), sort_keys=True, ensure_ascii=False)
        what = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        seen[what] += 1
        named[f"{what}-{seen[what]}"] = request
    return named


class ReplyLog:
    """The replies of one stage.

    Attributes:
        bought: What was bought before, by the names of `names`.
    """

    def __init__(self, run: RunDirectory, stage_key: str) -> None:
        """Read what is there, if anything is."""
        self._path = _path(run, stage_key)
        found = _read(self._path)
        booked = found.booked()
        self.bought = {
            name: replace(reply, is_booked=index < booked) for index, (name, reply) in enumerate(found.replies)
        }

    @contextmanager
    def open(self) -> Iterator[ReplyLog]:
        """Be ready to write; what was written is on the disk when this is left."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, SEALED)
        with os.fdopen(descriptor, "a", encoding="utf-8") as self._file:
            self._file.write("\n")  # ends a line that was cut off
            try:
                yield self
            finally:
                self.sync()

    def write(self, name: str, request: ChatRequest, completion: Completion) -> None:
        """Keep a reply under its request's name (`names`); no crash of this process loses it once this returns."""
        fields = {
            "name": name,
            "model": request.model,
            "choices": [[choice.text, choice.finish_reason.value, choice.thoughts] for choice in completion.choices],
            "tokens": [completion.prompt_tokens, completion.cached_tokens, completion.generated_tokens],
            "possibly_billed": [getattr(completion.possibly_billed, name) for name in POSSIBLY_BILLED],
        }
        self._file.write(json.dumps(fields) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Put what was written on the disk: not even the machine's power loses it once this returns."""
        self._file.flush()
        os.fsync(self._file.fileno())


@dataclass(slots=True)
class _Lines:
    """What a file says.

    Attributes:
        replies: Each reply with its request's name, in the order in which they came.
        models: The models that were asked.
        marks: Number of an attempt, and how many replies are in the ledger with it.
    """

    replies: list[tuple[str, Completion]] = field(default_factory=list)
    models: set[str] = field(default_factory=set)
    marks: list[tuple[int, int]] = field(default_factory=list)

    def booked(self, attempts: int | None = None) -> int:
        """Return how many replies are in the ledger, by the last mark of an attempt that there was; by the last one for None."""
        return next((many for number, many in reversed(self.marks) if attempts is None or number <= attempts), 0)


def _read(path: Path) -> _Lines:
    lines = _Lines()
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for line in text.split("\n"):
        try:
            found = json.loads(line)
            if "booked" in found:
                lines.marks.append((found["booked"], found["replies"]))
            else:
                lines.replies.append((found["name"], _completion(found)))
                lines.models.add(found["model"])
        except (ValueError, KeyError, TypeError):
            continue  # an empty line, or one that was cut off
    return lines


def _completion(found: dict[str, Any]) -> Completion:
    choices = tuple(Choice(text, FinishReason(reason), *more) for text, reason, *more in found["choices"])
    read, cached, made = found["tokens"]
    possibly_billed = Usage(**dict(zip(POSSIBLY_BILLED, found["possibly_billed"], strict=True)))
    return Completion(choices, read, cached, made, possibly_billed=possibly_billed)


@dataclass(frozen=True, slots=True)
class Unbooked:
    """What was bought for a stage and is not in the ledger.

    Attributes:
        usage: What it comes to.
        replies: How many replies there are, those that are in the ledger among them.
        models: The models that were asked.
        at: When the last one came, in seconds since the epoch, UTC.
    """

    usage: Usage
    replies: int
    models: frozenset[str]
    at: float


def unbooked(run: RunDirectory, stage_key: str, attempts: int) -> Unbooked | None:
    """Return what is not in the ledger of what was bought for a stage; None where there is no such thing.

    `attempts` is how many attempts at the stage the store has.
    """
    path = _path(run, stage_key)
    found = _read(path)
    new = found.replies[found.booked(attempts) :]
    if not new:
        return None
    usage = sum((completion.usage for _, completion in new), Usage())
    return Unbooked(usage, len(found.replies), frozenset(found.models), path.stat().st_mtime)


def booked(run: RunDirectory, attempt: Attempt, number: int) -> Attempt:
    """Return an attempt that left no result with what was bought for it, and mark that as booked. To be stored next.

    One that says which tokens it used has them all. `number` is how many attempts at its stage there are with it.
    """
    new = unbooked(run, attempt.key, number - 1)
    if new is None:
        return attempt
    path = _path(run, attempt.key)
    with mapped("what was bought cannot be noted", path), path.open("a", encoding="utf-8") as file:
        file.write("\n" + json.dumps({"booked": number, "replies": new.replies}) + "\n")
        file.flush()
        os.fsync(file.fileno())
    return attempt if attempt.usage.tokens else replace(attempt, usage=attempt.usage + new.usage)


def kept(run: RunDirectory, stage_key: str) -> Usage:
    """Return what is in the ledger of what was bought for a stage: whoever runs it next buys so much less."""
    found = _read(_path(run, stage_key))
    return sum((completion.usage for _, completion in found.replies[: found.booked()]), Usage())


def stage_keys(run: RunDirectory) -> list[str]:
    """Return the stages that have replies."""
    return sorted(path.stem for path in run.replies.glob("*.jsonl"))


def forget(run: RunDirectory, stage_keys: Sequence[str]) -> None:
    """Delete the replies of stages that count: their rows hold them now."""
    for stage_key in stage_keys:
        _path(run, stage_key).unlink(missing_ok=True)


def _path(run: RunDirectory, stage_key: str) -> Path:
    return run.replies / f"{stage_key}.jsonl"
