"""A text file of the user's own: looked at before it is opened, pinned by its bytes, and read line by line.

What could hang, fill the memory or be read in two ways is refused, with the place and what to do: a pipe or a device, a file
of more than 1 GiB, a line of more than 16 MiB, text that is not UTF-8, JSON nested too deeply, and a key that is there twice.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import json
import re
import stat
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

SURROGATE = re.compile("[\ud800-\udfff]")
LARGEST = 2**30
"""A larger file is refused, in bytes."""

LONGEST = 2**24
"""A longer line is refused, in bytes."""

HEAD = 4096
"""Bytes of a file that say what it is."""

GZIP, ZIP = b"\x1f\x8b", b"PK\x03\x04"

MOST_SHOWN = 60
"""Characters of a value that an error shows."""

_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before UTF-16's, which it begins with
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_TO_UTF_8 = "save it as UTF-8 (`iconv -f {} -t UTF-8 FILE > NEW`)"


def located(name: str) -> Path:
    """Return the path that a setting names; `~` is the home folder."""
    return Path(name).expanduser()


def opened(path: Path) -> BufferedReader:
    """Open a file to read its bytes.

    Raises:
        OSError: It is not there, or may not be read.
        ValueError: It is no file of text that can be read to its end.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path} is a {_kind(found.st_mode)}; name a file")
    if not 0 < found.st_size <= LARGEST:
        size = f"has {found.st_size / 2**30:.1f} GiB, more than the {LARGEST // 2**30} that is read: split it"
        raise ValueError(f"{path} {size if found.st_size else 'is empty'}")
    return path.open("rb")


def _kind(mode: int) -> str:
    return "folder" if stat.S_ISDIR(mode) else "pipe" if stat.S_ISFIFO(mode) else "device or socket"


def pin(path: Path) -> str:
    """Return `sha256:` and hex digits over the file's bytes.

    Raises:
        OSError: It is not there, or may not be read.
        ValueError: It is no file of text.
    """
    with opened(path) as stream:
        return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()


def pin_all(pins: Sequence[str]) -> str:
    """Return the pin of several things as one: of one thing, its own."""
    if len(pins) == 1:
        return pins[0]
    return "sha256:" + hashlib.sha256("\n".join(pins).encode()).hexdigest()


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (number, text) of every line, unpacked where the file is packed by gzip. A line ends with a line feed, and with nothing else.

    Raises:
        OSError: The file is not there, or may not be read.
        ValueError: A line is no text in UTF-8, or too long; the message names the line.
    """
    with unpacked(path) as stream:
        number = total = 0
        while line := _read(path, lambda: stream.readline(LONGEST + 1)):
            number, total = number + 1, total + len(line)
            where = f"{path}:{number}"
            if len(line) > LONGEST:
                raise wrong(where, f"the line has more than {LONGEST // 2**20} MiB")
            if total > LARGEST:
                raise wrong(path, f"unpacked it has more than {LARGEST // 2**30} GiB: split it")
            yield number, _decoded(line.removeprefix(codecs.BOM_UTF8) if number == 1 else line, where)


def whole(path: Path, most: int) -> str:
    """Return the text of a file of at most so many bytes, unpacked where it is packed.

    Raises:
        OSError: The file is not there, or may not be read.
        ValueError: It has more, or is no text in UTF-8.
    """
    with unpacked(path) as stream:
        data = _read(path, lambda: stream.read(most + 1))
    if len(data) > most:
        raise wrong(path, f"it has more than {most // 2**20} MiB, and is read whole: write it as JSON Lines")
    return _decoded(data.removeprefix(codecs.BOM_UTF8), str(path))


def begins_with(path: Path, mark: bytes) -> bool:
    """Tell whether the first character that is not blank is this one."""
    with unpacked(path) as stream:
        return _read(path, lambda: stream.read(HEAD)).removeprefix(codecs.BOM_UTF8).lstrip().startswith(mark)


@contextmanager
def unpacked(path: Path) -> Iterator[BufferedReader | gzip.GzipFile]:
    """Open a file while the block runs, and unpack what gzip has packed as it is read.

    Raises:
        OSError: It is not there, or may not be read.
        ValueError: It is no file of text, but an archive.
    """
    with opened(path) as stream:
        head = stream.peek(len(ZIP))
        if head.startswith(ZIP):
            raise wrong(path, "it is a ZIP archive or a workbook; unpack it, or save the sheet as CSV")
        if head.startswith(GZIP):
            with gzip.GzipFile(fileobj=stream) as packed:
                yield packed
        else:
            yield stream


def _read(path: Path, read: Callable[[], bytes]) -> bytes:
    try:
        return read()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise wrong(path, f"cannot be unpacked ({error})") from error


def json_lines(path: Path) -> Iterator[tuple[str, object]]:
    """Yield (`PATH:LINE`, value) of every line that is not blank.

    Raises:
        OSError: The file is not there, or may not be read.
        ValueError: A line is no JSON; the message names the line.
    """
    for number, text in lines(path):
        if text.strip():
            where = f"{path}:{number}"
            yield where, decoded(text.rstrip("\r\n"), where)


def wrong(where: str | Path, what: str) -> ValueError:
    """Return the error that something is wrong at a place in a file."""
    return ValueError(f"{where}: {what}")


def _decoded(line: bytes, where: str) -> str:
    encoding = next((name for mark, name in _MARKS.items() if line.startswith(mark)), "")
    if encoding or b"\0" in line:
        encoding = encoding or "UTF-16"
        raise ValueError(f"{where}: not UTF-8, it looks like {encoding}; {_TO_UTF_8.format(encoding)}")
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        byte = f"byte 0x{line[error.start]:02x} at character {len(line[: error.start].decode()) + 1}"
        raise ValueError(
            f"{where}: not UTF-8 ({byte}), perhaps Windows-1252; {_TO_UTF_8.format('WINDOWS-1252')}"
        ) from error


def decoded(text: str, where: str) -> object:
    """Return a JSON value.

    Raises:
        ValueError: It is none, or one that can be read in two ways.
    """
    try:
        value: object = _DECODER.decode(text)
        _refuse_half_characters(value)
    except RecursionError:
        raise wrong(where, "the JSON is nested too deeply") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise wrong(where, f"not JSON ({error.msg}, at {place}character {error.colno}); {_ONE_LINE_EACH}") from error
    except ValueError as error:
        raise wrong(where, str(error)) from error
    return value


_ONE_LINE_EACH = "write every object on one line of its own, or all of them as one array; name a CSV file .csv"


def _once(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key `{next(key for key in keys if keys.count(key) > 1)}` is there twice")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"`{name}` is no number of JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_number)


def _refuse_half_characters(value: object) -> None:
    """Refuse text that UTF-8 cannot say: JSON can write half of a character."""
    if SURROGATE.search(json.dumps(value, ensure_ascii=False)):
        raise ValueError("half of a character (a lone surrogate); write the text in UTF-8")


def shown(value: object) -> str:
    """Return a value of a file as an error shows it: a list or an object by its kind, a long text by its beginning."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


def refuse_unknown(entry: Mapping[Any, object], known: AbstractSet[str], where: str) -> None:
    """Refuse keys that would be dropped. One that is null or empty says nothing, and may stay.

    Raises:
        ValueError: Naming them.
    """
    extra = [f"`{key}`" for key, value in entry.items() if key not in known and value not in (None, [], {})]
    if extra:
        allowed = ", ".join(f"`{key}`" for key in sorted(known))
        raise ValueError(f"{where}: {', '.join(extra)} cannot be used here; take it out (known here: {allowed})")
