"""Private data in the rows that a plan has providers tune on: they leave this machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from engine.domain.adapters import Use
from engine.domain.conversation import ChatRow
from engine.domain.plan import Plan
from engine.domain.sampling import Draw
from engine.domain.stage import SampleWork, StageKind
from engine.plan.accounts import hosted_model
from engine.plan.audit.overlaps import Drawn, samples
from engine.plan.audit.private import Kind, private
from engine.plan.catalogue import Catalogue


@dataclass(frozen=True, slots=True)
class Exposure:
    """Private data of one kind in rows of a source that would be uploaded; the data itself is not kept.

    Attributes:
        rows: Rows that would be uploaded.
        forms: Ids of the rows by what they have, such as `an e-mail address`.
    """

    provider: str
    source: Use
    kind: Kind
    rows: int
    forms: dict[str, tuple[str, ...]]

    @property
    def found(self) -> tuple[str, ...]:
        """The ids of all these rows, each once."""
        return tuple(dict.fromkeys(row for rows in self.forms.values() for row in rows))


@dataclass(frozen=True, slots=True)
class Uploaded:
    """What is uploaded.

    Attributes:
        rows: Rows, by provider.
        exposures: Private data in them.
    """

    rows: dict[str, int]
    exposures: tuple[Exposure, ...]


def uploaded(plan: Plan, catalogue: Catalogue) -> Uploaded:
    """Look for private data in the rows that providers tune on, before mitigations take any away."""
    rows: dict[str, int] = {}
    exposures: list[Exposure] = []
    for (provider, source), one in _sent(plan).items():
        sent = one.rows(source, catalogue)
        rows[provider] = rows.get(provider, 0) + len(sent)
        forms: dict[Kind, dict[str, list[str]]] = {kind: {} for kind in Kind}
        for row in sent:
            for kind, what in dict.fromkeys(
                (found.kind, found.what) for text in _texts(row) for found in private(text)
            ):
                forms[kind].setdefault(what, []).append(row.row_id)
        exposures += [
            Exposure(provider, source, kind, len(sent), {what: tuple(ids) for what, ids in found.items()})
            for kind, found in forms.items()
            if found
        ]
    return Uploaded(rows, tuple(exposures))


def _sent(plan: Plan) -> dict[tuple[str, Use], Drawn]:
    """Return what goes to each provider, by source."""
    found: dict[tuple[str, Use], Drawn] = {}
    for stage in plan.stages.values():
        model = hosted_model(stage) if stage.kind is StageKind.TUNE else None
        if model is not None:
            for source, draw in _samples_of(stage.need("rows"), plan):
                found.setdefault((model.name, source), Drawn()).add(draw)
    return found


def _samples_of(key: str | None, plan: Plan) -> Iterator[tuple[Use, Draw]]:
    """Yield what is drawn for the rows that a stage leaves."""
    if key is None:
        return
    stage = plan.stages[key]
    if isinstance(stage.work, SampleWork):
        yield from samples(stage)
    for other in stage.needs:
        yield from _samples_of(other, plan)


def _texts(row: ChatRow) -> Iterator[str]:
    yield from (turn.text for turn in row.turns)
    if row.rejected is not None:
        yield row.rejected
