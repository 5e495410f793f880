"""A tiny spec, and reading it with what a test adds: shared by the tests of the loader and of `--set`."""

from __future__ import annotations

from textwrap import dedent

import pytest

from engine import registry
from engine.domain.adapters import Kind, Use
from engine.domain.errors import Problem, SpecError
from engine.spec.load import LoadedSweep, read_sweep

BASE = """\
sweep: tiny
recipe:
  model: standin/aligned
  data: {source: standin/explicit, n: 10}
  tune: {lr: 1e-3}
  benchmark: standin/policy
  judges: [standin/rules]
"""


def read(more: str = "", *overrides: str, base: str = BASE) -> LoadedSweep:
    return read_sweep((base + dedent(more)).encode(), "x.yaml", overrides)


def problems(more: str = "", *overrides: str, base: str = BASE) -> tuple[Problem, ...]:
    with pytest.raises(SpecError) as caught:
        read(more, *overrides, base=base)
    return caught.value.problems


def the_problem(more: str = "", *overrides: str, base: str = BASE) -> Problem:
    found = problems(more, *overrides, base=base)
    assert len(found) == 1, [str(problem) for problem in found]
    return found[0]


def use(kind: Kind, written: object) -> Use:
    return registry.INSTALLED.use(kind, written)
