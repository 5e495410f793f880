"""What is shown of a run while it goes on."""

from __future__ import annotations

import pytest

from engine.cli.live import LiveProgress, under_way
from engine.domain.stage import StageKind
from engine.run.drive.progress import Snapshot


@pytest.mark.parametrize(
    ("draining", "line"),
    [
        (False, "0/4 cells · 1 min 30 s · tune 34% · 5 min 0 s left"),
        (True, "0/4 cells · 1 min 30 s · tune 34% · finishing 0 running stages"),
    ],
)
def test_the_line_says_how_far_the_longest_stage_is(
    capsys: pytest.CaptureFixture[str], line: str, *, draining: bool
) -> None:
    with LiveProgress() as live:
        live.update(Snapshot(4, 0, 0, 0, {}, 90.0, 300.0, 0.0, None, draining, (StageKind.TUNE, 0.345)))
    assert capsys.readouterr().err.strip() == line


def test_a_stage_that_runs_is_never_all_done() -> None:
    assert under_way("generate", 1.0) == "generate 99%"
