"""Data files in every format: what a record is, where it stands, and what cannot be read."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from adapters import records, user_file

ROWS = [{"goal": "Say, one.", "n": "1"}, {"goal": "Say\ntwo.", "n": "2"}]
CSV = 'goal,n\n"Say, one.",1\n\n"Say\ntwo.",2\n'
FORMATS = {
    "own.jsonl": "".join(json.dumps(row) + "\n\n" for row in ROWS),
    "own.json": json.dumps(ROWS, indent=2),
    "line.json": json.dumps(ROWS),
    "own.csv": CSV,
    "own.tsv": 'goal\tn\n"Say, one."\t1\n\n"Say\ntwo."\t2\n',
}


def read(path: Path, known: frozenset[str] = frozenset({"goal"})) -> list[records.Record]:
    return list(records.read(path, known))


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("packing", ["", ".gz"])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_the_same_records(name: str, packing: str, mark: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}{packing}"
    data = (mark + FORMATS[name]).encode()
    path.write_bytes(gzip.compress(data) if packing else data)
    found = read(path)
    assert [record.values for record in found] == ROWS
    places = (
        ["item-1", "item-2"]
        if name.endswith(".json")
        else ["line-1", "line-3"]
        if "jsonl" in name
        else ["line-2", "line-4"]
    )
    assert [record.row_id for record in found] == places
    assert found[0].where == (f"{path}, item 1" if name.endswith(".json") else f"{path}:{places[0][5:]}")


def test_parquet_has_nested_values_and_nothing(tmp_path: Path) -> None:
    path = tmp_path / "train-00000.parquet"
    rows = [{"messages": [{"role": "user", "content": "a"}], "label": None}, {"messages": [], "label": 3}]
    parquet.write_table(pa.Table.from_pylist(rows), path)
    assert [(record.row_id, record.values) for record in read(path)] == [("row-1", rows[0]), ("row-2", rows[1])]
    assert read(path)[1].where == f"{path}, row 2"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="cannot be read as Parquet"):
        read(path)


def test_lists_of_messages_are_records_in_an_array_and_on_lines(tmp_path: Path) -> None:
    chats = [[{"role": "user", "content": "a"}], [{"role": "user", "content": "b"}]]
    for name, text in (
        ("array.json", json.dumps(chats, indent=1)),
        ("wide.json", json.dumps(chats)),
        ("lines.jsonl", "".join(f"{json.dumps(chat)}\n" for chat in chats)),
    ):
        (tmp_path / name).write_text(text)
        assert [record.values for record in read(tmp_path / name)] == [{"messages": chat} for chat in chats]


@pytest.mark.parametrize(
    ("text", "columns", "first"),
    [
        ("goal\nSay one.\n", ["goal"], "line-2"),  # a header that is known
        ("Say one.\nSay two.\n", ["column 1", "column 1"], "line-1"),
        ("Goal \nSay one.\n", ["Goal"], "line-2"),
        ("# of 2026\n# by hand\ngoal\nSay one.\n", ["goal"], "line-4"),
        ("# is a mark.\nSay one.\n", ["column 1", "column 1"], "line-1"),
    ],
)
def test_one_column_has_a_header_where_it_is_a_known_one(
    text: str, columns: list[str], first: str, tmp_path: Path
) -> None:
    path = tmp_path / "own.csv"
    path.write_text(text)
    found = read(path)
    assert [next(iter(record.values)) for record in found] == columns
    assert found[0].row_id == first


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        (
            "own.csv",
            b"a,b\n1\n",
            "own.csv:2: the line has 1 fields, and 2 were before; a field with `,` in it has quotes",
        ),
        ("own.csv", b"a,a\n1,2\n", "own.csv:1: the column `a` is there twice"),
        ("own.csv", b'a,b\n"1,2\n', "own.csv:2: cannot be read as CSV"),
        ("own.json", b'[{"a": 1},\n {"a": }]', "own.json: not JSON .Expecting value, at line 2, character 8"),
        ("own.json", b'[{"a": 1}, 2]', "own.json, item 2: a record is an object or a list of messages, not 2"),
        ("own.json", b"[[[" * 100_000, "the JSON is nested too deeply"),
        ("own.jsonl.gz", gzip.compress(b'{"a": 1}', mtime=0)[:-9], "own.jsonl.gz: cannot be unpacked"),
        ("own.jsonl.gz", gzip.compress(b"caf\xe9", mtime=0), "own.jsonl.gz:1: not UTF-8"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_cannot_be_read_is_named_with_its_place(name: str, data: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=why):
        read(tmp_path / name)


def test_an_archive_and_what_is_too_much_when_unpacked_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "own.xlsx", "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(ValueError, match="it is a ZIP archive or a workbook; unpack it, or save the sheet as CSV"):
        read(tmp_path / "own.xlsx")
    (tmp_path / "own.jsonl.gz").write_bytes(gzip.compress(b'{"a": 1}\n' * 1000))
    monkeypatch.setattr(user_file, "LARGEST", 8000)
    with pytest.raises(ValueError, match="unpacked it has more than 0 GiB: split it"):
        read(tmp_path / "own.jsonl.gz")
    (tmp_path / "own.json").write_text("[" + "1," * 100 + "1]")
    monkeypatch.setattr(records, "LARGEST_ARRAY", 100)
    with pytest.raises(ValueError, match="is read whole: write it as JSON Lines"):
        read(tmp_path / "own.json")
