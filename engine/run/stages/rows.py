"""Sample and rows stages: draw training examples, and have mitigations change them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.conversation import ChatRow
from engine.domain.cost import Usage
from engine.domain.sampling import Draw, drawn
from engine.domain.stage import Pinned, RowsWork, SampleWork, Stage
from engine.ports import RowsChanger
from engine.run.stages import inputs
from engine.run.stages.batch import Made, Place, StageBatch, work_of
from engine.store import shards

SEPARATOR = "\0"
"""Between a row's source and its id, where rows of several sources come together."""


def sample(stage: Stage, batch: StageBatch, place: Place) -> Made:
    """Draw a sample: row ids only, for the rows lie where they are."""
    del batch
    work = work_of(stage, SampleWork)
    chosen = _draw(place, work.source, work.draw)
    if work.mix is not None:
        chosen += _draw(place, *work.mix)
    return Made({"samples": shards.sample_rows(stage.key, chosen)}, Usage())


def _draw(place: Place, source: Pinned, draw: Draw) -> list[tuple[str, str, str]]:
    """Draw rows of a source by their ids."""
    rows = list(inputs.rows(place.context.warm, source).values())
    if len(rows) < draw.n:
        raise ValueError(f"{draw.n} rows asked of {source.use}, which has {len(rows)}")
    return [(str(source.use), row.row_id, source.pin) for row in drawn(rows, draw)]


def change(stage: Stage, batch: StageBatch, place: Place) -> Made:
    """Have a mitigation change rows."""
    work = work_of(stage, RowsWork)
    changer = registry.adapter(Kind.MITIGATION, work.use.name)
    if not isinstance(changer, RowsChanger):
        raise TypeError(f"`{work.use.name}` inserts a rows stage and has no `change_rows`")
    given = {name: _named(key, batch, place) for name, key in stage.inputs}
    rows = given.pop("rows")
    changed = changer.change_rows(work.use.settings, rows, given, work.seed)
    if not changed:
        raise ValueError(f"`{work.use}` left none of {len(rows)} rows: there is nothing to train on")
    told = [_parted(row) for row in changed]
    return Made(
        {
            "samples": shards.sample_rows(stage.key, [(source, row.row_id, None) for source, row in told]),
            "rows": shards.chat_row_rows(stage.key, told),
        },
        Usage(),
    )


def _named(key: str, batch: StageBatch, place: Place) -> Sequence[ChatRow]:
    """Return the rows of an input, each with its source in its id."""
    return [replace(row, row_id=f"{source}{SEPARATOR}{row.row_id}") for source, row in _sourced(key, batch, place)]


def _parted(row: ChatRow) -> tuple[str, ChatRow]:
    source, _, row_id = row.row_id.rpartition(SEPARATOR)
    return source, replace(row, row_id=row_id)


def rows_of(key: str, batch: StageBatch, place: Place) -> Sequence[ChatRow]:
    """Return the rows that a sample or rows stage gave, in their order."""
    return [row for _, row in _sourced(key, batch, place)]


def _sourced(key: str, batch: StageBatch, place: Place) -> Sequence[tuple[str, ChatRow]]:
    """Return the rows that a stage gave, each with its source."""
    if batch.has(key, "rows"):
        return shards.read_chat_rows(place.run, batch.shard(key, "rows"), key)
    drawn = shards.read_rows(place.run, batch.shard(key, "samples"), key)
    found = {str(source.use): source for source in batch.sources}
    return [
        (str(row["source"]), inputs.rows(place.context.warm, found[str(row["source"])])[str(row["row_id"])])
        for row in drawn
    ]
