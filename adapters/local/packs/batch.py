"""One batch of each member of a pack, laid out as equal blocks of rows. Only workers import this."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adapters.local.chat import IGNORED
from adapters.local.packs.member import Member


@dataclass(frozen=True, slots=True)
class Batch:
    """What goes through the model at once.

    Attributes:
        ids: long[members * rows, length]: each member's rows, then rows of padding, in its block.
        shapes: Rows of each member, and tokens of the longest of them; 0 without rows.
        places: long[answers]: the positions that the loss looks at, in the flat order of `ids`.
        targets: long[answers]: what they should predict.
        owners: long[answers]: the member that each belongs to.
    """

    ids: Tensor
    shapes: Sequence[tuple[int, int]]
    places: Tensor
    targets: Tensor
    owners: Tensor

    @classmethod
    def of(cls, members: Sequence[Member], batches: Sequence[Sequence[int]], padding: int) -> Batch:
        """Lay out a batch.

        Args:
            members: The members.
            batches: Row numbers, by member; none for a member without a batch.
            padding: The token to pad with.
        """
        pairs = list(zip(members, batches, strict=True))
        longest = (max((member.rows.lengths[row] for row in batch), default=0) for member, batch in pairs)
        shapes = list(zip(map(len, batches), longest, strict=True))
        rows, length = (max(sizes) for sizes in zip(*shapes, strict=True))
        ids = torch.full((len(members), rows, length), padding)
        targets = torch.full_like(ids, IGNORED)
        for block, ((member, batch), (_, width)) in enumerate(zip(pairs, shapes, strict=True)):
            ids[block, : len(batch), :width] = member.rows.ids[list(batch), :width]
            targets[block, : len(batch), :width] = member.rows.targets[list(batch), :width]
        targets = targets.view(-1)
        places = (targets != IGNORED).nonzero().squeeze(1)
        return cls(ids.view(-1, length), shapes, places, targets[places], places // (rows * length))

    def masks(self, members: Sequence[Member]) -> Callable[[int], Tensor] | None:
        """Return what draws the dropout of each layer in turn, or None when no member has any.

        Each member's masks have the shape that they have when it trains alone, without the padding for the others.
        """
        if all(member.dropout is None for member in members):
            return None

        def draw(fan_in: int) -> Tensor:
            device = next(member.dropout.device for member in members if member.dropout is not None)
            mask = torch.ones(*self.ids.shape, fan_in, device=device)
            blocks = mask.view(len(members), -1, *mask.shape[1:])
            for own, member, (rows, length) in zip(blocks, members, self.shapes, strict=True):
                if member.dropout is not None and rows:
                    own[:rows, :length] = member.dropout.mask((rows, length, fan_in), member.settings.dropout)
            return mask

        return draw
