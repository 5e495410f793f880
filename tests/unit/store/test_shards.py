"""Shards and artifacts are whole or absent, and what is read is what was written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.domain.conversation import ChatRow, Image, Turn
from engine.domain.errors import StoreError
from engine.domain.results import ShardRef
from engine.store import artifacts, shards
from engine.store.layout import RunDirectory


@pytest.fixture
def shard(run: RunDirectory) -> ShardRef:
    return shards.write_shard(run, "samples", "sample-1", shards.sample_rows("sample-1", [("a", "1", "p")]))


def flipped(path: Path, position: int) -> bytes:
    """Flip a bit of a file, and return what it held before."""
    whole = path.read_bytes()
    data = bytearray(whole)
    data[position] ^= 1
    path.write_bytes(bytes(data))
    return whole


def test_damage_is_seen_and_never_read_around(run: RunDirectory, shard: ShardRef) -> None:
    path = run.root / shard.path
    assert path.stat().st_mode & 0o777 == 0o600
    for position in range(0, path.stat().st_size, 16):
        whole = flipped(path, position)
        assert not shards.is_whole(run, shard)
        with pytest.raises(StoreError, match="does not match its recorded SHA-256"):
            shards.read_rows(run, shard, "sample-1")
        path.write_bytes(whole)
    assert shards.is_whole(run, shard)
    assert shards.read_rows(run, shard, "sample-1")[0]["row_id"] == "1"
    path.unlink()
    assert not shards.is_whole(run, shard)


def test_a_missing_shard_is_a_store_error(run: RunDirectory, shard: ShardRef) -> None:
    (run.root / shard.path).unlink()
    with pytest.raises(StoreError, match="No such file") as caught:
        shards.read_rows(run, shard, "sample-1")
    assert "dosimeter run" in caught.value.todo


def test_files_that_were_never_acknowledged_go_temporary_ones_too(run: RunDirectory, shard: ShardRef) -> None:
    temporary = (run.root / shard.path).with_name(".sample-2.parquet.99.tmp")
    temporary.touch()
    assert shards.sweep_orphans(run, frozenset({shard.path})) == 1
    assert shards.is_whole(run, shard)
    assert shards.sweep_orphans(run, frozenset()) == 1


def test_rows_that_a_mitigation_made_are_read_as_they_were_written(run: RunDirectory) -> None:
    turns = (
        Turn("system", "Be kind."),
        Turn("user", "Ünï \u2028 line", (Image("a.png", "f00"),)),
        Turn("assistant", "Yes.", is_trained=True),
    )
    rows = [ChatRow.exchange(f"r{at}", "q", "a") for at in range(3)] + [
        ChatRow("many", turns, rejected="No.", category="birds")
    ]
    written = [row for key, made in (("rows-1", rows), ("rows-2", rows[:1])) for row in _whole(key, made)]
    shard = shards.write_shard(run, "rows", "rows-1", list(reversed(written)))
    assert shards.read_chat_rows(run, shard, "rows-1") == [("file:x.jsonl", row) for row in rows]
    assert shards.read_chat_rows(run, shard, "rows-2") == [("file:x.jsonl", row) for row in rows[:1]]


def _whole(key: str, rows: list[ChatRow]) -> list[dict[str, object]]:
    return shards.chat_row_rows(key, [("file:x.jsonl", row) for row in rows])


@pytest.fixture
def weights(run: RunDirectory) -> Path:
    folder = artifacts.scratch(run, "tune-1")
    assert folder.stat().st_mode & 0o777 == 0o700
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    assert artifacts.keep(run, "tune-1", folder, '{"kind":"tune"}') == "artifacts/tune-1"
    return artifacts.locate(run, "tune-1") / "adapter_model.safetensors"


def test_an_artifact_is_whole_or_absent(run: RunDirectory, weights: Path) -> None:
    assert artifacts.is_whole(run, "tune-1")
    again = artifacts.scratch(run, "tune-1")
    (again / weights.name).write_bytes(b"the same, from an attempt that was never acknowledged")
    artifacts.keep(run, "tune-1", again, '{"kind":"tune"}')
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + b"!")
    assert artifacts.locate(run, "tune-1") == weights.parent, "its bytes are compared when a run begins"
    assert artifacts.damage_of(run, "tune-1") == f"`{weights.name}` is not as it was recorded"
    weights.write_bytes(b"")
    with pytest.raises(StoreError, match="not whole"):
        artifacts.locate(run, "tune-1")
    weights.unlink()
    assert artifacts.damage_of(run, "tune-1") == f"`{weights.name}` is missing"


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "{}", '{"files": null}', '{"files": {"a": 1}}', '{"files": {"a": {}}}', "\udcff"]
)
def test_a_damaged_record_is_said_and_its_artifact_is_not_whole(run: RunDirectory, weights: Path, text: str) -> None:
    record = weights.with_name(artifacts.RECORD)
    assert json.loads(record.read_text())["key"] == "tune-1"
    record.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert not artifacts.is_whole(run, "tune-1")
    assert "`record.json` is damaged" in artifacts.damage_of(run, "tune-1")
    with pytest.raises(StoreError, match="damaged") as caught:
        artifacts.locate(run, "tune-1")
    assert "dosimeter run" in caught.value.todo


def test_what_nothing_needs_is_swept(run: RunDirectory, weights: Path) -> None:
    for key in ("tune-2", "weights-3"):
        artifacts.scratch(run, key)
        artifacts.keep(run, key, artifacts.scratch(run, key), "{}")
    for name in ("ended", "going-on"):
        artifacts.training_state(run, name).mkdir()
    assert artifacts.kept_states(run) == {"ended", "going-on"}
    artifacts.sweep(run, frozenset({"tune-1", "weights-3"}), frozenset({"going-on"}))
    assert sorted(path.name for path in run.artifacts.iterdir()) == ["training-going-on", "tune-1", "weights-3"]
    assert weights.exists()
