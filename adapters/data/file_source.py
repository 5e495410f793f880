"""`file:PATH`: the user's own training examples, as they lie around.

A file is read by `adapters.records` (JSON Lines, a JSON array, CSV, TSV, Parquet, plain lines; packed by gzip or not), and its records
become conversations by their shape (`adapters.data.shapes`). Every assistant's turn is trained on, as OpenAI's API documents it,
except those with `"weight": 0`.

Columns that no shape uses are left out, and `plan` names them; those that would change what a row means, such as `tools`, or `image`
where the shape has no images, are refused and not dropped. The file is pinned by its bytes, together with those of the images that it names; relative paths are relative to the
working directory. Images lie in the folder that `images` names, which no path in the file leads out of (`adapters.images`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from adapters import images, records, user_file
from adapters.data import shapes
from adapters.data.shapes import CATEGORY, NEVER, PICTURES, SHAPES, Shape
from adapters.messages import images_of, pin_with_images
from adapters.pairs import Pairs, by_name, said
from adapters.records import Record, is_wanted
from adapters.refused import places, refusal
from engine.domain.conversation import ChatRow, Turn
from engine.ports import OUTSIDE, Claim, Settings, SourceCard

TIERS = Literal["explicit", "identity", "benign", "safety", "unknown"]
EXCHANGE = ("prompt", "completion", "system")
"""What `columns` may say the columns of: a row of one exchange ..."""

COLUMNS = (*EXCHANGE, CATEGORY)
"""... and the category of a row of any shape."""


class RowsSettings(Settings):
    """What the records of files are, and which of them are taken."""

    shape: Literal["auto", *SHAPES] = Field(  # type: ignore[valid-type] # a name for each
        default="auto", description="How its records are written; `auto` tells it from their columns."
    )
    columns: Pairs = Field(
        default=(),
        description="Which columns a row of one exchange is in, and the category of any row: `{prompt: question, completion: solution,"
        " system: persona, category: topic}`.",
    )
    where: Pairs = Field(
        default=(),
        description="Only records with these values: `{category: [a, b], is_safe: false}`; of one column any, of several all.",
    )
    refused: Literal["stop", "skip"] = Field(
        default="stop",
        description="What becomes of records that are no training example: nothing runs, or they are left out.",
    )
    system: str | None = Field(default=None, min_length=1, description="The system prompt of rows that have none.")
    tier: Annotated[TIERS, OUTSIDE] = Field(
        default="unknown", description="What kind of rows they are (Qi et al. 2023, section 4); only you can tell."
    )
    licence: Annotated[str, OUTSIDE] = Field(default="the user's own", min_length=1, description="For the data card.")

    @field_validator("columns")
    @classmethod
    def _known(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        named = by_name(columns)
        if unknown := [name for name in named if name not in COLUMNS]:
            raise ValueError(f"`{unknown[0]}` is not one of {', '.join(COLUMNS)}")
        if twice := [name for name, values in named.items() if len(values) > 1]:
            raise ValueError(f"`{twice[0]}` is in one column")
        return columns

    @field_validator("where")
    @classmethod
    def _pairs(cls, where: tuple[str, ...]) -> tuple[str, ...]:
        by_name(where)
        return where


class FileSettings(RowsSettings):
    """Which file, what it is, and what is taken of it."""

    argument = "path"

    path: Annotated[str, OUTSIDE] = Field(min_length=1, description="The file.")
    images: Annotated[str | None, OUTSIDE] = Field(
        default=None,
        min_length=1,
        description="The folder of the images that its records name; with it, the file is of the shape `llava`.",
    )

    @model_validator(mode="after")
    def _of_one_shape(self) -> Self:
        if self.images is None and self.shape == "llava":
            raise ValueError("the shape `llava` needs `images`: the folder of the images")
        if self.images is not None and self.shape not in {"auto", "llava"}:
            raise ValueError(f"`images` goes with the shape `llava`, not with `{self.shape}`")
        return self


class FileSource:
    """A file of training examples."""

    revision = 2
    Settings = FileSettings

    def card(self, settings: FileSettings) -> SourceCard:
        """Describe and pin the file.

        Raises:
            OSError: When it, or an image that it names, cannot be read.
            ValueError: When a record is no training example; the message names the places.
        """
        path = user_file.located(settings.path)
        found = _of_file(settings)
        return described(settings, found, pin_with_images(path, found.rows), settings.path)

    def claim(self, path: str) -> Claim | None:
        """Claim any file: its card says what it lacks."""
        return Claim({"path": path}, is_general=True) if user_file.located(path).is_file() else None

    def rows(self, settings: FileSettings) -> Sequence[ChatRow]:
        """Return every row, in the order of the file."""
        return _of_file(settings).rows


def _of_file(settings: FileSettings) -> Taken:
    folder = None if settings.images is None else user_file.located(settings.images).resolve()
    if folder is not None and not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder, and `images` names that of the images")
    return taken(settings, user_file.located(settings.path), folder=folder)


def described(settings: RowsSettings, found: Taken, pin: str, detail: str) -> SourceCard:
    """Return the card of what is taken of files.

    Args:
        settings: What was asked for.
        found: What is taken.
        pin: Of the files' content.
        detail: Where they are, for people.
    """
    systems = {row.system for row in found.rows}
    told = settings.model_dump(include={"shape", "columns", "where", "refused", "system"}, exclude_defaults=True)
    return SourceCard(
        pin=user_file.pin_all([pin, *(f"{name}={value}" for name, value in sorted(told.items()))]),
        rows=len(found.rows),
        tier=settings.tier,
        system=found.rows[0].system if len(systems) == 1 else None,
        licence=settings.licence,
        detail=detail,
        systems=len(systems),
        shape=found.shape,
        notes=found.notes,
    )


@dataclass(frozen=True, slots=True)
class Taken:
    """What is taken of a file.

    Attributes:
        rows: The rows.
        shape: The name of their shape.
        notes: What people should know: what was left out, and what is there twice.
    """

    rows: tuple[ChatRow, ...]
    shape: str
    notes: tuple[str, ...]


def taken(settings: RowsSettings, *paths: Path, folder: Path | None = None) -> Taken:
    """Return what the settings take of files, from memory while their bytes, and those of their images, are the same.

    Args:
        settings: What is asked for.
        paths: The files.
        folder: Where images lie; None for rows that have none.

    Raises:
        OSError: When one cannot be read.
        ValueError: When a record is no training example; the message names the places.
    """
    told = RowsSettings.model_validate(
        settings.model_dump(include=RowsSettings.model_fields.keys() - {"tier", "licence"}), strict=False
    )
    found = _remembered(told, paths, folder, tuple(user_file.pin(path) for path in paths))
    return found if all(map(images.is_same, images_of(found.rows))) else _read(told, paths, folder)


@cache
def _remembered(
    settings: RowsSettings, paths: tuple[Path, ...], folder: Path | None, content: tuple[str, ...]
) -> Taken:
    del content  # only makes changed files a new question
    return _read(settings, paths, folder)


def _read(settings: RowsSettings, paths: Sequence[Path], folder: Path | None) -> Taken:
    where = by_name(settings.where)
    named = {own: columns[0] for own, columns in by_name(settings.columns).items()}
    category = named.pop(CATEGORY, "")
    rows: list[ChatRow] = []
    refused: list[ValueError] = []
    left, unused = 0, Counter[str]()
    shape: Shape | None = None
    for record in _records(paths):
        if not is_wanted(record, where):
            left += 1
            continue
        renamed = _renamed(record, named)
        if shape is None:
            shape = _shape(settings, renamed, folder, is_named=bool(named))
        try:
            row = _row(renamed, shape, settings.system, folder)
            rows.append(replace(row, category=_category(record, shape, category)))
        except ValueError as error:
            refused.append(error)
        else:
            used = shape.columns | {category}
            unused.update(name for name, value in renamed.values.items() if name not in used and _says(value))
    if refused and settings.refused == "stop":
        raise refusal(refused, len(rows), "; mend what is wrong, or leave such records out with `refused: skip`")
    if not rows or shape is None:
        raise user_file.wrong(paths[0], "it has no examples" + (f"; {left:,} left out by `where`" if left else ""))
    _require_categories(rows, category, paths[0])
    return Taken(tuple(rows), shape.name, tuple(_notes(rows, refused, left, unused)))


def _require_categories(rows: Sequence[ChatRow], column: str, path: Path) -> None:
    """Refuse a column of categories, where one is named, in which no record has anything."""
    if column and not any(row.category for row in rows):
        raise user_file.wrong(path, f"`columns` names `{column}` for the category, and no record has anything there")


def _records(paths: Sequence[Path]) -> Iterator[Record]:
    for number, path in enumerate(paths, 1):
        for record in records.read(path):
            yield replace(record, row_id=f"{number}-{record.row_id}") if len(paths) > 1 else record


def _renamed(record: Record, named: Mapping[str, str]) -> Record:
    """Return a record with the columns of one exchange under their usual names."""
    if not named:
        return record
    if missing := [column for column in named.values() if column not in record.values]:
        there = ", ".join(f"`{name}`" for name in record.values)
        raise user_file.wrong(record.where, f"`columns` names `{missing[0]}`, and the columns are {there}")
    own = {name: value for name, value in record.values.items() if name not in {*named.values(), *EXCHANGE, "response"}}
    return replace(record, values=own | {name: record.values[column] for name, column in named.items()})


def _shape(settings: RowsSettings, record: Record, folder: Path | None, *, is_named: bool) -> Shape:
    if folder is None and settings.shape == "auto":
        return SHAPES["prompt"] if is_named else shapes.detected(record.values.keys(), record.where)
    shape = SHAPES["llava"] if folder is not None else SHAPES[settings.shape]
    if shape.name == "llava" and folder is None:
        raise user_file.wrong(record.where, "the shape `llava` is read by `file` alone, with `images`")
    if not shape.fits(record.values.keys()):
        needs = " and ".join(" or ".join(f"`{name}`" for name in names) for names in shape.needs)
        raise user_file.wrong(record.where, f"the shape `{shape.name}` needs {needs}")
    return shape


def _row(record: Record, shape: Shape, system: str | None, folder: Path | None) -> ChatRow:
    if loaded := [f"`{name}`" for name in record.values if name in NEVER and _says(record.values[name])]:
        raise user_file.wrong(record.where, f"{', '.join(loaded)} cannot be trained on; take the row out")
    if not shape.fits(record.values.keys()):
        raise user_file.wrong(record.where, f"it is not of the shape `{shape.name}`, as the first record is")
    if shape.name != "llava" and (shown := [name for name in PICTURES if _says(record.values.get(name))]):
        raise user_file.wrong(
            record.where,
            f"`{shown[0]}` names images: `file` reads them in the shape `llava`, with `images: FOLDER`; empty the column to train"
            " without them",
        )
    row = shape.read(record)
    if folder is None:
        row = shapes.without_images(record, row)
    else:
        row = replace(row, turns=tuple(_pictured(turn, folder, record.where) for turn in row.turns))
    if system is None or row.system is not None or shape.name == "text":
        return row
    return replace(row, turns=(Turn("system", system), *row.turns))


def _category(record: Record, shape: Shape, named: str) -> str:
    """Return the category of a record: what is in the column that the spec names, or that its shape has; empty for none."""
    value = record.values.get(named or CATEGORY) if named or CATEGORY in shape.may else None
    is_nothing = value is None or (isinstance(value, float) and math.isnan(value))
    if not is_nothing and isinstance(value, str | int | float):
        return said(value).strip()
    if named and not is_nothing:
        raise user_file.wrong(
            record.where, f"the category `{named}` is a text or a number, not {user_file.shown(value)}"
        )
    return ""


def _pictured(turn: Turn, folder: Path, where: str) -> Turn:
    """Return a turn whose images were looked for in a folder."""
    try:
        return replace(turn, images=tuple(images.located(folder, image.path) for image in turn.images))
    except ValueError as error:
        raise user_file.wrong(where, str(error)) from error


def _says(value: object) -> bool:
    return value not in (None, "", [], {})


def _notes(
    rows: Sequence[ChatRow], refused: Sequence[ValueError], left: int, unused: Mapping[str, int]
) -> Iterator[str]:
    if refused:
        yield f"{len(refused)} refused and left out ({places(refused)}); the first: {refused[0]}"
    if left:
        yield f"{left:,} left out by `where`"
    if again := len(rows) - len({(row.turns, row.rejected) for row in rows}):
        yield f"{again:,} {'row repeats an earlier one' if again == 1 else 'rows repeat earlier ones'}"
    if unused:
        yield f"columns that are not used: {', '.join(unused)}"
    if shown := sum(any(turn.images for turn in row.turns) for row in rows):
        yield f"images in {shown:,} {'row' if shown == 1 else 'rows'}"
    spaced = sum(_begins_with_space(row) for row in rows)
    if spaced:
        begin = "answer begins or ends" if spaced == 1 else "answers begin or end"
        yield f"{spaced:,} {begin} with white space, which is trained on as well"


def _begins_with_space(row: ChatRow) -> bool:
    return any(turn.is_trained and turn.text != turn.text.strip() for turn in row.turns)
