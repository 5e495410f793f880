from __future__ import annotations

from pathlib import Path

import pytest

from adapters.local.checkpoints import Checkpoints, Saved

RUN = {"seed": 0, "settings": {"lr": 0.002, "targets": ["all-linear"]}}


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "state", RUN)


def write(checkpoints: Checkpoints, step: int) -> None:
    """Do as the trainer does."""
    folder = checkpoints.workshop / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "weights").write_text(f"after {step}")


def test_the_latest_state_within_the_limit_is_found_by_the_same_run_alone(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    assert checkpoints.latest(9, ()) is None
    write(checkpoints, 6)
    kept = checkpoints.keep(6, ("first",))
    again = Checkpoints(tmp_path / "state", RUN)
    assert again.latest(6, ()) == kept == Saved(tmp_path / "state" / "at-6", 6, ("first",))
    assert again.latest(5, ()) is None
    assert Checkpoints(tmp_path / "state", RUN | {"seed": 1}).latest(6, ()) is None


def test_one_state_is_kept_and_its_owner_alone_can_read_it(checkpoints: Checkpoints, tmp_path: Path) -> None:
    for step in (2, 4, 4):
        write(checkpoints, step)
        checkpoints.keep(step, ())
    (left,) = (tmp_path / "state").glob("at-*")
    assert (left / "weights").read_text() == "after 4"
    assert {path.stat().st_mode & 0o777 for path in left.iterdir()} == {0o600}
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_a_second_cut_at_the_same_step_is_noted_and_one_that_is_wanted_again_is_still_to_come(
    checkpoints: Checkpoints,
) -> None:
    write(checkpoints, 2)
    marked = checkpoints.mark(checkpoints.keep(2, ("first",)), "second")
    assert marked.passed == ("first", "second")
    assert checkpoints.latest(2, ()) == marked
    again = checkpoints.latest(2, ("second",))
    assert again is not None
    assert again.passed == ("first",)


def test_what_an_interruption_left_is_cleared_away(checkpoints: Checkpoints, tmp_path: Path) -> None:
    write(checkpoints, 2)
    checkpoints.keep(2, ())
    write(checkpoints, 4)  # and then the lights went out
    torn = tmp_path / "state" / "at-5"
    torn.mkdir()
    (torn / "run.json").write_text('{"identity"')
    after = Checkpoints(tmp_path / "state", RUN)
    assert not after.workshop.exists()
    found = after.latest(9, ())
    assert found is not None
    assert found.step == 2
