"""What tests of a run share."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import registry

from .driven import Drive


@pytest.fixture
def drive(acme: None, tmp_path: Path) -> Drive:
    """Drive sweeps of the package `acme`, whose adapters remember nothing of other tests."""
    del acme
    registry.refresh()
    return Drive(tmp_path)
