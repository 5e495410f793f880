"""Every token is laid out once for each distinct beginning, and every place finds the token that it would have alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from adapters.local.beginnings import in_equal_rows, once

Rows = list[list[int]]
ROWS: st.SearchStrategy[Rows] = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=7), min_size=1, max_size=8)


@given(ROWS, st.data())
def test_each_beginning_is_laid_out_once(rows: Rows, data: st.DataObject) -> None:
    count, length = len(rows), max(map(len, rows))
    padded = np.zeros((count, length), dtype=np.int64)
    for own, row in zip(padded, rows, strict=True):
        own[: len(row)] = row
    real = np.array([[place < data.draw(st.integers(0, len(row))) for place in range(length)] for row in rows])
    found = once(padded, real)
    assert found.filled.tolist() == np.flatnonzero(real).tolist()
    assert set(found.places.tolist()) <= set(found.filled.tolist())
    for place, token in zip(found.filled.tolist(), found.tokens.tolist(), strict=True):
        (row, column), (owner, its_column) = divmod(place, length), divmod(int(found.places[token]), length)
        assert its_column == column
        assert rows[owner][: column + 1] == rows[row][: column + 1]
    contiguous = real.cumprod(1).astype(bool)
    distinct = {tuple(rows[row][: column + 1]) for row, column in zip(*contiguous.nonzero(), strict=True)}
    assert sum(1 for place in found.places if contiguous.flat[place]) == len(distinct)


def test_rows_that_begin_alike_take_turns() -> None:
    found = once(np.zeros((4, 8), dtype=np.int64), np.ones((4, 8), dtype=bool))
    assert np.bincount(found.places // 8).tolist() == [2, 2, 2, 2]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(1, 4))
def test_tokens_lie_in_equal_rows_in_their_rows(rows: list[int], multiple: int) -> None:
    places, width = in_equal_rows(np.array(rows), 6, multiple)
    assert width % multiple == 0
    assert (places // width).tolist() == rows
    assert len(set(places.tolist())) == len(rows)
    assert width < max(map(rows.count, rows)) + multiple
