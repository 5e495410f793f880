"""A batch of training rows with its tokens one after another, each common beginning once. Only hosts import this."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adapters.local.beginnings import Whole, in_equal_rows, once
from adapters.local.chat import IGNORED
from adapters.local.llama import Turning
from adapters.local.packs.member import Member

Draw = Callable[[int], Tensor]
"""Takes an adapted module's fan-in, and draws its dropout: float[rows * length, fan_in] of 0 and 1 / (1 - p)."""


@dataclass(frozen=True, slots=True)
class Asking:
    """Tokens whose view of their rows is wanted, laid out as rows of equal width.

    Attributes:
        tokens: long[asking]: which ones.
        padded: long[asking]: the place of each in the padded rows.
        places: long[asking]: its place in the rows here.
        spread: long[rows * width]: the token at each place here; any token where there is none.
        hidden: float[rows, width, length]: minus infinity for what comes after each, 0 for the rest.
    """

    tokens: Tensor
    padded: Tensor
    places: Tensor
    spread: Tensor
    hidden: Tensor

    @classmethod
    def of(cls, tokens: Whole, padded: Whole, rows: int, length: int) -> Asking:
        """Lay out tokens whose places in `rows` padded rows of `length` tokens are given."""
        row, column = np.divmod(padded, length)
        places, width = in_equal_rows(row, rows)
        spread, seen = np.zeros((2, rows * width), dtype=np.int64)
        spread[places], seen[places] = tokens, column
        later = (np.arange(length) > seen[:, None]).reshape(rows, width, length)
        hidden = torch.zeros(later.shape).masked_fill_(torch.from_numpy(later), -math.inf)
        asking, there, here, back = (torch.from_numpy(numbers) for numbers in (tokens, padded, places, spread))
        return cls(asking, there, here, back, hidden)


@dataclass(frozen=True, slots=True)
class Text:
    """A batch, its tokens one after another.

    Tokens after the last one that the loss looks at are left out. So are those of a row's beginning that another row has too,
    where no dropout tells them apart: what a causal model computes there is the same.

    Attributes:
        ids: long[tokens].
        targets: long[answers]: what the tokens that the loss looks at should predict.
        rows: Number of rows.
        length: Tokens of the longest row.
        spread: long[rows * length]: the token at each place of the padded rows; any token where there is none.
        turns: complex[tokens, pairs]: what its queries and keys are turned by.
        every: All tokens.
        answers: Those that the loss looks at.
        draw: Draws dropout; None without.
    """

    ids: Tensor
    targets: Tensor
    rows: int
    length: int
    spread: Tensor
    turns: Tensor
    every: Asking
    answers: Asking
    draw: Draw | None

    @classmethod
    def of(cls, member: Member, batch: Sequence[int], turning: Turning) -> Text:
        """Lay out a batch.

        Args:
            member: The run.
            batch: Numbers of its rows, at least one.
            turning: The model's.
        """
        rows, which = member.rows, list(batch)
        length = max(rows.lengths[row] for row in batch)
        ids, targets, apart = (whole.numpy()[which, :length] for whole in (rows.ids, rows.targets, rows.apart))
        real = np.arange(length) < np.array(rows.reach)[which, None]
        found = once(apart if member.dice is None else np.arange(ids.size).reshape(ids.shape), real)
        spread = np.zeros(ids.size, dtype=np.int64)
        spread[found.filled] = found.tokens
        targets = targets.ravel()[found.places]
        answers = np.flatnonzero(targets != IGNORED)
        return cls(
            torch.from_numpy(ids.ravel()[found.places]),
            torch.from_numpy(targets[answers]),
            len(ids),
            length,
            torch.from_numpy(spread),
            turning.at(torch.from_numpy(found.places % length)),
            Asking.of(np.arange(len(targets)), found.places, len(ids), length),
            Asking.of(answers, found.places[answers], len(ids), length),
            _draw(member, len(ids), length),
        )


def _draw(member: Member, rows: int, length: int) -> Draw | None:
    """Return what draws the masks that the run would draw with TRL, whose rows are padded to the longest."""
    dice, dropout = member.dice, member.settings.dropout
    if dice is None:
        return None
    return lambda fan_in: dice.mask((rows, length, fan_in), dropout).view(-1, fan_in)
