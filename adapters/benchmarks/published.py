"""The field's benchmarks, read from the files in which they were published.

None of them is part of Dosimeter: `path` says where the file is on this machine. A definition says which columns hold what, under all
names that copies in use give them. Sizes and licences: the data cards of the sets, as of 2026-11.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator

from adapters import records, user_file
from adapters.benchmarks.drawn import drawn, pinned_as
from adapters.benchmarks.gathered import gathered, repeated
from adapters.benchmarks.prompt_file import FIELDS
from adapters.pairs import Pairs, by_name, said
from adapters.records import SUFFIXES, TEXT, Header, Record, is_wanted
from engine.domain.conversation import Prompt, Turn
from engine.ports import OUTSIDE, BenchmarkCard, Claim, Settings

UNCATEGORISED = "all"
LOOKED_AT = 20
"""Records of a file by which it is told whose it is."""


@dataclass(frozen=True, slots=True)
class Definition:
    """How a benchmark was published.

    Attributes:
        title: What people call it.
        prompt: Columns of the prompt, the first that is there.
        licence: SPDX name or a short sentence.
        place: Where it is to be had.
        prompts: How many it has, as published; 0 where copies differ.
        is_gated: Whether its place asks who one is.
        category: Columns of the category; several that are there are joined by ` / `.
        identity: Columns of the id.
        behavior: Columns of what a harmful answer would do.
        context: Columns of a text that the request refers to; it is put before the prompt, with `---` between.
        reference: Makes the gold answers of a record.
        cluster: Columns of what prompts that belong together share.
        categories: Names of the categories that files are numbered by, such as `category_1.csv`.
        question: Makes the prompt, where it is more than a column.
        judge: Name of the judge that compares answers with the gold ones as the authors do; empty for none in particular.
        telling: Columns that it alone has, in small letters: a file with none of them is not surely this benchmark.
        answers_tell: Whether its gold answers tell it as well, for nobody else writes them so.
    """

    title: str
    prompt: tuple[str, ...]
    licence: str
    place: str
    prompts: int = 0
    is_gated: bool = False
    category: tuple[str, ...] = ()
    identity: tuple[str, ...] = ()
    behavior: tuple[str, ...] = ()
    context: tuple[str, ...] = ()
    reference: Callable[[Record], tuple[str, ...]] | None = None
    cluster: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    question: Callable[[Record], str] | None = None
    judge: str = ""
    telling: tuple[str, ...] = ()
    answers_tell: bool = False

    @property
    def known(self) -> frozenset[str]:
        """Names of its columns, in small letters."""
        named = (*self.prompt, *self.category, *self.identity, *self.behavior, *self.context, *self.cluster)
        return frozenset(name.lower() for name in named)


class PublishedSettings(Settings):
    """Where it is, and what is taken of it."""

    argument = "path"

    path: Annotated[str, OUTSIDE] = Field(min_length=1, description="The file, or the folder with its files.")
    n: int | None = Field(default=None, ge=1, description="Only so many prompts, stratified by category.")
    where: Pairs = Field(
        default=(),
        description="Only records with these values: `{category: [a, b], type: c}`; of one column any, of several all.",
    )

    @field_validator("where")
    @classmethod
    def _pairs(cls, where: tuple[str, ...]) -> tuple[str, ...]:
        by_name(where)
        return where


class Published:
    """A benchmark of the field."""

    revision = 1
    Settings = PublishedSettings
    definition: ClassVar[Definition]

    def card(self, settings: PublishedSettings) -> BenchmarkCard:
        """Describe and pin the benchmark.

        Raises:
            OSError: A file cannot be read.
            FileNotFoundError: It is not there; the message says how it is to be had.
            ValueError: A record is no prompt; the message names the line.
        """
        prompts = self.prompts(settings)
        categories = tuple(dict.fromkeys(prompt.category for prompt in prompts))
        told = settings.model_dump(include={"where"}, exclude_defaults=True)
        pins = [user_file.pin(path) for path in self._files(settings)]
        pin = user_file.pin_all([*pins, *pinned_as(settings.n), *(f"{name}={value}" for name, value in told.items())])
        own = self.definition
        notes = tuple(repeated(prompts))
        is_whole = settings.n is None and not told
        if own.prompts and is_whole and len(prompts) != own.prompts:
            size = f"{own.title} was published with {own.prompts:,} prompts, and this file has {len(prompts):,}"
            notes = (size, *notes)
        return BenchmarkCard(pin, len(prompts), categories, own.licence, own.title, notes, own.judge)

    def claim(self, path: str) -> Claim | None:
        """Claim a file by the columns of its first records, and a folder that has a file for each category."""
        try:
            return _claim(path, self._files(PublishedSettings(path=path)), self.definition)
        except (OSError, ValueError):  # it is none of this benchmark's; who reads it says what is wrong
            return None

    def prompts(self, settings: PublishedSettings) -> Sequence[Prompt]:
        """Return every prompt that is taken, in the order of the files."""
        files = self._files(settings)
        kind: Any = type(self)
        found = _remembered(kind, files, settings.where, tuple(user_file.pin(path) for path in files))
        return drawn(found, settings.n)

    def _files(self, settings: PublishedSettings) -> tuple[Path, ...]:
        path, own = user_file.located(settings.path), self.definition
        if not path.exists():
            gate = ", once you have been given access" if own.is_gated else ""
            raise FileNotFoundError(
                f"{own.title} is not at {path}. Get it from {own.place}{gate}, and name its place with `path`"
            )
        if not path.is_dir():
            return (path,)
        files = tuple(sorted((file for file in path.iterdir() if SUFFIXES.intersection(file.suffixes)), key=_natural))
        if not files:
            raise ValueError(f"{path} has no file of a kind that is read ({', '.join(sorted(SUFFIXES))})")
        return files


@cache
def _remembered(
    kind: Any, files: tuple[Path, ...], where: tuple[str, ...], pins: tuple[str, ...]
) -> tuple[Prompt, ...]:
    del pins  # only makes a changed file a new question
    prompts = gathered(_entries(kind.definition, files, by_name(where)))
    if not prompts:
        raise ValueError(
            f"{files[0].parent if len(files) > 1 else files[0]} has no prompts"
            + (" with the values of `where`" if where else "")
        )
    return prompts


def _entries(
    own: Definition, files: Sequence[Path], where: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, Callable[[], Prompt]]]:
    """Yield the place of every record that is wanted, and what makes a prompt of it."""
    for path in files:
        category = _numbered(path, own)
        header: Header = "no" if category else "auto"
        for record in records.read(path, own.known, header):
            if is_wanted(record, where):
                yield record.where, partial(_prompt, record, own, category, f"{path.stem}-" if len(files) > 1 else "")


def _natural(path: Path) -> tuple[object, ...]:
    """Return a key that sorts `category_10` after `category_9`."""
    return tuple(int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name))


def _numbered(path: Path, own: Definition) -> str:
    """Return the category that a file's number stands for; empty for none."""
    number = re.search(r"(\d+)\D*$", path.stem)
    place = int(number[1]) - 1 if number else -1
    return own.categories[place] if 0 <= place < len(own.categories) else ""


def _prompt(record: Record, own: Definition, category: str, prefix: str) -> Prompt:
    values = {name.lower(): value for name, value in record.values.items()}
    record = replace(record, values=values)
    text = own.question(record) if own.question else first(record, own.prompt) or _only(record)
    if not text.strip():
        there = ", ".join(f"`{name}`" for name in values)
        raise user_file.wrong(
            record.where, f"the prompt is empty, or in none of the columns of {own.title} (there are {there})"
        )
    context = first(record, own.context)
    asked = f"{context}\n\n---\n\n{text}" if context.strip() else text
    return Prompt(
        prompt_id=f"{prefix}{first(record, own.identity) or record.row_id}",
        category=category or " / ".join(every(record, own.category)) or UNCATEGORISED,
        turns=(Turn("user", asked),),
        behavior=first(record, own.behavior),
        context=context,
        references=own.reference(record) if own.reference else (),
        cluster=first(record, own.cluster) or None,
    )


def _claim(path: str, files: Sequence[Path], own: Definition) -> Claim | None:
    """Return the claim to files.

    It is sure where a column tells the benchmark and nothing that it has is missing: gold answers, or else all its columns. `text`,
    `label`, `prompt`, `category` and the like may be anybody's, and tell nothing.

    Raises:
        OSError: A file cannot be read.
        ValueError: A record is no prompt of this benchmark.
    """
    if own.categories and sorted(_numbered(file, own) for file in files) == sorted(own.categories):
        return Claim({"path": path})
    head = list(islice(records.read(files[0], own.known), LOOKED_AT))
    columns = {name.lower() for name in head[0].values} if head else set()
    if columns.isdisjoint(name.lower() for name in own.prompt):
        return None
    prompts = [_prompt(record, own, "", "") for record in head]
    has_references = all(prompt.references for prompt in prompts)
    used = own.known.union(own.telling) & columns
    if used <= FIELDS | {TEXT} and len(used) == 1:
        return None
    groups = (own.category, own.identity, own.context, own.cluster)
    is_whole = not any(columns.isdisjoint(name.lower() for name in group) for group in groups if group)
    is_told = not columns.isdisjoint(own.telling) or (own.answers_tell and has_references)
    is_sure = is_told and (has_references if own.reference else is_whole)
    return Claim({"path": path}, used, is_sure=is_sure, has_references=has_references)


def _only(record: Record) -> str:
    """Return the text of a file of one column without a header."""
    return str(record.values["column 1"]) if record.values.keys() == {"column 1"} else ""


def every(record: Record, columns: Sequence[str]) -> Iterator[str]:
    """Yield the texts of columns that are there and say something; of a list, such as of turns, the first."""
    for column in columns:
        value = record.values.get(column.lower())
        if isinstance(value, list):  # of turns: a benchmark asks with the first
            value = value[0] if value else None
        if value is not None and (text := said(value)).strip():
            yield text


def first(record: Record, columns: Sequence[str]) -> str:
    """Return the first of these texts; empty for none."""
    return next(every(record, columns), "")
