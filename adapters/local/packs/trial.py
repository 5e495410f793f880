"""Whether gradients that are written out are the model's own: tried out before they are used. Only hosts import this.

`llama.py` has the sums of the transformers that it was written for. Where another version computes otherwise, or somebody has
hooked into the model, its modules must train it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from adapters.local.chat import IGNORED
from adapters.local.llama import is_written_out, linear_paths
from adapters.local.loaded import LoadedModel
from adapters.local.lora import Adapter
from adapters.local.packs.llama import WrittenOut
from adapters.local.packs.member import Member, Rows
from adapters.local.packs.order import Course
from adapters.local.packs.pack import Pack
from engine.domain.stage import ModelRef
from engine.domain.sweep import TuneRecipe
from engine.ports import Trajectory

ROWS = (((3, 1, 4), (1, 5, 9, 2, 6)), ((3, 1, 4), (8, 8)), ((2,), (7, 1, 8)))
"""Prompts and answers for the trial, in tokens: of unequal lengths, and two begin alike."""

RANK = 2

AGREES = (1e-4, 1e-3)
"""Largest differences between losses and between gradients, as shares of their 2-norms, with which both ways are one. On the
stand-in they were 0 and 1e-6, on models of random weights at most 7e-7 and 5e-5 unless the weights make signals explode."""


def agrees(held: LoadedModel) -> bool:
    """Tell whether `WrittenOut` takes this model, and makes of a made-up run what the model's modules make of it."""
    if not is_written_out(held.base):
        return False
    member = _made_up(held)
    try:
        found = _found(held, member, WrittenOut(held.base))
    except (TypeError, ValueError, AttributeError, RuntimeError):
        return False  # the model is not built as our code has it
    own = _found(held, member, None)
    compared = zip(found, own, AGREES, strict=True)
    return all(bool((one - other).norm() <= most * other.norm()) for one, other, most in compared)  # not so with NaN


def _found(held: LoadedModel, member: Member, written: WrittenOut | None) -> tuple[Tensor, Tensor]:
    """Return float[1], the mean loss of the rows, and float[numbers], the gradient of the adapter."""
    pack = Pack(held, [member], written)
    with pack.attached():
        losses = pack.gradients([[range(len(ROWS))]])
    return torch.tensor(losses), pack.stack.gradient(0)


def _made_up(held: LoadedModel) -> Member:
    """Return a run whose adapter bears on every gradient: no B is zero."""
    draw = torch.Generator().manual_seed(0)
    a, b = {}, {}
    for path in sorted(linear_paths(held.base)):
        fan_out, fan_in = held.base.get_submodule(path).weight.shape
        a[path] = torch.randn(RANK, fan_in, generator=draw) / fan_in**0.5
        b[path] = 0.1 * torch.randn(fan_out, RANK, generator=draw)
    encoded = [{"input_ids": [*asked, *answer], "labels": [*[IGNORED] * len(asked), *answer]} for asked, answer in ROWS]
    rows = Rows.of(encoded, held.tokenizer.pad_token_id)
    run = Trajectory(ModelRef(held.folder), (), 0, (), Path())
    course = Course(TuneRecipe(lr=1e-3, rank=RANK, batch_size=len(ROWS)), len(ROWS), 0)
    return Member(run, {}, None, rows, course, course.rates(), Adapter(RANK, 1.0, a, b), None)
