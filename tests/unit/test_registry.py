"""What is installed twice is refused: the first that comes would otherwise be used without a word."""

from __future__ import annotations

from importlib.metadata import EntryPoint

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
