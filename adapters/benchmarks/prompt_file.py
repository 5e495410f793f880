"""`file:PATH`: the user's own benchmark prompts, such as a gated set that may not be redistributed.

The file is read by `adapters.records` (JSON Lines, a JSON array, CSV, TSV, Parquet, plain lines). One of the first two fields is
required. Any other field is refused, unless `columns` says which columns hold what:

    prompt      the user's turn
    messages    instead of it: turns of a chat that ends with the user's (`adapters.messages`), without a system turn
    category    a text or a number, for rates by category; without it `all`
    id          a text or a number, no two alike; without it `line-1`, `line-2`, ... (`item-1` of an array, `row-1` of Parquet)
    reference   a gold answer, or a list of them, any of which is right; numbers count as their text, null as none
    references  another name of it
    cluster     a text, number or truth value; prompts that were written from one template share it; null as none
    behavior    what a harmful answer would do, for judges that grade against it
    context     a text that the request refers to, for judges; the prompt has it as well, where the model is to read it

The file is pinned by its bytes, together with those of the images that it names; relative paths are relative to the working
directory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from adapters import records, user_file
from adapters.benchmarks.drawn import drawn, pinned_as
from adapters.benchmarks.gathered import gathered, repeated
from adapters.messages import pin_with_images, read_once, read_turns
from adapters.pairs import Pairs, by_name
from adapters.records import DELIMITERS, TEXT, Record
from engine.domain.conversation import Prompt, Turn
from engine.ports import OUTSIDE, BenchmarkCard, Claim, Settings

FIELDS = frozenset(
    {"prompt", "messages", "category", "id", "reference", "references", "cluster", "behavior", "context"}
)
UNCATEGORISED = "all"


class PromptFileSettings(Settings):
    """Which file, and what is taken of it."""

    argument = "path"

    path: Annotated[str, OUTSIDE] = Field(min_length=1, description="The file.")
    n: int | None = Field(default=None, ge=1, description="Only so many prompts, stratified by category.")
    columns: Pairs = Field(
        default=(),
        description="Which column holds a field: `{prompt: goal, category: type}`; columns that nothing names are left out then.",
    )
    licence: Annotated[str, OUTSIDE] = Field(default="the user's own", min_length=1, description="For the data card.")

    @field_validator("columns")
    @classmethod
    def _known(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in by_name(columns) if name not in FIELDS]:
            raise ValueError(f"`{unknown[0]}` is not one of {', '.join(sorted(FIELDS))}")
        return columns


class PromptFile:
    """A file of prompts."""

    revision = 2
    Settings = PromptFileSettings

    def card(self, settings: PromptFileSettings) -> BenchmarkCard:
        """Describe and pin the file.

        Raises:
            OSError: When it, or an image that it names, cannot be read.
            ValueError: When a record is not a prompt; the message names the line.
        """
        prompts = self.prompts(settings)
        pin = pin_with_images(user_file.located(settings.path), prompts)
        told = settings.model_dump(include={"columns"}, exclude_defaults=True)
        pin = user_file.pin_all([pin, *(f"{name}={value}" for name, value in told.items()), *pinned_as(settings.n)])
        categories = tuple(dict.fromkeys(prompt.category for prompt in prompts))
        notes = tuple(repeated(prompts))
        return BenchmarkCard(pin, len(prompts), categories, settings.licence, settings.path, notes)

    def claim(self, path: str) -> Claim | None:
        """Claim any file: its card says what it lacks."""
        return Claim({"path": path}, is_general=True) if user_file.located(path).is_file() else None

    def prompts(self, settings: PromptFileSettings) -> Sequence[Prompt]:
        """Return every prompt that is taken, in the order of the file."""
        read = _reader(settings.columns)
        return drawn(read_once(user_file.located(settings.path), read), settings.n)


@cache
def _reader(columns: tuple[str, ...]) -> Callable[[Path], tuple[Prompt, ...]]:
    """Return what reads a file with these columns: always the same for the same, so that it is remembered."""
    return partial(_read, columns=by_name(columns))


def _read(path: Path, columns: Mapping[str, Sequence[str]]) -> tuple[Prompt, ...]:
    is_table = not DELIMITERS.keys().isdisjoint(path.suffixes)
    there = records.read(path, FIELDS)
    prompts = gathered((record.where, partial(_read_one, record, columns, is_table=is_table)) for record in there)
    if not prompts:
        raise ValueError(f"{path} has no prompts")
    return prompts


def _read_one(record: Record, columns: Mapping[str, Sequence[str]], *, is_table: bool) -> Prompt:
    return _prompt(_renamed(_filled(record) if is_table else record, columns, record.values.keys()), record)


def _filled(record: Record) -> Record:
    """Return a line of a table without the fields that it leaves blank."""
    return replace(record, values={name: value for name, value in record.values.items() if value != ""})


def _renamed(record: Record, columns: Mapping[str, Sequence[str]], there: Collection[str]) -> Mapping[str, object]:
    """Return the fields of a record, by the columns that hold them; `there` are the columns of its file."""
    values = record.values
    if columns:
        named = {field: names[0] for field, names in columns.items()}
        if missing := [name for name in named.values() if name not in there]:
            raise _wrong(record.where, f"`columns` names `{missing[0]}`, and the columns are {_listed(there)}")
        return {field: values[name] for field, name in named.items() if name in values}
    if len(there) == 1 and (alone := {TEXT, "column 1"}.intersection(values)):
        return {"prompt": values[alone.pop()]}
    if not {"prompt", "messages"}.intersection(there):
        what = f"a prompt has either `prompt` or `messages`; the columns are {_listed(there)}"
        raise _wrong(record.where, f"{what}: say which is which, such as `columns: {{prompt: goal}}`")
    return values


def _listed(columns: Collection[str]) -> str:
    return ", ".join(f"`{name}`" for name in columns) or "none"


def _prompt(entry: Mapping[str, object], record: Record) -> Prompt:
    where = record.where
    user_file.refuse_unknown(entry, FIELDS, where)
    cluster = entry.get("cluster")
    if not isinstance(cluster, str | int | float | None):
        raise _wrong(where, f"`cluster` is a text, a number or a truth value, not {user_file.shown(cluster)}")
    return Prompt(
        prompt_id=_name(entry, "id", where, record.row_id),
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
