"""Plans of specs that are written in a test."""

from __future__ import annotations

from collections import Counter

from engine.domain.plan import Plan, PlannedCell
from engine.domain.stage import StageKind
from engine.plan.build import build
from engine.plan.catalogue import Catalogue
from engine.spec.expand import expand
from engine.spec.load import read_sweep

ACME = """\
sweep: acme
recipe:
  model: acme/clay
  data: {source: standin/explicit, n: 6}
  tune: {use: acme/press, epochs: 1}
  generate: {use: acme/voice, max_new_tokens: 8}
  benchmark: standin/policy:1
  judges: [standin/rules]
"""
"""A spec of adapters that need no library: a test that uses it has `acme` installed."""


def plan_of(text: str) -> Plan:
    """Return the plan of a spec."""
    loaded = read_sweep(text.encode(), "test.yaml")
    expansion = expand(loaded.sweep, loaded.positions)
    return build(loaded.sweep, expansion.cells, expansion.counts, Catalogue())


def count(plan: Plan) -> dict[str, int]:
    """Return the number of distinct stages by kind."""
    return dict(Counter(stage.kind.value for stage in plan.stages.values()))


def of_kind(plan: Plan, kind: StageKind) -> list[str]:
    """Return the keys of the stages of a kind."""
    return [key for key, stage in plan.stages.items() if stage.kind is kind]


def cell_of(plan: Plan, words: str) -> PlannedCell:
    """Return the only cell whose label has some words in it."""
    (found,) = [cell for cell in plan.cells if words in cell.label]
    return found
