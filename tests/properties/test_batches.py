"""Which prompts are answered together: every prompt once, within the limits, the longest first."""

from __future__ import annotations

from itertools import chain, pairwise

from hypothesis import given
from hypothesis import strategies as st

from adapters.local.batches import batches


@given(
    lengths=st.lists(st.integers(1, 60)),
    answer=st.integers(1, 20),
    rows=st.integers(1, 10),
    tokens=st.none() | st.integers(1, 300),
)
def test_every_prompt_is_in_one_batch_within_the_limits(
    lengths: list[int], answer: int, rows: int, tokens: int | None
) -> None:
    found = list(batches(lengths, answer, rows, tokens))
    flat = list(chain(*found))
    assert sorted(flat) == list(range(len(lengths)))
    assert all(lengths[one] >= lengths[other] for one, other in pairwise(flat)), "the longest come first"
    for batch in found:
        fits = rows if tokens is None else min(rows, max(1, tokens // (lengths[batch[0]] + answer)))
        assert len(batch) == fits or (batch is found[-1] and len(batch) < fits), (
            "a batch is full, unless it is the last"
        )


def test_equal_prompts_keep_their_order() -> None:
    assert list(batches([3, 5, 3, 5, 3], 1, 2)) == [[1, 3], [0, 2], [4]]
