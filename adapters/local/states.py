"""The states of one training run on disk, from which it goes on bit for bit: folders `at-STEP`, each with `run.json`.

A state counts once it has its name: the trainer writes it in a folder beside, and it is moved into place when it lies
on the disk. Only its owner can read it, since it holds tuned weights.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path

from engine.ports import Context, TrainingRun

RECORD = "run.json"
SAVE_AT_MOST_EVERY = 2.0
"""Seconds between two states of a run at ends of epochs."""

SAVING_SHARE = 0.05
"""Such states may take about this share of the time; those of a large model take minutes to write."""

LIBRARIES = ("torch", "transformers", "peft", "trl", "accelerate", "datasets")


@dataclass(frozen=True, slots=True)
class SavedState:
    """A saved state.

    Attributes:
        folder: Where it is.
        step: Optimizer steps done, >= 1.
        passed: Keys of the checkpoints up to this step, in order.
        counted: Optimizer steps that earlier checkpoints have accounted for.
        seconds: Device time that was spent since then.
        is_checkpoint: Whether a checkpoint is here.
    """

    folder: Path
    step: int
    passed: tuple[str, ...]
    counted: int = 0
    seconds: float = 0.0
    is_checkpoint: bool = False

    @property
    def accounted(self) -> SavedState:
        """The same state, once a checkpoint has accounted for all that led to it."""
        return replace(self, counted=self.step, seconds=0.0)


def run_identity(run: TrainingRun, layers: Sequence[str], context: Context) -> dict[str, object]:
    """Return what must agree for one run to go on from another's state: all but how long it is.

    Under a schedule that depends on the total number of steps, that total must agree too.

    Args:
        run: The run.
        layers: The contents of the layers of its model.
        context: The worker.
    """
    settings = run.settings
    rows = json.dumps([asdict(row) for row in run.rows], sort_keys=True)
    return {
        "base": [run.model.base, *layers],
        "rows": hashlib.sha256(rows.encode()).hexdigest(),
        "seed": run.seed,
        "settings": settings.model_dump(mode="json", exclude={"gradient_checkpointing"}),
        "steps": None if settings.is_stepwise else settings.total_steps(run.checkpoints[-1].length, len(run.rows)),
        "device": _device_name(context.device) + (f" x {context.devices}" if context.devices > 1 else ""),
        "threads": context.threads,
        "libraries": _versions(),
    }


@cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in LIBRARIES}


def _device_name(device: str) -> str:
    if device == "cpu":
        return device
    import torch

    return torch.cuda.get_device_name(device)


def pause_after(saving: float) -> float:
    """Return for how many seconds no state need be saved, when one took `saving` seconds."""
    return max(SAVE_AT_MOST_EVERY, saving / SAVING_SHARE)


class SavedStates:
    """The states of one run.

    Args:
        folder: The run's own folder; need not exist.
        identity: What the run is, as JSON values; states of anything else are not seen.

    Attributes:
        workshop: Where the trainer writes `checkpoint-STEP`, before it is kept.
    """

    def __init__(self, folder: Path, identity: Mapping[str, object]) -> None:
        """Make the folder, and clear what an interruption left half-written."""
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        self._folder = folder
        self._identity = dict(identity)
        self.workshop = folder / "writing"
        shutil.rmtree(self.workshop, ignore_errors=True)

    def latest(self, limit: int, wanted: AbstractSet[str]) -> SavedState | None:
        """Return the longest state of this run of at most `limit` steps.

        Args:
            limit: The step of the first checkpoint that is wanted.
            wanted: Keys of the checkpoints that are wanted; one that was passed before was not recorded, and counts as to come.
        """
        found = [saved for path in self._folder.glob("at-*") if (saved := self._read(path)) and saved.step <= limit]
        saved = max(found, key=lambda saved: saved.step, default=None)
        if saved is None or wanted.isdisjoint(saved.passed):
            return saved.accounted if saved and saved.is_checkpoint else saved
        # Nobody can go on from a checkpoint that itself went on from one that is wanted again.
        passed = tuple(takewhile(lambda key: key not in wanted, saved.passed))
        again = saved.passed[len(passed) :]
        return replace(saved, passed=passed) if frozenset(again) <= wanted else None

    def _read(self, folder: Path) -> SavedState | None:
        try:
            record = json.loads((folder / RECORD).read_text())
        except (OSError, ValueError):
            return None
        if record.pop("identity") != self._identity:
            return None
        return SavedState(folder, **record | {"passed": tuple(record["passed"])})

    def keep(self, state: SavedState) -> SavedState:
        """Take over the trainer's `checkpoint-STEP` in `state.folder`; older states go.

        Args:
            state: What it is; `counted` and `seconds` are as they were on the way to it.
        """
        written, kept = state.folder, self._folder / f"at-{state.step}"
        self._record(state)
        for path in written.iterdir():
            path.chmod(0o600)
            flush(path)
        flush(written)
        shutil.rmtree(kept, ignore_errors=True)
        written.rename(kept)
        flush(self._folder)
        shutil.rmtree(self.workshop)  # trainers write a card of the model into it, too
        for path in self._folder.glob("at-*"):
            if path != kept:
                shutil.rmtree(path, ignore_errors=True)
        return replace(state, folder=kept)

    def mark(self, saved: SavedState, key: str) -> SavedState:
        """Note that a state is also that of the checkpoint `key`."""
        marked = replace(saved, passed=(*saved.passed, key), is_checkpoint=True)
        self._record(marked)
        return marked

    def _record(self, state: SavedState) -> None:
        record = {"identity": self._identity} | asdict(state)
        del record["folder"]
        fresh = state.folder / f"{RECORD}.new"
        fresh.write_text(json.dumps(record, indent=1))
        fresh.chmod(0o600)
        flush(fresh)
        fresh.replace(state.folder / RECORD)


def flush(path: Path) -> None:
    """Have what was written to a file or folder lie on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
