"""What is stored of a failure: everything, but for what somebody else's code says over rows and responses."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.cost import Usage
from engine.domain.results import Failure
from engine.domain.stage import StageKind
from engine.ports import StoppedError
from engine.run.executors.gathering import Gathering
from engine.run.stages.batch import Made
from engine.store.layout import RunDirectory

ANSWER = "what the model answered"


def failed(kind: StageKind, error: Exception, run: RunDirectory) -> Failure:
    stage = SimpleNamespace(key=f"{kind.value}-1", kind=kind)
    batch: Any = SimpleNamespace(slot="worker", stages=[stage], account=None)
    gathering = Gathering(batch, run)
    gathering.put(stage.key, error)
    (attempt,) = gathering.flush()
    assert attempt.failure is not None
    return attempt.failure


def quoting() -> Exception:
    """An error of somebody else's adapter, which quotes a response."""
    with pytest.raises(KeyError) as caught:
        registry.adapter(Kind.JUDGE, "toy/quoting").judge(ANSWER)  # type: ignore[call-arg]
    return caught.value


def chained() -> Exception:
    """An error of ours that came from it."""
    with pytest.raises(ValueError, match="it cannot be judged") as caught:
        raise ValueError("it cannot be judged") from quoting()
    return caught.value


@pytest.mark.usefixtures("toy_adapters")
@pytest.mark.parametrize("kind", [StageKind.JUDGE, StageKind.ROWS, StageKind.GENERATE, StageKind.TUNE])
@pytest.mark.parametrize("make", [quoting, chained])
def test_what_the_code_of_others_says_over_texts_is_sealed(
    kind: StageKind, make: Callable[[], Exception], tmp_path: Path
) -> None:
    found, place = failed(kind, make(), RunDirectory(tmp_path)), tmp_path / "failures" / f"{kind.value}-1.txt"
    assert found.message == f"its words may quote a text, and are in {place}"
    assert ANSWER not in found.traceback
    assert ANSWER in place.read_text()
    assert stat.S_IMODE(place.stat().st_mode) == 0o600


@pytest.mark.usefixtures("toy_adapters")
def test_where_no_text_is_seen_and_where_the_code_is_ours_nothing_is(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert failed(StageKind.WEIGHTS, quoting(), run).message == repr(ANSWER)
    with pytest.raises(FileNotFoundError) as caught:
        (tmp_path / "gone.jsonl").stat()
    assert "gone.jsonl" in failed(StageKind.ROWS, caught.value, run).message
    assert not run.failures.exists()


def test_what_cannot_be_stored_is_not_quoted(tmp_path: Path) -> None:
    """Arrow's error has the value that did not fit."""
    run = RunDirectory(tmp_path)
    stage = SimpleNamespace(key="rows-1", kind=StageKind.ROWS)
    batch: Any = SimpleNamespace(slot="worker", stages=[stage], account=None)
    gathering = Gathering(batch, run)
    row = {"stage_key": stage.key, "position": ANSWER, "source": "s", "row_id": "1", "turns": "[]", "rejected": ""}
    gathering.put(stage.key, Made({"rows": [row]}, Usage(), None))
    (attempt,) = gathering.flush()
    assert attempt.failure is not None
    assert ANSWER not in attempt.failure.message + attempt.failure.traceback
    assert ANSWER in (run.failures / "rows-1.txt").read_text()


def test_what_was_stopped_has_not_failed_and_its_time_is_charged(tmp_path: Path) -> None:
    stages = [SimpleNamespace(key=f"tune-{number}", kind=StageKind.TUNE) for number in (1, 2)]
    batch: Any = SimpleNamespace(slot="worker", stages=stages, account=None)
    gathering = Gathering(batch, RunDirectory(tmp_path))
    time.sleep(0.02)
    gathering.fail_rest(StoppedError("the run was to stop"))
    attempts = gathering.flush()
    assert [(attempt.key, attempt.result, attempt.failure) for attempt in attempts] == [
        ("tune-1", None, None),
        ("tune-2", None, None),
    ]
    assert sum(attempt.usage.device_seconds for attempt in attempts) >= 0.02
