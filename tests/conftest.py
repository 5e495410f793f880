"""What tests of several rooms share."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine import registry

collect_ignore = ["third_party/dosimeter_toy_raising.py"]  # importing it fails, as it is to
Install = Callable[[Path], None]

os.environ.setdefault("DOSIMETER_MEASURE", "off")  # plans of tests do not depend on the machine, nor wait for it
THIRD_PARTY = Path(__file__).parent / "third_party"
ACME = Path(__file__).parent / "acme"


@pytest.fixture(scope="module")
def install() -> Iterator[Install]:
    """Install the packages of a folder, as `pip` would; they are gone after the module."""
    folders: list[str] = []

    def forget() -> None:
        importlib.invalidate_caches()
        registry.refresh()
        sys.modules.pop("dosimeter_toy", None)

    def put(folder: Path) -> None:
        sys.path[:] = [str(folder), *(other for other in sys.path if other not in folders)]
        folders.append(str(folder))
        forget()

    yield put
    sys.path[:] = [other for other in sys.path if other not in folders]
    forget()


@pytest.fixture(scope="module")
def toy_adapters(install: Install) -> None:
    """Install the third-party package of `tests/third_party`."""
    install(THIRD_PARTY)


@pytest.fixture(scope="module")
def acme(install: Install) -> None:
    """Install the package of `tests/acme`: adapters that need no library, with which whole chains run at once."""
    install(ACME)


@pytest.fixture
def edited_toy(install: Install, tmp_path: Path) -> Iterator[Callable[[str, str], None]]:
    """Add a line to the third-party package's only file, below another one, and install it; undone after the test."""

    def add(line: str, below: str) -> None:
        folder = shutil.copytree(THIRD_PARTY, tmp_path / "edited")
        file = folder / "dosimeter_toy.py"
        text = file.read_text(encoding="utf-8")
        assert text.count(below) == 1
        file.write_text(text.replace(below, f"{below}\n{line}"), encoding="utf-8")
        install(folder)

    yield add
    install(THIRD_PARTY)
