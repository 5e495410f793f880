"""Training rows as rows of the sealed `rows` table: what mitigations made of a sample, with its text."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from engine.domain.conversation import ChatRow, Image, Turn
from engine.domain.results import ShardRef
from engine.store import shards
from engine.store.layout import RunDirectory


def row_rows(stage_key: str, rows: Iterable[tuple[str, ChatRow]]) -> list[dict[str, object]]:
    """Return the rows of a rows stage from its (source, training row) pairs, in order."""
    return [
        {
            "stage_key": stage_key,
            "position": position,
            "source": source,
            "row_id": row.row_id,
            "turns": json.dumps([asdict(turn) for turn in row.turns], ensure_ascii=False),
            "rejected": row.rejected,
        }
        for position, (source, row) in enumerate(rows)
    ]


def read_rows(run: RunDirectory, shard: ShardRef, stage_key: str) -> list[tuple[str, ChatRow]]:
    """Read the (source, training row) pairs of a rows stage back, in order."""
    found = shards.read_rows(run, shard, stage_key)
    return [(str(row["source"]), _row(row)) for row in sorted(found, key=lambda row: int(str(row["position"])))]


def _row(row: dict[str, object]) -> ChatRow:
    rejected = row["rejected"]
    turns = tuple(map(_turn, json.loads(str(row["turns"]))))
    return ChatRow(str(row["row_id"]), turns, None if rejected is None else str(rejected))


def _turn(turn: dict[str, Any]) -> Turn:
    return Turn(**{**turn, "images": tuple(Image(**image) for image in turn["images"])})
