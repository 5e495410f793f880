"""Why a stage would run: it is new, and this is how it differs from the nearest one that has run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from engine.domain.errors import PlanError
from engine.domain.plan import Plan, PlannedCell
from engine.domain.stage import Stage, StageKind
from engine.plan.fingerprint import Difference, differences

SHOWN = 5


@dataclass(frozen=True, slots=True)
class StageReason:
    """Why one stage of a cell will run, or that it will not.

    Attributes:
        cached: True when it has run and need not run again.
        compared: Where the nearest other stage was found: `the store`, `this plan`, or empty when there is none.
        changes: How this stage's own settings differ from that one's; empty when only an input changed.
    """

    key: str
    kind: StageKind
    adapter: str
    cached: bool
    compared: str
    changes: tuple[Difference, ...]


def find_cell(plan: Plan, name: str) -> PlannedCell:
    """Return the cell that `name` means: an id, the start of one, a position, or words that are all in its label.

    Raises:
        PlanError: When no cell or several fit.
    """
    if name.isdecimal() and int(name) < len(plan.cells):
        return plan.cells[int(name)]
    words = name.split()
    found = [
        cell
        for cell in plan.cells
        if cell.cell_id.startswith((name, f"cell-{name}")) or set(words) <= set(cell.label.split())
    ]
    if len(found) == 1:
        return found[0]
    if not found:
        raise PlanError(f"no cell is called `{name}`", todo="`dosimeter plan SPEC --cells` lists them")
    listed = "\n".join(f"  {cell.cell_id}  {cell.label}" for cell in found[:SHOWN])
    raise PlanError(f"`{name}` fits {len(found)} cells", where=listed, todo="name one of them")


def why(plan: Plan, cell: PlannedCell, done: Iterable[str], cached: AbstractSet[str]) -> tuple[StageReason, ...]:
    """Return, stage by stage, why `cell` will run.

    `done` has the payloads of all stages that have run in this run directory, of this plan or of earlier ones.
    """
    own = set(cell.stages)
    others = (stage.payload for key, stage in plan.stages.items() if key not in own)
    places = {"the store": _by_kind(done), "this plan": _by_kind(others)}
    return tuple(_reason(plan.stages[key], places, is_cached=key in cached) for key in cell.stages)


def _reason(stage: Stage, places: Mapping[str, Mapping[str, Sequence[str]]], *, is_cached: bool) -> StageReason:
    for place, payloads in places.items() if not is_cached else ():
        others = payloads.get(stage.kind.value, ())
        near = min((differences(other, stage.payload) for other in others), key=len, default=None)
        if near is not None:
            return StageReason(stage.key, stage.kind, stage.adapter, cached=False, compared=place, changes=near)
    return StageReason(stage.key, stage.kind, stage.adapter, cached=is_cached, compared="", changes=())


def _by_kind(payloads: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for payload in payloads:
        kind = payload.partition('"kind":"')[2].partition('"')[0]
        found.setdefault(kind, []).append(payload)
    return found
