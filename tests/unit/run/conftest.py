"""What tests of a run share."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import registry

from .driven import Drive


@pytest.fixture
def drive(acme: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Drive:
    """Drive sweeps of the package `acme`, whose adapters remember nothing of other tests.

    Nothing is published, which takes longer than such a sweep: what tests look at here is the store's.
    """
    del acme
    monkeypatch.setattr("engine.run.drive.driver.refresh", lambda *_: None)
    monkeypatch.setattr("engine.run.drive.publisher.publish", lambda _: 0.0)
    registry.refresh()
    return Drive(tmp_path)
