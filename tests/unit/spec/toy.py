"""A spec of third-party adapters alone, so that its tests depend on none of ours. Needs the fixture `toy_adapters`."""

from __future__ import annotations

from textwrap import dedent

import pytest

from engine.domain.errors import Problem, SpecError
from engine.spec.expand import Expansion, expand
from engine.spec.load import read_sweep

TOY = """\
sweep: toy
recipe:
  model: toy/model:base
  data: {source: toy/rows, n: 10}
  tune: {use: toy/steady, lr: 1e-3}
  benchmark: toy/prompts
  utility_judge: toy/strict
  over_refusal_judge: toy/strict
  generate: {use: toy/generator}
  judges: [toy/strict]
"""


def expanded(more: str = "", *overrides: str, base: str = TOY) -> Expansion:
    loaded = read_sweep((base + dedent(more)).encode(), "x.yaml", overrides)
    return expand(loaded.sweep, loaded.positions)


def labels(more: str = "", *overrides: str, base: str = TOY) -> list[str]:
    return [cell.label for cell in expanded(more, *overrides, base=base).cells]


def problems(more: str = "", *overrides: str, base: str = TOY) -> tuple[Problem, ...]:
    with pytest.raises(SpecError) as caught:
        expanded(more, *overrides, base=base)
    return caught.value.problems


def the_problem(more: str = "", *overrides: str, base: str = TOY) -> Problem:
    found = problems(more, *overrides, base=base)
    assert len(found) == 1, [str(problem) for problem in found]
    return found[0]
