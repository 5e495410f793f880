"""Records of paid jobs: whole or absent, whatever happens while they are written."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from engine.domain.errors import StoreError
from engine.run.accounts.journal import JobRecord, Journal
from engine.store import layout

RECORD = JobRecord("tune-1", "ours", "hosted/openai", 1_700_000_000.25)


def test_what_was_written_is_read_by_whoever_comes_next(tmp_path: Path) -> None:
    folder = tmp_path / "jobs"
    assert Journal(folder).read("tune-1") is None
    assert Journal(folder).records() == []
    known = replace(RECORD, job_id="ftjob-1", state="running")
    for record in (replace(RECORD, key="tune-2"), RECORD, known):
        Journal(folder).write(record)
    assert Journal(folder).read("tune-1") == known
    assert Journal(folder).records() == [known, replace(RECORD, key="tune-2")]
    assert {path.stat().st_mode & 0o077 for path in folder.iterdir()} == {0}, "for the owner's eyes only"


@pytest.mark.parametrize("damage", ["", "[]", '{"key": "tune-1"}', '{"unknown": 1}', b"\xff".decode("latin-1")])
def test_a_damaged_record_is_said_with_its_place_and_what_to_do(tmp_path: Path, damage: str) -> None:
    Journal(tmp_path).write(RECORD)
    (tmp_path / "tune-1.json").write_text(damage, encoding="latin-1")
    for read in (Journal(tmp_path).records, lambda: Journal(tmp_path).read("tune-1")):
        with pytest.raises(StoreError, match="paid") as caught:
            read()
        assert caught.value.where == str(tmp_path / "tune-1.json")
        assert "looked for at the provider" in caught.value.todo


@pytest.mark.parametrize("call", ["touch", "write_text", "replace"])
def test_a_kill_while_a_record_is_written_leaves_the_old_one_whole(tmp_path: Path, call: str) -> None:
    Journal(tmp_path).write(RECORD)
    line = [
        sys.executable,
        Path(__file__).with_name("dies_writing.py"),
        str(tmp_path),
        call,
        RECORD.key,
        RECORD.account,
        RECORD.provider,
    ]
    assert subprocess.run(line, check=False).returncode == -signal.SIGKILL
    assert Journal(tmp_path).read("tune-1") == RECORD
    assert Journal(tmp_path).records() == [RECORD]
    Journal(tmp_path).write(replace(RECORD, job_id="ftjob-1"))
    assert json.loads((tmp_path / "tune-1.json").read_text())["job_id"] == "ftjob-1"


def test_a_record_is_on_the_disk_before_its_name_is_and_its_name_before_the_write_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    real = layout.sync

    def sync(path: Path) -> None:
        synced.append(path)
        assert (tmp_path / "tune-1.json").exists() is (path == tmp_path)
        real(path)

    monkeypatch.setattr(layout, "sync", sync)
    Journal(tmp_path).write(RECORD)
    assert len(synced) == 2
    assert synced[1] == tmp_path
