"""Where the user's cache is: in the home, or beside the temporary files where there is none."""

from __future__ import annotations

import os
import pwd
import tempfile
from pathlib import Path

import pytest

from adapters.local import rates
from adapters.local.settings import DecodeSettings
from adapters.standin.models import WEIGHTS
from engine.domain.stage import ModelRef
from engine.ports import Machine, Workload
from engine.ports.cache import cache_folder


@pytest.fixture
def homeless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user of whom the system knows no home; the folder for temporary files."""

    def unknown(_: int) -> object:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_it_is_what_the_environment_says_else_beside_the_temporary_files(
    homeless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = homeless / f"dosimeter-{os.getuid()}"
    assert cache_folder() == own
    assert own.stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("XDG_CACHE_HOME", str(homeless / "told"))
    assert cache_folder() == homeless / "told" / "dosimeter"
    (homeless / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(homeless / "file"))
    assert cache_folder() == own, "nothing can be made there"


def test_a_forecast_needs_no_cache(homeless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else has taken the place beside the temporary files."""
    (homeless / "other").mkdir()
    (homeless / f"dosimeter-{os.getuid()}").symlink_to(homeless / "other")
    monkeypatch.delenv(rates.OFF, raising=False)
    work = Workload(400_000, 60, 2, base=ModelRef(str(WEIGHTS)), machine=Machine(threads=5))
    found = rates.rates(work, None, DecodeSettings())
    assert not found.measured
    assert "belongs to another user" in found.basis
