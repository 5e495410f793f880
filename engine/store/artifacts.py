"""Artifact folders: content-addressed, written aside and moved into place, with a record of what made them."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from engine.domain.errors import StoreError
from engine.store.layout import RunDirectory, sha256_of, sync, write_text

RECORD = "record.json"
STATE = "training-"
"""What the folders of training states are called, before the name of their run."""


def scratch(run: RunDirectory, key: str) -> Path:
    """Return a new empty folder that an attempt at stage `key` may write into."""
    folder = run.artifacts / f".{key}-{uuid.uuid4().hex[:8]}.tmp"
    folder.mkdir(parents=True)
    return folder


def training_state(run: RunDirectory, name: str) -> Path:
    """Return the folder of what a training run needs to go on: a fine-tuner's own business, and it may not exist."""
    return run.artifacts / f"{STATE}{name}"


def kept_states(run: RunDirectory) -> frozenset[str]:
    """Return the names of the training runs that have left a state to go on from."""
    return frozenset(folder.name.removeprefix(STATE) for folder in run.artifacts.glob(f"{STATE}*"))


def keep(run: RunDirectory, key: str, folder: Path, payload: str) -> str:
    """Move a scratch folder into place as the artifact of `key`; the record is written last.

    Args:
        run: The run directory.
        key: The stage's key.
        folder: The scratch folder.
        payload: What the key was hashed from; it goes into the record.

    Returns:
        The artifact's path, relative to the run directory.
    """
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            sync(path)
            files[str(path.relative_to(folder))] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    record = json.dumps({"key": key, "payload": json.loads(payload), "files": files}, indent=1, ensure_ascii=False)
    write_text(folder / RECORD, record)
    folder.chmod(0o700)
    place = run.artifacts / key
    if place.exists():  # an earlier attempt got this far and was never acknowledged
        shutil.rmtree(place)
    folder.rename(place)
    sync(run.artifacts)
    return str(place.relative_to(run.root))


def locate(run: RunDirectory, key: str) -> Path:
    """Return the folder of an artifact; its files' sizes are checked, their bytes when a run begins.

    Raises:
        StoreError: When it is not there, or not whole.
    """
    place = run.artifacts / key
    if not is_whole(run, key, to_the_byte=False):
        raise StoreError("a stage's artifact is missing or not whole", where=str(place), todo="run the sweep again")
    return place


def is_whole(run: RunDirectory, key: str, *, to_the_byte: bool = True) -> bool:
    """Tell whether the artifact of `key` is there with every file that its record lists, in size and in bytes."""
    place = run.artifacts / key
    try:
        record = json.loads((place / RECORD).read_text())
    except (OSError, json.JSONDecodeError):
        return False
    return all(_is_as_recorded(place / name, was, to_the_byte=to_the_byte) for name, was in record["files"].items())


def _is_as_recorded(path: Path, was: Mapping[str, object], *, to_the_byte: bool) -> bool:
    if not path.is_file() or path.stat().st_size != was["bytes"]:
        return False
    return not to_the_byte or sha256_of(path) == was["sha256"]


def discard(folder: Path) -> None:
    """Delete a scratch folder or an artifact that nothing needs any more."""
    shutil.rmtree(folder, ignore_errors=True)


def sweep(run: RunDirectory, keep: frozenset[str], runs: frozenset[str]) -> None:
    """Delete what nothing needs, and the scratch folders that a killed run left.

    Args:
        run: The run directory.
        keep: Keys of the stages whose artifacts stay.
        runs: Names of the training runs whose state stays.
    """
    wanted = keep | {f"{STATE}{name}" for name in runs}
    for pattern in ("*tune-*", f"{STATE}*"):
        for folder in run.artifacts.glob(pattern):
            if folder.name not in wanted:
                discard(folder)
