"""How much goes through the model at once: how many runs together, how many rows of each, and what is kept of them.

Only workers import this.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from adapters.local import memory
from adapters.local.packs.member import Member
from adapters.local.packs.pack import Pack
from adapters.local.packs.passes import Passes
from adapters.whole_model import release
from engine.ports import Context, Fit

TOGETHER = {"cpu": 0, "cuda": 32_768}
"""Tokens, padding included, from which on a pass of several runs gains nothing from more, by kind of device. On a CPU several were at
most 1.2 times as quick as one after another (docs/decisions/0021). For a GPU the number is a guess."""

USED = 0.9
"""Share of a GPU's free memory that a pass may take: the rest is for the allocator's gaps."""


class Room:
    """What a worker has room for, as its memory model says, corrected by what passes took.

    Args:
        model: The base model.
        context: The worker.
    """

    def __init__(self, model: Any, context: Context) -> None:
        """Look at the device."""
        self._device = torch.device(context.device)
        self._together = TOGETHER.get(self._device.type, 0)
        self._weights = sum(weight.numel() for weight in model.parameters())
        self._bytes_per_token = 0.0  # of a pass, as measured; 0 before the first, when the plan's count
        release()
        self._free = torch.cuda.mem_get_info(self._device)[0] * USED if self._device.type == "cuda" else None

    def has_room(self, members: Sequence[Member]) -> bool:
        """Tell whether these runs may go through the model together: as many as fit, which can all do what one of them must."""
        passes = self.passes(members)
        agree = not passes.is_checkpointed or all(one.settings.can_checkpoint for one in members)
        tokens = tokens_at_once(members, passes)
        each = self._bytes_per_token or max(planned_bytes(member) for member in members)
        return agree and (self._free is None or tokens * each <= self._free) and tokens <= self._together

    def passes(self, members: Sequence[Member]) -> Passes:
        """Return how the batches of runs go through the model: what the plan says, or the rule where it says nothing."""
        ways = [member.passes or self._planned(member) for member in members]
        return Passes(min(way.rows for way in ways), any(way.is_checkpointed for way in ways))

    def _planned(self, member: Member) -> Passes:
        fit, settings = member.run.fit or Fit(), member.settings
        rule = memory.rows_at_once(settings, self._weights, member.batch_shape[1], self._device.type)
        return Passes.planned(fit, settings, rule)

    def shrink(self, pack: Pack) -> bool:
        """Make less go through at once, after memory did not suffice; False when nothing is left to save."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        if len(pack.members) > 1:
            self._together = tokens_at_once(pack.members, pack.passes) // 2
            return True
        (member,) = pack.members
        member.passes = pack.passes.smaller(can_checkpoint=member.settings.can_checkpoint)
        return member.passes is not None

    def measure(self) -> None:
        """Begin to watch a GPU's memory, before the step that is measured."""
        if self._free is not None and not self._bytes_per_token:
            torch.cuda.reset_peak_memory_stats(self._device)

    def measured(self, pack: Pack) -> None:
        """Learn from the peak of a GPU's memory in a step what a token takes."""
        if self._free is None or self._bytes_per_token:
            return
        taken = torch.cuda.max_memory_allocated(self._device) - torch.cuda.memory_allocated(self._device)
        self._bytes_per_token = taken / tokens_at_once(pack.members, pack.passes)


def tokens_at_once(members: Sequence[Member], passes: Passes) -> int:
    """Return the tokens, padding included, that go through the model together."""
    rows = max(member.batch_shape[0] for member in members)
    length = max(member.batch_shape[1] for member in members)
    return len(members) * min(rows, passes.rows) * length


def planned_bytes(member: Member) -> float:
    """Return what a token of a run takes in a pass, as planned; 0 where that is not known."""
    fit = member.run.fit
    if fit is None or not fit.rows:
        return 0.0
    passing = sum(size for what, size in fit.parts if what in {"activations", "logits"})
    return passing / (fit.rows * member.batch_shape[1])
