"""What a run in a pack keeps on disk to go on from, bit for bit: one safetensors file. Only workers import this.

The tensors are the adapter, AdamW's moments and the state of the run's random numbers; the rest is JSON in the file's
header. One file is whole or absent, and nothing in it can execute. Only its owner can read it, since it holds weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from itertools import dropwhile
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from adapters.local.packs.member import Member
from adapters.local.states import flush
from engine.domain.results import TrainingStep

STATE = "pack.safetensors"
FORMAT = 4
"""Raise it when anything here changes: older states are then left alone."""

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What AdamW keeps of each weight."""


def save(member: Member) -> None:
    """Write a run's state into its folder: its weights are those in `member.adapter`, after at least one step."""
    folder = member.run.state
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    tensors = {str(place): weight.detach() for place, weight in enumerate(member.weights)}
    for place, moments in member.optimizer.state_dict()["state"].items():
        tensors |= {f"{place} {name}": moments[name] for name in MOMENTS}
    if member.dropout is not None:
        tensors["dropout"] = member.dropout.get_state()
    record = {
        "format": FORMAT,
        "identity": member.identity,
        "steps": [asdict(step) for step in member.steps],
        "passed": member.passed,
        "at_checkpoint": any(
            member.end(checkpoint) == member.step
            for checkpoint in member.run.checkpoints
            if checkpoint.key in member.passed
        ),
        "begun": member.begun,
        "tokens": member.tokens,
        "seconds": member.seconds,
    }
    fresh = folder / f"{STATE}.new"
    fresh.touch(mode=0o600)
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, fresh, {"run": json.dumps(record)})
    fresh.chmod(0o600)
    flush(fresh)
    fresh.replace(folder / STATE)
    flush(folder)


def restore(member: Member, rows: int) -> None:
    """Put a member where its run's state is, if there is one that it can go on from.

    It must be of the same identity, and lie no later than the first checkpoint that is wanted. With dropout as many rows must have gone
    through the model at once as will: masks are drawn for each part of a batch.

    Args:
        member: The run, at its beginning.
        rows: Rows that will go through the model at once.
    """
    try:
        with safe_open(member.run.state / STATE, "pt") as file:
            record = json.loads(file.metadata()["run"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError):
        return  # there is none, or it is damaged: begin anew
    same = record["format"] == FORMAT and record["identity"] == json.loads(json.dumps(member.identity))
    wanted = {checkpoint.key for checkpoint in member.run.checkpoints}
    again = list(dropwhile(lambda key: key not in wanted, record["passed"]))
    same = same and wanted.issuperset(again)  # else one went on from a wanted one, and cannot be gone on from
    if member.dropout is not None:
        rows = min(rows, member.batch_shape[0])
        same = same and all(step["rows_at_once"] == rows for step in record["steps"])
    if same and len(record["steps"]) <= member.end(member.run.checkpoints[0]):
        _take(member, record, tensors)


def _take(member: Member, record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    wanted = {checkpoint.key for checkpoint in member.run.checkpoints}  # one at this very step was not recorded
    member.steps = [TrainingStep(**step) for step in record["steps"]]
    member.passed = [key for key in record["passed"] if key not in wanted]
    if record["at_checkpoint"] and member.passed == record["passed"]:
        member.begun = member.step  # the checkpoint here was recorded, and what led to it was counted there
    else:  # what an attempt that left no record did since the last checkpoint belongs to the next one's price
        member.begun, member.tokens, member.seconds = record["begun"], record["tokens"], record["seconds"]
    if member.dropout is not None:
        member.dropout.set_state(tensors["dropout"])
    moments = {}
    for place, weight in enumerate(member.weights):
        weight.data.copy_(tensors[str(place)])
        if f"{place} step" in tensors:  # else the rows never reached its module
            moments[place] = {name: tensors[f"{place} {name}"] for name in MOMENTS}
    member.optimizer.load_state_dict(member.optimizer.state_dict() | {"state": moments})
    member.saved = member.step
