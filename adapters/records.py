"""The records of a data file, whatever it is written in: JSON Lines, a JSON array, CSV, TSV, Parquet or plain lines.

What a file is, its content and its name say: Parquet by its first bytes, `.csv`, `.tsv` and `.txt` by the name, JSON by the bracket
that it begins with. Each but Parquet may be packed (`.gz`). All is UTF-8, with or without a byte-order mark; a JSON array may have
256 MiB, everything else what `adapters.user_file` says.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

from adapters import user_file
from adapters.pairs import said

Header = Literal["auto", "yes", "no"]
LARGEST_ARRAY = 2**28
"""A larger JSON array is refused, in bytes: it has to be read whole."""

BATCH = 1000
PARQUET = b"PAR1"
DELIMITERS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = frozenset({".csv", ".tsv", ".json", ".jsonl", ".parquet", ".txt"})
"""Suffixes of what is read, before `.gz`."""

MESSAGES = "messages"
"""The column of a record that is a bare list of messages."""

TEXT = "text"
"""The column of a file of plain lines."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record.

    Attributes:
        where: Its place, for errors: `PATH:LINE`, or `PATH, item 3`.
        row_id: Its name inside the file, such as `line-3`.
        values: Its values by column.
    """

    where: str
    row_id: str
    values: Mapping[str, object]


def read(path: Path, known: AbstractSet[str] = frozenset(), header: Header = "auto") -> Iterator[Record]:
    """Yield every record, in order. Blank lines are none.

    Args:
        path: The file.
        known: Names of columns, in small letters: the first line of a CSV file of one column is a header where it is one of them.
            Without any, it always is; and so is that of several columns.
        header: Whether the first line of a CSV file is a header. Without one, columns are called `column 1`, `column 2`, ...

    Raises:
        OSError: The file is not there, or may not be read.
        ValueError: It cannot be read as what it is; the message names the place.
    """
    with user_file.opened(path) as stream:
        is_parquet = stream.peek(len(PARQUET)).startswith(PARQUET)
    name = Path(path.name.lower().removesuffix(".gz"))
    if is_parquet:
        yield from _parquet(path)
    elif name.suffix in DELIMITERS:
        yield from _csv(path, DELIMITERS[name.suffix], known, header)
    elif name.suffix == ".txt":
        yield from _plain(path)
    else:
        yield from _json(path)


def is_wanted(record: Record, where: Mapping[str, Sequence[str]]) -> bool:
    """Tell whether a record has, in each column that `where` names, one of the values there.

    Raises:
        ValueError: It has no such column.
    """
    for column, values in where.items():
        if column not in record.values:
            there = ", ".join(f"`{name}`" for name in record.values)
            raise user_file.wrong(record.where, f"`where` asks for `{column}`, and the columns are {there}")
        if said(record.values[column]) not in values:
            return False
    return True


def _json(path: Path) -> Iterator[Record]:
    """Read JSON Lines, or an array: what begins with a bracket and is no whole array on each of several lines."""
    if user_file.begins_with(path, b"[") and not _has_arrays_on_lines(path):
        text = user_file.whole(path, LARGEST_ARRAY)
        items = user_file.decoded(text, str(path))
        if not isinstance(items, list):
            raise user_file.wrong(path, "expected a list of records")
        for number, item in enumerate(items, 1):
            yield _record(item, f"{path}, item {number}", f"item-{number}")
        return
    for where, value in user_file.json_lines(path):
        yield _record(value, where, f"line-{where.rpartition(':')[2]}")


def _has_arrays_on_lines(path: Path) -> bool:
    lines = (text for _, text in user_file.lines(path) if text.strip())
    try:
        first = next(lines)
        user_file.decoded(first, str(path))
        return next(lines, None) is not None
    except ValueError:  # it goes on, or is too long for a line: an array
        return False


def _record(value: object, where: str, row_id: str) -> Record:
    if isinstance(value, list):
        return Record(where, row_id, {MESSAGES: value})
    if isinstance(value, dict):
        return Record(where, row_id, value)
    raise user_file.wrong(where, f"a record is an object or a list of messages, not {user_file.shown(value)}")


def _csv(path: Path, delimiter: str, known: AbstractSet[str], header: Header) -> Iterator[Record]:
    csv.field_size_limit(user_file.LONGEST)
    lines = _without_comments(user_file.lines(path), known, delimiter)
    reader = csv.reader((text for _, text in lines), delimiter=delimiter, strict=True)
    begun = 1
    columns: list[str] = []
    try:
        for fields in reader:
            where, line, begun = f"{path}:{begun}", begun, reader.line_num + 1
            if not any(field.strip() for field in fields):
                continue
            if not columns:
                is_header = header == "yes" or (header == "auto" and (len(fields) > 1 or _is_header(fields, known)))
                columns = _columns(fields, where) if is_header else [f"column {at + 1}" for at in range(len(fields))]
                if is_header:
                    continue
            if len(fields) != len(columns):
                what = f"the line has {len(fields)} fields, and {len(columns)} were before; a field with `{delimiter}` in it has quotes"
                raise user_file.wrong(where, what)
            yield Record(where, f"line-{line}", dict(zip(columns, fields, strict=True)))
    except csv.Error as error:
        raise user_file.wrong(f"{path}:{begun}", f"cannot be read as CSV ({error})") from error


def _without_comments(
    lines: Iterator[tuple[int, str]], known: AbstractSet[str], delimiter: str
) -> Iterator[tuple[int, str]]:
    """Take away lines that begin with `#` before a header, and keep them where none follows."""
    held: list[tuple[int, str]] = []
    for number, text in lines:
        if not text.startswith("#"):
            fields = next(csv.reader([text], delimiter=delimiter), [])
            blank = [(place, "\n") for place, _ in held]  # so that lines keep their numbers
            yield from chain(blank if held and known and _is_header(fields, known) else held, [(number, text)], lines)
            return
        held.append((number, text))
    yield from held


def _is_header(fields: Sequence[str], known: AbstractSet[str]) -> bool:
    return not known or any(field.strip().lower() in known for field in fields)


def _columns(fields: Sequence[str], where: str) -> list[str]:
    columns = [field.strip() or f"column {at}" for at, field in enumerate(fields, 1)]
    if twice := [name for name in columns if columns.count(name) > 1]:
        raise user_file.wrong(where, f"the column `{twice[0]}` is there twice")
    return columns


def _plain(path: Path) -> Iterator[Record]:
    for number, text in user_file.lines(path):
        if text.strip():
            yield Record(f"{path}:{number}", f"line-{number}", {TEXT: text.rstrip("\r\n")})


def _parquet(path: Path) -> Iterator[Record]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            groups = (file.metadata.row_group(at) for at in range(file.metadata.num_row_groups))
            if sum(group.total_byte_size for group in groups) > user_file.LARGEST:
                raise user_file.wrong(path, f"unpacked it has more than {user_file.LARGEST // 2**30} GiB: split it")
            rows: Iterable[Mapping[str, object]] = chain.from_iterable(
                batch.to_pylist() for batch in file.iter_batches(BATCH)
            )
            for number, row in enumerate(rows, 1):
                yield Record(f"{path}, row {number}", f"row-{number}", row)
    except pa.ArrowException as error:
        raise user_file.wrong(path, f"cannot be read as Parquet ({error})") from error
