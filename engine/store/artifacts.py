"""Artifact folders: the weights that a tune or weights stage left, written aside and moved into place with a record."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

from engine.domain.errors import StoreError
from engine.store.errors import AGAIN, mapped
from engine.store.layout import RunDirectory, sha256_of, sync, write_text

RECORD = "record.json"
STATE = "training-"
"""What the folders of training states are called, before the name of their run."""


def scratch(run: RunDirectory, key: str) -> Path:
    """Return a new empty folder that an attempt at stage `key` may write into, for the owner's eyes only.

    Raises:
        StoreError: It cannot be made.
    """
    folder = run.artifacts / f".{key}-{uuid.uuid4().hex[:8]}.tmp"
    with mapped("a scratch folder cannot be made", folder):
        run.artifacts.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(mode=0o700)
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

    Raises:
        StoreError: The disk is full, read-only or failing.
    """
    place = run.artifacts / key
    with mapped("weights cannot be put into place", place):
        files = {}
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                sync(path)
                files[str(path.relative_to(folder))] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        record = {"key": key, "payload": json.loads(payload), "files": files}
        write_text(folder / RECORD, json.dumps(record, indent=1, ensure_ascii=False))
        folder.chmod(0o700)
        if place.exists():  # an earlier attempt got this far and was never acknowledged
            shutil.rmtree(place)
        folder.rename(place)
        sync(run.artifacts)
    return str(place.relative_to(run.root))


def locate(run: RunDirectory, key: str) -> Path:
    """Return the folder of an artifact; its files' sizes are checked, their bytes when a run begins.

    Raises:
        StoreError: It is not there, or not whole.
    """
    place = run.artifacts / key
    if damage := damage_of(run, key, to_the_byte=False):
        raise StoreError(f"a stage's artifact is not whole: {damage}", where=str(place), todo=AGAIN)
    return place


def is_whole(run: RunDirectory, key: str) -> bool:
    """Tell whether the artifact of `key` is there with every file that its record lists, byte for byte."""
    return not damage_of(run, key)


def damage_of(run: RunDirectory, key: str, *, to_the_byte: bool = True) -> str:
    """Say what is wrong with the artifact of `key`; nothing when it is whole.

    Args:
        run: The run directory.
        key: The stage's key.
        to_the_byte: Whether to compare the bytes of its files, or their sizes alone.
    """
    place = run.artifacts / key
    try:
        files = _recorded(place / RECORD)
        wrong = [name for name, (size, _) in files.items() if (place / name).stat().st_size != size]
        if to_the_byte:
            wrong += [name for name, (_, sha256) in files.items() if sha256_of(place / name) != sha256]
    except FileNotFoundError as error:
        return f"`{Path(error.filename).name}` is missing"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    except ValueError as error:
        return f"its `{RECORD}` is damaged: {error}"
    return f"`{wrong[0]}` is not as it was recorded" if wrong else ""


def _recorded(path: Path) -> dict[str, tuple[int, str]]:
    """Return what a record says of each file: its bytes and its hash.

    Raises:
        OSError: The record cannot be read.
        ValueError: It is no record.
    """
    record: Any = json.loads(path.read_text(encoding="utf-8"))
    try:
        return {str(name): (int(was["bytes"]), str(was["sha256"])) for name, was in record["files"].items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError("it lists no files") from error


def discard(folder: Path) -> None:
    """Delete a scratch folder or an artifact that nothing needs any more; what cannot be deleted is left to the next run."""
    shutil.rmtree(folder, ignore_errors=True)


def sweep(run: RunDirectory, keep: frozenset[str], runs: frozenset[str]) -> None:
    """Delete what nothing needs, and the scratch folders that a killed run left.

    Args:
        run: The run directory.
        keep: Keys of the stages whose artifacts stay.
        runs: Names of the training runs whose state stays.
    """
    wanted = keep | {f"{STATE}{name}" for name in runs}
    for folder in run.artifacts.glob("*"):
        if folder.name not in wanted:
            discard(folder)
