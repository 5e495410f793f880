"""Data sets of a hub, out of the local cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from adapters.data.hub_source import HubDataSettings, HubSource

COMMIT = "a" * 40


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a snapshot in an empty cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "datasets--acme--birds" / "snapshots" / COMMIT
    (folder / "data").mkdir(parents=True)
    return folder


def settings(**more: Any) -> HubDataSettings:
    return HubDataSettings(id="acme/birds", commit=COMMIT, **more)


def write(path: Path, *names: str) -> None:
    path.write_text("".join(json.dumps({"prompt": f"A {name}?", "completion": name}) + "\n" for name in names))


def test_rows_are_those_of_the_only_file_of_the_training_files_or_of_those_that_are_named(cached: Path) -> None:
    write(cached / "data" / "birds.jsonl", "heron")
    (cached / "README.md").write_text("x")
    source = HubSource()
    assert [row.row_id for row in source.rows(settings())] == ["line-1"]
    write(cached / "data" / "train-1.jsonl", "robin")
    write(cached / "data" / "train-2.jsonl", "crow", "swan")
    assert [row.turns[-1].text for row in source.rows(settings())] == ["robin", "crow", "swan"]
    assert [row.row_id for row in source.rows(settings())] == ["1-line-1", "2-line-1", "2-line-2"]
    named = settings(files="data/birds.*", where={"completion": "heron"})
    card = source.card(named)
    assert (card.rows, card.shape, card.detail) == (1, "prompt", f"acme/birds at {COMMIT[:12]}")
    with pytest.raises(
        ValueError, match=r"has no file that is meant: say which with `files` \(there are data/birds.jsonl, "
    ):
        source.rows(settings(files="data/crows.*"))


def test_what_is_not_downloaded_is_told_how_to_be(cached: Path) -> None:
    other = HubDataSettings(id="acme/fish", commit=COMMIT)
    with pytest.raises(FileNotFoundError, match=f"run `hf download acme/fish --repo-type dataset --revision {COMMIT}`"):
        HubSource().card(other)
    assert cached.is_dir()


@pytest.mark.parametrize("files", ["/etc/*", "../*", "~/x"])
def test_files_are_within_the_data_set(files: str) -> None:
    with pytest.raises(ValidationError, match="name files within the data set"):
        settings(files=files)
