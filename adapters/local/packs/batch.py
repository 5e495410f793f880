"""One batch of each member of a pack, laid out as equal blocks of rows. Only workers import this."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from adapters.local.chat import IGNORED
from adapters.local.packs.member import LANES, Member, padded


@dataclass(frozen=True, slots=True)
class Batch:
    """What goes through the model at once.

    Attributes:
        ids: long[members * rows, length]: each member's rows, then rows of padding, in its block.
        spans: (rows, tokens) that each member fills of its block, tokens rounded up to whole lanes.
        longest: Tokens of each member's longest row; 0 without rows.
        rows: Rows of a block, >= 1.
        length: Tokens of a row, padding included.
        places: long[answers]: the positions that the loss looks at, in the flat order of `ids`.
        targets: long[answers]: what they should predict.
        owners: long[answers]: the member that each belongs to.
        fillers: How many of the last answers are there only to make their number whole lanes; they count for nothing.
    """

    ids: Tensor
    spans: Sequence[tuple[int, int]]
    longest: Sequence[int]
    rows: int
    length: int
    places: Tensor
    targets: Tensor
    owners: Tensor
    fillers: int

    @classmethod
    def of(cls, members: Sequence[Member], batches: Sequence[Sequence[int]], padding: int, floor: int) -> Batch:
        """Lay out a batch.

        Args:
            members: The members.
            batches: Row numbers, by member; none for a member without a batch.
            padding: The token to pad with.
            floor: Tokens that rows are padded to at least.
        """
        pairs = list(zip(members, batches, strict=True))
        longest = [max((member.rows.lengths[row] for row in batch), default=0) for member, batch in pairs]
        spans = [(len(batch), max(padded(long), floor)) for batch, long in zip(batches, longest, strict=True)]
        rows, length = max(map(len, batches)), max(tokens for _, tokens in spans)
        ids = torch.full((len(members), rows, length), padding)
        targets = torch.full_like(ids, IGNORED)
        for block, (member, batch) in enumerate(pairs):
            width = padded(longest[block])
            ids[block, : len(batch), :width] = member.rows.ids[list(batch), :width]
            targets[block, : len(batch), :width] = member.rows.targets[list(batch), :width]
        targets = targets.view(-1)
        places = (targets != IGNORED).nonzero().squeeze(1)
        fillers = -len(places) % LANES  # a lone answer goes through the same kernel as many do
        return cls(
            ids.view(-1, length),
            spans,
            longest,
            rows,
            length,
            pad(places, (0, fillers)),
            pad(targets[places], (0, fillers)),
            pad(places // (rows * length), (0, fillers)),
            fillers,
        )

    def masks(self, members: Sequence[Member]) -> Callable[[int], Tensor] | None:
        """Return what draws the dropout of each layer in turn, or None when no member has any.

        Each member's masks have the shape that they have when it trains alone, without the lanes' padding.
        """
        if all(member.dropout is None for member in members):
            return None

        def draw(fan_in: int) -> Tensor:
            device = next(member.dropout.device for member in members if member.dropout is not None)
            mask = torch.ones(len(members), self.rows, self.length, fan_in, device=device)
            for own, member, (rows, _), long in zip(mask, members, self.spans, self.longest, strict=True):
                if member.dropout is not None and rows:
                    own[:rows, :long] = member.dropout.mask((rows, long, fan_in), member.settings.dropout)
            return mask

        return draw
