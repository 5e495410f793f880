"""What is stored of a failure: everything, but for what somebody else's code says over rows and responses."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.domain.results import Failure
from engine.domain.stage import StageKind
from engine.run.executors.gathering import Gathering
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
    """An error of somebody else's code: this module's, or the standard library's."""
    try:
        return KeyError({}[ANSWER])
    except KeyError as error:
        return error


def quoting_below() -> Exception:
    try:
        return json.loads(ANSWER)
    except ValueError as error:
        return error


@pytest.mark.parametrize("kind", [StageKind.JUDGE, StageKind.SCREEN, StageKind.ROWS])
@pytest.mark.parametrize("error", [quoting(), quoting_below()], ids=type)
def test_what_may_quote_a_text_is_sealed(kind: StageKind, error: Exception, tmp_path: Path) -> None:
    found = failed(kind, error, RunDirectory(tmp_path))
    place = tmp_path / "failures" / f"{kind.value}-1.txt"
    assert found.error_type == type(error).__name__
    assert found.message == f"its words may quote a text, and are in {place}"
    assert ANSWER not in found.traceback
    assert f'File "{__file__}"' in found.traceback
    assert str(error) in place.read_text()
    assert stat.S_IMODE(place.stat().st_mode) == 0o600


def test_what_trains_and_what_we_say_ourselves_is_not(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert failed(StageKind.TUNE, quoting(), run).message == repr(ANSWER)
    with pytest.raises(ValueError, match="handed back") as caught:
        Gathering(
            SimpleNamespace(slot="", stages=[SimpleNamespace(kind=StageKind.JUDGE, key="x")], account=None), run
        ).put("y", ValueError())  # type: ignore[arg-type]
    assert failed(StageKind.JUDGE, caught.value, run).message.startswith("its adapter handed back")
    assert not run.failures.exists()
