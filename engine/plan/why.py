"""Why a stage would run: it is new, and this is how it differs from the nearest one that has run."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from engine.domain.errors import PlanError
from engine.domain.plan import Plan, PlannedCell
from engine.domain.stage import StageKind
from engine.plan.fingerprint import Difference, differences

SHOWN = 5


@dataclass(frozen=True, slots=True)
class StageReason:
    """Why one stage of a cell will run, or that it will not.

    Attributes:
        key: The stage's key.
        kind: Its kind.
        adapter: Its adapter.
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

    Args:
        plan: The plan.
        cell: One of its cells.
        done: Payloads of the stages that have run in this run directory, of this plan or of earlier ones.
        cached: Keys of the stages that need not run.
    """
    stored = _by_kind(done)
    own = set(cell.stages)
    planned = _by_kind(stage.payload for key, stage in plan.stages.items() if key not in own)
    return tuple(_reason(plan, key, stored, planned, cached) for key in cell.stages)


def _reason(
    plan: Plan,
    key: str,
    stored: dict[str, list[str]],
    planned: dict[str, list[str]],
    cached: AbstractSet[str],
) -> StageReason:
    stage = plan.stages[key]
    if key in cached:
        return StageReason(key, stage.kind, stage.adapter, cached=True, compared="", changes=())
    for place, payloads in (("the store", stored), ("this plan", planned)):
        near = min(
            (differences(other, stage.payload) for other in payloads.get(stage.kind.value, ())), key=len, default=None
        )
        if near is not None:
            return StageReason(key, stage.kind, stage.adapter, cached=False, compared=place, changes=near)
    return StageReason(key, stage.kind, stage.adapter, cached=False, compared="", changes=())


def _by_kind(payloads: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for payload in payloads:
        found.setdefault(_kind(payload), []).append(payload)
    return found


def _kind(payload: str) -> str:
    return payload.partition('"kind":"')[2].partition('"')[0]
