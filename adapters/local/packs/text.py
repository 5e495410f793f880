"""A batch of training rows with its tokens one after another. Only hosts import this."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adapters.local.chat import IGNORED
from adapters.local.llama import Turning
from adapters.local.packs.member import Member

Draw = Callable[[int], Tensor]
"""Takes an adapted module's fan-in, and draws its dropout: float[rows * length, fan_in] of 0 and 1 / (1 - p)."""


@dataclass(frozen=True, slots=True)
class Text:
    """A batch, its tokens one after another.

    Attributes:
        ids: long[tokens].
        answers: long[answers]: the positions that the loss looks at, among the tokens.
        targets: long[answers]: what they should predict.
        rows: Number of rows.
        length: Tokens of the longest row.
        spread: long[rows * length]: the token at each place of the padded rows; any token where there is none.
        places: long[tokens]: the place of each token in the padded rows.
        turns: complex[tokens, pairs]: what its queries and keys are turned by.
        draw: Draws dropout; None without.
    """

    ids: Tensor
    answers: Tensor
    targets: Tensor
    rows: int
    length: int
    spread: Tensor
    places: Tensor
    turns: Tensor
    draw: Draw | None

    @classmethod
    def of(cls, member: Member, batch: Sequence[int], turning: Turning) -> Text:
        """Lay out a batch.

        Args:
            member: The run.
            batch: Numbers of its rows, at least one.
            turning: The model's.
        """
        rows, which = member.rows, torch.tensor(batch)
        lengths = torch.tensor([rows.lengths[row] for row in batch])
        length = int(lengths.max())
        real = torch.arange(length) < lengths[:, None]
        places = real.flatten().nonzero().squeeze(1)
        spread = torch.zeros(real.numel(), dtype=torch.long)
        spread[places] = torch.arange(len(places))
        targets = rows.targets[which, :length][real]
        answers = (targets != IGNORED).nonzero().squeeze(1)
        return cls(
            rows.ids[which, :length][real],
            answers,
            targets[answers],
            len(batch),
            length,
            spread,
            places,
            turning.at(places % length),
            _draw(member, len(batch), length),
        )


def _draw(member: Member, rows: int, length: int) -> Draw | None:
    """Return what draws the masks that the run would draw with TRL, whose rows are padded to the longest."""
    dice, dropout = member.dice, member.settings.dropout
    if dice is None:
        return None
    return lambda fan_in: dice.mask((rows, length, fan_in), dropout).view(-1, fan_in)
