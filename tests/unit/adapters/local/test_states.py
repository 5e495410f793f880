"""The states of a training run on disk: which is found, by whom, and what it says of the work behind it."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.local.states import SavedState, SavedStates

RUN = {"seed": 0, "settings": {"lr": 0.002, "targets": ["all-linear"]}}


@pytest.fixture
def states(tmp_path: Path) -> SavedStates:
    return SavedStates(tmp_path / "state", RUN)


def write(states: SavedStates, step: int) -> Path:
    """Do as the trainer does."""
    folder = states.workshop / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "weights").write_text(f"after {step}")
    return folder


def keep(states: SavedStates, step: int, *passed: str, counted: int = 0, is_checkpoint: bool = True) -> SavedState:
    return states.keep(SavedState(write(states, step), step, passed, counted, 1.5, is_checkpoint))


def test_the_latest_state_within_the_limit_is_found_by_the_same_run_alone(states: SavedStates, tmp_path: Path) -> None:
    assert states.latest(9, frozenset()) is None
    kept = keep(states, 6, "first")
    again = SavedStates(tmp_path / "state", RUN)
    assert (
        again.latest(6, frozenset())
        == kept.accounted
        == SavedState(tmp_path / "state" / "at-6", 6, ("first",), 6, 0.0, is_checkpoint=True)
    )
    assert again.latest(5, frozenset()) is None
    assert SavedStates(tmp_path / "state", RUN | {"seed": 1}).latest(6, frozenset()) is None


def test_what_led_to_a_state_is_counted_by_the_next_cut_unless_one_has_done_so(states: SavedStates) -> None:
    on_the_way = keep(states, 4, "first", counted=2, is_checkpoint=False)
    assert states.latest(9, frozenset({"second"})) == on_the_way
    lost = keep(states, 6, "first", "second", counted=2)
    again = states.latest(9, frozenset({"second"}))
    assert again is not None
    assert (again.passed, again.counted, again.seconds) == (("first",), 2, 1.5), "nobody recorded the second"
    assert states.latest(9, frozenset({"third"})) == lost.accounted


def test_one_state_is_kept_and_its_owner_alone_can_read_it(states: SavedStates, tmp_path: Path) -> None:
    for step in (2, 4, 4):
        keep(states, step)
    (left,) = (tmp_path / "state").glob("at-*")
    assert (left / "weights").read_text() == "after 4"
    assert {path.stat().st_mode & 0o777 for path in left.iterdir()} == {0o600}
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_a_second_checkpoint_at_the_same_step_is_noted_and_one_that_is_wanted_again_is_still_to_come(
    states: SavedStates,
) -> None:
    marked = states.mark(keep(states, 2, "first").accounted, "second")
    assert marked.passed == ("first", "second")
    assert states.latest(2, frozenset()) == marked
    again = states.latest(2, frozenset({"second"}))
    assert again is not None
    assert again.passed == ("first",)


def test_what_an_interruption_left_is_cleared_away(states: SavedStates, tmp_path: Path) -> None:
    keep(states, 2)
    write(states, 4)  # and then the lights went out
    torn = tmp_path / "state" / "at-5"
    torn.mkdir()
    (torn / "run.json").write_text('{"identity"')
    after = SavedStates(tmp_path / "state", RUN)
    assert not after.workshop.exists()
    found = after.latest(9, frozenset())
    assert found is not None
    assert found.step == 2
