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
        self._bytes_per_token = 0.0  # of a pass, as measured; 0 before the first
        self._free = torch.cuda.mem_get_info(self._device)[0] * USED if self._device.type == "cuda" else None

    def has_room(self, members: Sequence[Member]) -> bool:
        """Tell whether these runs may go through the model together: as many as fit, which can all do what one of them must."""
        rows = max(member.batch_shape[0] for member in members)
        tokens = len(members) * rows * max(member.batch_shape[1] for member in members)
        fits = self._free is None or tokens * self._bytes_per_token <= self._free
        agree = not self.passes(members).is_checkpointed or all(one.settings.can_checkpoint for one in members)
        return agree and fits and tokens <= self._together

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
            shapes = [member.batch_shape for member in pack.members]
            self._together = len(shapes) * max(rows for rows, _ in shapes) * max(length for _, length in shapes) // 2
            return True
        (member,) = pack.members
        member.passes = pack.passes.smaller(can_checkpoint=member.settings.can_checkpoint)
        return member.passes is not None

    def measured(self, pack: Pack) -> None:
        """Learn from the peak of a GPU's memory what a token takes."""
        if self._free is None or self._bytes_per_token:
            return
        rows, length = (max(sizes) for sizes in zip(*(member.batch_shape for member in pack.members), strict=True))
        tokens = len(pack.members) * min(rows, pack.passes.rows) * length
        taken = torch.cuda.max_memory_allocated(self._device) - torch.cuda.memory_allocated(self._device)
        self._bytes_per_token = taken / tokens
