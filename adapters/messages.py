"""Turns in a user's file, in the form of chat APIs: `[{"role": "user", "content": "..."}, ...]`.

- Roles are `system` (or its newer name `developer`), which comes first and once at most, then `user` and `assistant`. A system
  turn without text is none.
- `content` is a text, or a list of parts: `{"type": "text", "text": "..."}`, whose texts are joined as they are, and
  `{"type": "image_url", "image_url": {"url": "PATH"}}`. An image is a file on this machine: an address or a `data:` URL is refused.
- `weight`, 0 or 1, stands on assistants' turns of training examples alone: 0 takes the loss off the turn.

Any other key of a message that says something (`tool_calls`, `function_call`, `name`, `refusal`, `audio`) is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from adapters import user_file
from engine.domain.conversation import Image, Speaker, Turn

ROLES: Mapping[str, Speaker] = MappingProxyType(
    {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
)


def read_turns(messages: object, where: str, *, is_trained: bool = False) -> tuple[Turn, ...]:
    """Read a list of messages.

    Args:
        messages: What JSON gave.
        where: `PATH:LINE`, for errors.
        is_trained: Whether assistants' turns are trained on, unless their weight is 0; without it, no turn may have a weight.

    Raises:
        OSError: An image cannot be read.
        ValueError: They are no conversation; the message names the line.
    """
    if not isinstance(messages, list) or not messages:
        raise _wrong(where, 'expected a list of turns, such as [{"role": "user", "content": "..."}]')
    read = [_turn(message, where, is_trained=is_trained) for message in messages]
    turns = tuple(turn for turn in read if turn.role != "system" or turn.text.strip())
    roles = [turn.role for turn in turns]
    if "system" in roles[1:]:
        raise _wrong(where, "a system turn comes first, and there is one at most")
    if "user" not in roles[:2] or roles[0] == "assistant":
        raise _wrong(where, "a conversation begins with a user's turn, after the system turn if there is one")
    return turns


def _turn(message: object, where: str, *, is_trained: bool) -> Turn:
    if not isinstance(message, Mapping):
        raise _wrong(where, 'a turn is an object such as {"role": "user", "content": "..."}')
    role = ROLES.get(str(message.get("role")))
    if role is None:
        raise _wrong(where, f"the role `{message.get('role')}` is not one of {', '.join(ROLES)}")
    has_weight = is_trained and role == "assistant"
    known = {"role", "content", "weight"} if has_weight else {"role", "content"}
    user_file.refuse_unknown(message, known, f"{where}: the {role} turn")
    text, images = _content(message.get("content"), f"{where}: the {role} turn")
    if not text.strip() and not images and role != "system":
        raise _wrong(where, f"the {role} turn is empty")
    return Turn(role, text, images, is_trained=has_weight and _weight(message.get("weight"), where))


def _weight(weight: object, where: str) -> bool:
    if weight is None:
        return True
    if isinstance(weight, bool) or weight not in (0, 1):
        raise _wrong(where, f"`weight` is 0 or 1, not {user_file.shown(weight)}")
    return weight == 1


def _content(content: object, where: str) -> tuple[str, tuple[Image, ...]]:
    if isinstance(content, str):
        return content, ()
    if content is None:
        return "", ()
    if not isinstance(content, list):
        raise _wrong(where, f"`content` is a text or a list of parts, not {user_file.shown(content)}")
    parts = [_part(part, where) for part in content]
    return "".join(part for part in parts if isinstance(part, str)), tuple(p for p in parts if isinstance(p, Image))


def _part(part: object, where: str) -> str | Image:
    match part:
        case {"type": "text", "text": str(text), **rest}:
            user_file.refuse_unknown(rest, {"type", "text"}, where)
            return text
        case {"type": "image_url", "image_url": {"url": str(url), **details}, **rest}:
            user_file.refuse_unknown({**rest, **details}, {"type", "image_url"}, where)
            return _image(url, where)
        case _:
            kind = part.get("type") if isinstance(part, Mapping) else part
            raise _wrong(where, f"no whole part of `content` of type `text` or `image_url`: {user_file.shown(kind)}")


def _image(url: str, where: str) -> Image:
    if "://" in url or url.startswith("data:"):
        raise _wrong(where, f"the image `{url[:40]}` is no file on this machine; save it and name its path")
    try:
        return Image(url, user_file.pin(user_file.located(url)).removeprefix("sha256:"))
    except (OSError, ValueError) as error:
        raise _wrong(where, f"the image cannot be read: {error}") from error


class _HasTurns(Protocol):
    @property
    def turns(self) -> tuple[Turn, ...]: ...


Entry = TypeVar("Entry", bound=_HasTurns)


def read_once(path: Path, read: Callable[[Path], tuple[Entry, ...]]) -> tuple[Entry, ...]:
    """Return `read(path)`, from memory while the file's bytes are the same.

    With images it is read each time: they may have changed under the same names.
    """
    entries: tuple[Entry, ...] = _remembered(read, path, user_file.pin(path))
    return read(path) if any(images_of(entries)) else entries


@cache
def _remembered(read: Callable[[Path], Any], path: Path, content: str) -> Any:
    del content  # only makes a changed file a new question
    return read(path)


def pin_with_images(path: Path, entries: Iterable[_HasTurns]) -> str:
    """Return the pin of a file and of the images that its entries name; without images, the file's own."""
    return user_file.pin_all([user_file.pin(path), *(image.sha256 for image in images_of(entries))])


def images_of(entries: Iterable[_HasTurns]) -> Iterator[Image]:
    """Yield the images of conversations."""
    return (image for entry in entries for turn in entry.turns for image in turn.images)


def _wrong(where: str, what: str) -> ValueError:
    return ValueError(f"{where}: {what}")
