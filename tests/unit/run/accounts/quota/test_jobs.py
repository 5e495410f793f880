"""Slots for fine-tuning jobs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.run.accounts.quota.jobs import JobSlots
from engine.run.accounts.quota.rate import DAY, NEVER


@given(
    st.one_of(st.none(), st.integers(1, 3)),
    st.one_of(st.none(), st.integers(1, 5)),
    st.lists(st.floats(0, DAY / 3), max_size=40),
)
def test_never_more_than_allowed(concurrent: int | None, daily: int | None, pauses: list[float]) -> None:
    slots, now, starts = JobSlots(concurrent, daily), 0.0, list[float]()
    for pause in pauses:
        if (wait := slots.wait(now)) == NEVER:
            slots.give()
            wait = slots.wait(now)
        now += wait
        assert slots.wait(now) < 1e-6
        slots.take(now)
        starts.append(now)
        assert concurrent is None or slots.running <= concurrent
        assert daily is None or sum(at > now - DAY + 1e-6 for at in starts) <= daily
        now += pause


def test_jobs_of_an_earlier_run_count() -> None:
    slots = JobSlots(2, 3)
    slots.take(-100.0)
    slots.take(-DAY + 10)
    assert slots.wait(0.0) == NEVER
    slots.give()
    assert slots.wait(0.0) == 0
    slots.take(0.0)
    slots.give()
    assert slots.wait(1.0) == 9.0


def test_the_provider_may_say_that_the_day_is_over() -> None:
    slots = JobSlots(None, None)
    slots.park(100.0)
    assert slots.wait(40.0) == 60
    assert slots.wait(100.0) == 0
