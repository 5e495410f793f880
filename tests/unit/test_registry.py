"""What is installed twice, or is not whole, is refused before anything else is asked of it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.errors import PlanError, UnknownAdapterError


def test_two_packages_with_one_name_or_one_default_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    points = tuple(EntryPoint("x/y", f"{package}:NAME", "") for package in ("one", "other"))
    monkeypatch.setattr(registry, "_installed", lambda _: {"x/y": points, "tune.use": points})
    with pytest.raises(UnknownAdapterError, match="several packages offer a judge called `x/y`: one:NAME, other:NAME"):
        registry.revision(Kind.JUDGE, "x/y")
    with pytest.raises(PlanError, match="name a default for `tune"):
        registry.INSTALLED.default("tune.use")


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file of a package of somebody else's, whose entry points name a judge after each of its classes."""
    file = tmp_path / "somebody.py"
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.refresh()
    monkeypatch.setattr(
        registry, "_installed", lambda _: {name: (EntryPoint(name, f"somebody:{name}", ""),) for name in JUDGES}
    )
    yield file
    monkeypatch.undo()
    registry.refresh()


WHOLE = """
from engine import ports

class whole:
    revision, measures = 1, "harm"
    needs = objection = forecast = judge = lambda *_: None
"""
JUDGES = {
    "halved": ("    objection = property()\n", "is not whole: it has no `objection`"),
    "unhashable": (
        "    class Settings(ports.Settings):\n        words: list[str] = []\n",
        "is not whole: the setting `words` cannot be hashed: use a tuple",
    ),
    "inside": (
        "    class Settings(ports.Settings):\n        words: tuple[list[str], ...] | None = None\n",
        "is not whole: the setting `words` cannot be hashed: use a tuple",
    ),
    "unrevised": ("    revision = 'a'\n", "is not whole: its `revision` is no whole number"),
    "unnamed": (
        "    class Settings(ports.Settings):\n        argument = 'word'\n",
        "is not whole: its `argument` names no setting: `word`",
    ),
    "foreign": ("    Settings = dict\n", "is not whole: its `Settings` are not derived from engine.ports.Settings"),
    "wanting": ("    def __init__(self, word): ...\n", "cannot be imported: TypeError: "),
}


@pytest.mark.parametrize("name", JUDGES)
def test_an_adapter_that_is_not_whole_is_refused_with_what_it_lacks(name: str, broken: Path) -> None:
    body, message = JUDGES[name]
    broken.write_text(f"{WHOLE}\nclass {name}(whole):\n{body}")
    importlib.invalidate_caches()
    with pytest.raises(UnknownAdapterError, match=f"the judge `{name}` .somebody:{name}. {message}"):
        registry.adapter(Kind.JUDGE, name)
    sys.modules.pop("somebody")
