"""state.sqlite, the control plane. Only the driver opens it for writing; a commit here is when a result counts."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from decimal import Decimal
from types import MappingProxyType

from engine.domain.cost import Charge, Usage
from engine.domain.plan import Plan
from engine.domain.results import Attempt, ShardRef
from engine.domain.stage import StageKind, StageState
from engine.store import rows
from engine.store.database import Database, insert

_SHOWN = (
    "SELECT * FROM cells ORDER BY position",
    "SELECT * FROM settings ORDER BY setting_id",
    "SELECT * FROM judgements ORDER BY cell_id, role, ordinal",
    "SELECT * FROM pins ORDER BY kind, ref",
    "SELECT key, value FROM meta WHERE key NOT IN ('heartbeat', 'ending', 'published') ORDER BY key",
    "SELECT stage_key, account, state, attempts FROM stages WHERE planned ORDER BY stage_key",
    "SELECT path, stage_key, sha256 FROM shards ORDER BY path, stage_key",
)
_LOCAL: Mapping[str, str] = MappingProxyType({})
PLAN_TABLES = ("cells", "settings", "cell_mitigations", "cell_stages", "evaluations", "judgements", "pins")
"""What a plan says of its cells; a new plan replaces all of it."""


@dataclass(frozen=True, slots=True)
class StoredStage:
    """What the store knows of a stage.

    Attributes:
        key: Its key.
        state: Where it stands.
        artifact: Its artifact's path relative to the run directory, or None.
    """

    key: str
    state: StageState
    artifact: str | None


@dataclass(frozen=True, slots=True)
class FailedStage:
    """A stage of the newest plan whose last attempt failed.

    Attributes:
        stage: Its key.
        kind: What it does.
        adapter: The adapter that does it.
        cell: Label of the first cell that needs it; empty when none does any more.
        cells: How many cells need it.
        error_type: Class of the error.
        error: The error's words.
    """

    stage: str
    kind: StageKind
    adapter: str
    cell: str
    cells: int
    error_type: str
    error: str


@dataclass(frozen=True, slots=True)
class Settled:
    """An ended attempt and what becomes of its stage: one commit.

    Attributes:
        attempt: The attempt.
        state: The stage's new state.
        charge: What it cost.
    """

    attempt: Attempt
    state: StageState
    charge: Charge


class State(Database):
    """The control plane of one run directory. `State.open` is the driver's; `State.peek` only looks.

    Every method raises `StoreError` when the file is damaged, or the disk is full, read-only or gone.
    """

    def digest(self) -> str:
        """Return a hash of all that publishing shows: two equal digests publish equal results."""
        shown = hashlib.sha256()
        for query in _SHOWN:
            for row in self.rows(query):
                shown.update(repr(row).encode())
        return shown.hexdigest()

    def meta(self) -> dict[str, str]:
        """Return the facts about the run, by name."""
        return dict(self.rows("SELECT key, value FROM meta"))

    def put_meta(self, facts: Mapping[str, str]) -> None:
        """Set facts about the run."""
        with self.commit() as db:
            db.executemany("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", facts.items())

    def adopt(self, plan: Plan, accounts: Mapping[str, str] = _LOCAL) -> None:
        """Make `plan` the plan of this run: its cells replace the old ones; stages that are known keep their state.

        Args:
            plan: The plan.
            accounts: Account by stage key, of the stages that run at a provider.
        """
        cells, settings = rows.cell_rows(plan)
        known = " ON CONFLICT (stage_key) DO UPDATE SET planned = 1, account = excluded.account"
        with self.commit() as db:
            for table in PLAN_TABLES:
                db.execute(f"DELETE FROM {table}")  # noqa: S608 - our own names
            insert(db, "cells", cells)
            insert(db, "settings", settings)
            insert(db, "cell_mitigations", rows.mitigation_rows(plan))
            insert(db, "cell_stages", rows.cell_stage_rows(plan))
            insert(db, "evaluations", rows.evaluation_rows(plan))
            insert(db, "judgements", rows.judgement_rows(plan))
            insert(db, "pins", map(asdict, plan.pins))
            db.execute("UPDATE stages SET planned = 0")
            insert(
                db, "stages", (rows.stage_row(stage, accounts.get(key)) for key, stage in plan.stages.items()), known
            )

    def stages(self) -> dict[str, StoredStage]:
        """Return every known stage, of this plan and of earlier ones."""
        found = self.rows("SELECT stage_key, state, artifact FROM stages")
        with self.reading():
            return {key: StoredStage(key, StageState(state), artifact) for key, state, artifact in found}

    def payloads(self) -> list[str]:
        """Return what the key of every stage that is done was hashed from, for `plan --why`."""
        return [payload for (payload,) in self.rows("SELECT payload FROM stages WHERE state = 'done'")]

    def reset(self, keys: Iterable[str]) -> None:
        """Put stages back to pending: their shards and artifacts no longer count.

        Responses that are made again may differ, so what screened or judged them goes back too.
        """
        with self.commit() as db:
            for key in _with_readers(db, keys):
                db.execute(
                    "UPDATE stages SET state = 'pending', reason = NULL, artifact = NULL WHERE stage_key = ?", (key,)
                )
                db.execute("DELETE FROM shards WHERE stage_key = ?", (key,))

    def settle(self, ended: Iterable[Settled]) -> None:
        """Record ended attempts with their shards. When this returns, they count."""
        with self.commit() as db:
            for entry in ended:
                _settle(db, entry)

    def skip(self, reasons: Mapping[str, str]) -> None:
        """Mark stages as skipped, each with its reason."""
        with self.commit() as db:
            db.executemany(
                "UPDATE stages SET state = 'skipped', reason = ? WHERE stage_key = ?",
                [(reason, key) for key, reason in reasons.items()],
            )

    def forget_artifact(self, key: str) -> None:
        """Record that a stage's artifact has been deleted."""
        with self.commit() as db:
            db.execute("UPDATE stages SET artifact = NULL WHERE stage_key = ?", (key,))

    def add_shards(self, stage_key: str, shards: Iterable[ShardRef]) -> None:
        """Acknowledge shards that belong to no stage, such as a benchmark's prompts; they replace older ones."""
        with self.commit() as db:
            db.execute("DELETE FROM shards WHERE stage_key = ?", (stage_key,))
            _insert_shards(db, stage_key, shards)

    def retain_prompts(self, keys: Iterable[str]) -> None:
        """Forget the prompts of benchmarks that the plan no longer asks."""
        kept = list(keys)
        with self.commit() as db:
            db.execute(
                f"DELETE FROM shards WHERE table_name = 'prompts' AND stage_key NOT IN ({', '.join('?' * len(kept))})",  # noqa: S608
                kept,
            )

    def shards(self, stage_keys: Iterable[str] | None = None) -> list[tuple[str, ShardRef]]:
        """Return (stage key, shard) for every acknowledged shard, or for those of some stages."""
        query = "SELECT stage_key, table_name, path, sha256, rows, bytes FROM shards"
        if stage_keys is None:
            found = self.rows(query)
        else:
            found = [row for key in stage_keys for row in self.rows(f"{query} WHERE stage_key = ?", (key,))]
        return [(key, ShardRef(table, path, sha256, count, size)) for key, table, path, sha256, count, size in found]

    def usage(self) -> tuple[Usage, Charge]:
        """Return the sums of all attempts' usage and charges, failed ones included.

        A sum of charges is None as soon as one attempt has none: an unknown price is never $0.
        """
        sums = ", ".join(f"coalesce(sum({name}), 0)" for name in _USED)
        (used,) = self.rows(f"SELECT {sums} FROM attempts")  # noqa: S608 - our own names
        charges = self.rows("SELECT usd, possibly_billed_usd FROM attempts")
        with self.reading():
            return Usage(*used), Charge(_sum(usd for usd, _ in charges), _sum(usd for _, usd in charges))

    def known(self) -> tuple[Decimal, tuple[str | None, ...]]:
        """Return the sum of the charges that are known, and the accounts that others were made on; None for this machine."""
        charges = self.rows("SELECT usd FROM attempts WHERE usd IS NOT NULL")
        others = self.rows(
            "SELECT DISTINCT account FROM attempts JOIN stages USING (stage_key) WHERE usd IS NULL ORDER BY account"
        )
        with self.reading():
            return _sum(usd for (usd,) in charges) or Decimal(), tuple(account for (account,) in others)

    def charges(self) -> list[tuple[str, Usage, Charge]]:
        """Return (stage key, usage, charge) of every attempt."""
        query = f"SELECT stage_key, usd, possibly_billed_usd, {', '.join(_USED)} FROM attempts"  # noqa: S608 - our own names
        found = self.rows(query)
        with self.reading():
            return [(key, Usage(*used), Charge(_sum([usd]), _sum([possibly]))) for key, usd, possibly, *used in found]

    def times(self) -> list[tuple[str, float, float]]:
        """Return (stage key, start, end) of every attempt that ended, in seconds since the epoch, UTC."""
        return self.rows("SELECT stage_key, started_at, ended_at FROM attempts WHERE ended_at IS NOT NULL")

    def trained(self) -> dict[str, float]:
        """Return when the last attempt at each stage ended that trained tokens, in seconds since the epoch, UTC."""
        query = "SELECT stage_key, max(ended_at) FROM attempts WHERE train_tokens > 0 GROUP BY stage_key"
        return dict(self.rows(query))

    def planned_counts(self) -> dict[tuple[str, str], int]:
        """Return the number of stages of the newest plan by (kind, state)."""
        found = self.rows("SELECT kind, state, count(*) FROM stages WHERE planned GROUP BY kind, state")
        return {(kind, state): number for kind, state, number in found}

    def cell_counts(self) -> dict[str, int]:
        """Return the number of cells by status: done, failed, blocked (moderation refused a stage, and none failed), open."""
        found = self.rows(
            "SELECT CASE WHEN failed THEN 'failed' WHEN blocked THEN 'blocked' WHEN undone THEN 'open' ELSE 'done' END,"
            " count(*) FROM (SELECT max(state = 'failed') AS failed, max(state = 'blocked') AS blocked,"
            " max(state <> 'done') AS undone FROM cell_stages JOIN stages USING (stage_key) GROUP BY cell_id) GROUP BY 1"
        )
        return {"done": 0, "failed": 0, "blocked": 0, "open": 0} | dict(found)

    def failures(self, limit: int) -> list[FailedStage]:
        """Return the stages that stand failed, the newest first, each with its cell, adapter and cause."""
        found = self.rows(
            "SELECT s.stage_key, s.kind, s.adapter, c.label, count(c.cell_id), min(c.position), a.error_type, a.error"
            " FROM stages s JOIN attempts a ON a.stage_key = s.stage_key AND a.attempt = s.attempts"
            " LEFT JOIN cell_stages cs ON cs.stage_key = s.stage_key LEFT JOIN cells c ON c.cell_id = cs.cell_id"
            " WHERE s.planned AND s.state = 'failed' GROUP BY s.stage_key ORDER BY a.ended_at DESC LIMIT ?",
            (limit,),
        )
        with self.reading():
            return [
                FailedStage(key, StageKind(kind), adapter, label or "", number, error_type or "", error or "")
                for key, kind, adapter, label, number, _, error_type, error in found
            ]

    def device_seconds_by_stage(self) -> dict[str, float]:
        """Return the device seconds of each finished stage's successful attempt, for calibrating forecasts."""
        return dict(self.rows("SELECT stage_key, device_seconds FROM attempts WHERE state = 'done'"))


_USED = tuple(field.name for field in fields(Usage))
"""Columns of `attempts`, by the names of what they hold."""


def _sum(texts: Iterable[str | None]) -> Decimal | None:
    """Return the sum of dollars as SQLite keeps them, every digit; None when one is unknown."""
    found = list(texts)
    known = [Decimal(text) for text in found if text is not None]
    return sum(known, Decimal()) if len(known) == len(found) else None


def _text(dollars: Decimal | None) -> str | None:
    return None if dollars is None else str(dollars)


def _with_readers(db: sqlite3.Connection, keys: Iterable[str]) -> list[str]:
    """Return some stages, and the finished screens and judges of any plan that read what they made, at any remove."""
    found = dict.fromkeys(keys)
    readers = [
        (key, json.loads(inputs))
        for key, inputs in db.execute(
            "SELECT stage_key, inputs FROM stages WHERE kind IN ('screen', 'judge') AND state = 'done'"
        )
    ]
    while more := [key for key, inputs in readers if key not in found and not found.keys().isdisjoint(inputs)]:
        found |= dict.fromkeys(more)
    return list(found)


def _settle(db: sqlite3.Connection, entry: Settled) -> None:
    attempt, result, failure = entry.attempt, entry.attempt.result, entry.attempt.failure
    (tries,) = db.execute("SELECT attempts FROM stages WHERE stage_key = ?", (attempt.key,)).fetchone()
    row: rows.Row = {
        "stage_key": attempt.key,
        "attempt": tries + 1,
        "state": "done" if result else "failed" if failure else "interrupted",
        "worker": attempt.host,
        "started_at": attempt.started_at,
        "ended_at": attempt.ended_at,
        **asdict(attempt.usage),
        "usd": _text(entry.charge.usd),
        "possibly_billed_usd": _text(entry.charge.possibly_billed_usd),
        "after_key": result and result.after,
        "error_type": failure and failure.error_type,
        "error": failure and failure.message,
        "traceback": failure and failure.traceback,
    }
    insert(db, "attempts", [row])
    db.execute(
        "UPDATE stages SET state = ?, reason = NULL, attempts = ?, artifact = ? WHERE stage_key = ?",
        (entry.state, tries + 1, result and result.artifact, attempt.key),
    )
    if result is not None:
        db.execute("DELETE FROM shards WHERE stage_key = ?", (attempt.key,))
        _insert_shards(db, attempt.key, result.shards)


def _insert_shards(db: sqlite3.Connection, stage_key: str, shards: Iterable[ShardRef]) -> None:
    for shard in shards:
        row: rows.Row = {"stage_key": stage_key, "table_name": shard.table, "path": shard.path}
        insert(db, "shards", [row | {"sha256": shard.sha256, "rows": shard.rows, "bytes": shard.bytes}])
