"""What is installed twice, or is not whole, is refused before anything else is asked of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.errors import PlanError, UnknownAdapterError

Install = Callable[[Path], None]


def write(site: Path, package: str, entry_points: str) -> None:
    """Write the metadata of a package, as `pip install` would."""
    metadata = site / f"{package}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(entry_points)


def test_two_packages_with_one_name_or_one_default_are_refused(install: Install, tmp_path: Path) -> None:
    for package in ("one", "other"):
        write(
            tmp_path,
            package,
            f"[dosimeter.judges]\nx/y = {package}:NAME\n[dosimeter.defaults]\nx.use = {package}:NAME\n",
        )
    install(tmp_path)
    with pytest.raises(UnknownAdapterError, match="several packages offer a judge called `x/y`: one:NAME, other:NAME"):
        registry.revision(Kind.JUDGE, "x/y")
    with pytest.raises(PlanError, match="name a default for `x"):
        registry.INSTALLED.default("x.use")


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
def test_an_adapter_that_is_not_whole_is_refused_with_what_it_lacks(
    name: str, install: Install, tmp_path: Path
) -> None:
    body, message = JUDGES[name]
    (tmp_path / f"somebody_{name}.py").write_text(f"{WHOLE}\nclass Own(whole):\n{body}")
    write(tmp_path, "somebody", f"[dosimeter.judges]\nx/{name} = somebody_{name}:Own\n")
    install(tmp_path)
    with pytest.raises(UnknownAdapterError, match=f"the judge `x/{name}` .somebody_{name}:Own. {message}"):
        registry.adapter(Kind.JUDGE, f"x/{name}")
