"""Replies that were paid for, on disk before they are used: whatever dies next, no reply is bought twice.

One sealed file a flow (a stage), of one line a reply, with what earlier sends of it may be billed for. A line is written when
its reply arrives; the file goes when the stage counts, or is read again by whoever runs the stage next. A line that was cut off
by a crash is a reply that was in flight. When an attempt has failed and is in the books, a line says so: what stands before it is
used again, and not counted again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from engine.domain.cost import Usage
from engine.hosted import Ask, Choice, Ending, Told
from engine.store.layout import SEALED, RunDirectory

BOOKED = '{"booked": true}'

UNHEARD = ("unheard_prompt_tokens", "unheard_generated_tokens")
"""Fields of a usage that a line keeps under `unheard`, in this order."""

Bought = dict[str, list[Told]]
"""Replies by what was asked; equal asks of one flow have one each."""


def asked(ask: Ask) -> str:
    """Return what tells an ask from all that are not equal to it."""
    text = json.dumps(asdict(ask), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class ReplyLog:
    """The replies of one flow.

    Args:
        path: The file; it need not be there.
    """

    def __init__(self, path: Path) -> None:
        """Read what is there."""
        self._path = path
        self.bought: Bought = {}
        for key, told in _read(path):
            self.bought.setdefault(key, []).append(told)

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

    def taken(self, ask: Ask, name: str = "") -> Told | None:
        """Take the reply of an ask out of those that were bought before, if there is one.

        Args:
            ask: What was asked.
            name: What the reply was written under. Where none was, one without a name does, and never another one's.
        """
        found = self.bought.get(_place(asked(ask), name)) or self.bought.get(asked(ask))
        return found.pop() if found else None

    def write(self, ask: Ask, told: Told, name: str = "") -> None:
        """Keep a reply, under a name where it has one; no crash of this process loses it once this returns."""
        told_ = {
            "choices": [[choice.text, choice.ending.value] for choice in told.choices],
            "tokens": [told.prompt_tokens, told.cached_tokens, told.generated_tokens],
            "unheard": [told.unheard.unheard_prompt_tokens, told.unheard.unheard_generated_tokens],
        }
        named = {"name": name} if name else {}
        self._file.write(json.dumps({"asked": asked(ask), **named, **told_}) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Put what was written on the disk: not even the machine's power loses it once this returns."""
        self._file.flush()
        os.fsync(self._file.fileno())


def _read(path: Path) -> Iterator[tuple[str, Told]]:
    if not path.is_file():
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    booked, _, unbooked = text.rpartition(BOOKED)
    for part, is_booked in ((booked, True), (unbooked, False)):
        for line in part.split("\n"):
            try:
                found = json.loads(line)
                choices = tuple(Choice(text, Ending(ending)) for text, ending in found["choices"])
                read, cached, made = found["tokens"]
                unheard = Usage(**dict(zip(UNHEARD, found["unheard"], strict=True)))
                yield (
                    _place(found["asked"], found.get("name", "")),
                    Told(choices, read, cached, made, is_booked=is_booked, unheard=unheard),
                )
            except (ValueError, KeyError, TypeError):
                continue  # an empty line, one that was cut off, or an earlier mark


def _place(what: str, name: str) -> str:
    """Return where a reply is found again: by what was asked, and by its name if it has one."""
    return f"{what} {name}" if name else what


def reply_log(run: RunDirectory, flow: str) -> ReplyLog:
    """Return the replies of a flow."""
    return ReplyLog(_path(run, flow))


def unread(run: RunDirectory, flow: str) -> bool:
    """Tell whether anything was bought for a flow that has not been made rows of."""
    return bool(reply_log(run, flow).bought)


def book(run: RunDirectory, flow: str) -> None:
    """Note that what was bought for a stage so far is in the books, though the stage has failed."""
    path = _path(run, flow)
    if path.is_file():
        with path.open("a", encoding="utf-8") as file:
            file.write(f"\n{BOOKED}\n")
            file.flush()
            os.fsync(file.fileno())


def forget(run: RunDirectory, flows: Sequence[str]) -> None:
    """Delete the replies of stages that count: their rows hold them now."""
    for flow in flows:
        _path(run, flow).unlink(missing_ok=True)


def _path(run: RunDirectory, flow: str) -> Path:
    return run.replies / f"{flow}.jsonl"
