"""`file:PATH`: the user's own benchmark prompts, such as a gated set that may not be redistributed.

JSON Lines in UTF-8, one prompt per line. One of the first two fields is required, any other field is refused:

    prompt      the user's turn
    messages    instead of it: turns of a chat that ends with the user's (`adapters.messages`), without a system turn
    category    a text or a number, for rates by category; without it `all`
    id          a text or a number, no two alike; without it `line-1`, `line-2`, ...
    reference   a gold answer, or a list of them, any of which is right; numbers count as their text, null as none
    references  another name of it
    cluster     a text, number or truth value; prompts that were written from one template share it; null as none
    behavior    what a harmful answer would do, for judges that grade against it
    context     a text that the request refers to, for judges; the prompt has it as well, where the model is to read it

The file is pinned by its bytes, together with those of the images that it names; relative paths are relative to the working
directory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from adapters import user_file
from adapters.messages import pin_with_images, read_once, read_turns
from engine.domain.conversation import Prompt, Turn
from engine.ports import OUTSIDE, BenchmarkCard, Settings

FIELDS = frozenset(
    {"prompt", "messages", "category", "id", "reference", "references", "cluster", "behavior", "context"}
)
UNCATEGORISED = "all"


class PromptFileSettings(Settings):
    """Which file."""

    argument = "path"

    path: Annotated[str, OUTSIDE] = Field(min_length=1, description="The JSON Lines file.")


class PromptFile:
    """A JSON Lines file of prompts."""

    revision = 2
    Settings = PromptFileSettings

    def card(self, settings: PromptFileSettings) -> BenchmarkCard:
        """Describe and pin the file.

        Raises:
            OSError: When it, or an image that it names, cannot be read.
            ValueError: When a line is not a prompt; the message names the line.
        """
        prompts = self.prompts(settings)
        pin = pin_with_images(user_file.located(settings.path), prompts)
        categories = tuple(dict.fromkeys(prompt.category for prompt in prompts))
        return BenchmarkCard(pin, len(prompts), categories, "the user's own", settings.path)

    def prompts(self, settings: PromptFileSettings) -> Sequence[Prompt]:
        """Return every prompt, in the order of the lines."""
        return read_once(user_file.located(settings.path), _read)


def _read(path: Path) -> tuple[Prompt, ...]:
    prompts: dict[str, Prompt] = {}
    for where, entry in user_file.json_lines(path):
        prompt = _prompt(entry, where)
        if prompt.prompt_id in prompts:
            raise _wrong(where, f"an earlier line has the id `{prompt.prompt_id}` as well")
        prompts[prompt.prompt_id] = prompt
    if not prompts:
        raise ValueError(f"{path} has no prompts")
    return tuple(prompts.values())


def _prompt(entry: Mapping[str, object], where: str) -> Prompt:
    user_file.refuse_unknown(entry, FIELDS, where)
    cluster = entry.get("cluster")
    if not isinstance(cluster, str | int | float | None):
        raise _wrong(where, f"`cluster` is a text, a number or a truth value, not {user_file.shown(cluster)}")
    return Prompt(
        prompt_id=_name(entry, "id", where, f"line-{where.rpartition(':')[2]}"),
        category=_name(entry, "category", where, UNCATEGORISED),
        turns=_conversation(entry, where),
        behavior=_text(entry, "behavior", where),
        context=_text(entry, "context", where),
        references=_references(entry, where),
        cluster=None if cluster is None else str(cluster),
    )


def _conversation(entry: Mapping[str, object], where: str) -> tuple[Turn, ...]:
    if ("prompt" in entry) == ("messages" in entry):
        raise _wrong(where, "a prompt has either `prompt` or `messages`")
    asked = entry.get("prompt", entry.get("messages"))
    turns = read_turns([{"role": "user", "content": asked}] if isinstance(asked, str) else asked, where)
    if turns[0].role == "system":
        raise _wrong(where, "a prompt has no system turn; set `generate.system`, which all prompts share")
    if turns[-1].role != "user":
        raise _wrong(where, "the last turn of a prompt is the user's")
    return turns


def _name(entry: Mapping[str, object], field: str, where: str, default: str) -> str:
    value = entry.get(field, default)
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        raise _wrong(where, f"`{field}` is a text or a number, not {user_file.shown(value)}; leave it out for none")
    return str(value)


def _text(entry: Mapping[str, object], field: str, where: str) -> str:
    value = entry.get(field)
    if not isinstance(value, str | None):
        raise _wrong(where, f"`{field}` is a text, not {user_file.shown(value)}")
    return value or ""


def _references(entry: Mapping[str, object], where: str) -> tuple[str, ...]:
    if "reference" in entry and "references" in entry:
        raise _wrong(where, "`reference` and `references` mean the same: give one")
    given = entry.get("reference", entry.get("references"))
    values = given if isinstance(given, list) else [] if given is None else [given]
    return tuple(_reference(value, where) for value in values)


def _reference(value: object, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        raise _wrong(where, f"a reference is a text or a number, not {user_file.shown(value)}")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _wrong(where: str, what: str) -> ValueError:
    return ValueError(f"{where}: {what}")
