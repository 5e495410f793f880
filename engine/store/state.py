"""state.sqlite, the control plane. Only the driver opens it for writing; a commit here is when a result counts."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from decimal import Decimal
from importlib import resources
from types import MappingProxyType

from engine.domain.cost import Charge, Usage
from engine.domain.errors import StoreError
from engine.domain.results import Attempt, ShardRef
from engine.domain.stage import Plan, StageKind, StageState
from engine.store import rows
from engine.store.layout import SEALED, RunDirectory

SCHEMA_VERSION = "3"
APPLICATION_ID = 0x444F5349
"""`DOSI`: marks the file as ours."""

_SHOWN = (
    "SELECT * FROM cells ORDER BY position",
    "SELECT * FROM judgements ORDER BY cell_id, role, ordinal",
    "SELECT * FROM pins ORDER BY kind, ref",
    "SELECT key, value FROM meta WHERE key NOT IN ('heartbeat', 'ending', 'published') ORDER BY key",
    "SELECT stage_key, account, state, attempts FROM stages WHERE planned ORDER BY stage_key",
    "SELECT path, stage_key, sha256 FROM shards ORDER BY path, stage_key",
)
_LOCAL: Mapping[str, str] = MappingProxyType({})
CELL_TABLES = ("cells", "evaluations", "judgements", "cell_stages", "pins")


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


class State:
    """The control plane of one run directory. `State.open` is the driver's; `State.peek` only looks."""

    def __init__(self, db: sqlite3.Connection) -> None:
        """Wrap an open connection."""
        self._db = db

    @classmethod
    def open(cls, run: RunDirectory) -> State:
        """Open the file for writing; the directory and the tables are made when missing.

        Raises:
            StoreError: When the file is not ours, is damaged, or was written by another schema version.
        """
        run.root.mkdir(parents=True, exist_ok=True)
        try:
            state = cls(sqlite3.connect(run.state, isolation_level=None))
            if not state._is_ours():
                raise _damaged(run, "it belongs to another program")
            run.state.chmod(SEALED)
            state._prepare()
            state._refuse_other_versions(run)
        except sqlite3.DatabaseError as error:
            raise _damaged(run, str(error)) from error
        return state

    @classmethod
    def peek(cls, run: RunDirectory) -> State:
        """Open the file for reading only, so that looking changes nothing and meets no run.

        Raises:
            StoreError: When it is not there, is damaged, or was written by another schema version.
        """
        if not run.state.is_file():
            raise StoreError("this is not a run directory", where=str(run.root), todo="name one with --run")
        state = cls(sqlite3.connect(read_only_uri(run), uri=True, isolation_level=None))
        try:
            state._refuse_other_versions(run)
        except sqlite3.DatabaseError as error:
            raise _damaged(run, str(error)) from error
        return state

    def _refuse_other_versions(self, run: RunDirectory) -> None:
        version = self.meta().get("schema_version")
        if version != SCHEMA_VERSION:
            raise _damaged(run, f"it has schema version {version}, and this dosimeter writes {SCHEMA_VERSION}")

    def _is_ours(self) -> bool:
        """Whether the file carries our mark, or is a new one without a table."""
        (mark,) = self._db.execute("PRAGMA application_id").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return bool(mark == APPLICATION_ID or tables == 0)

    def _prepare(self) -> None:
        self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(resources.files("engine.store").joinpath("state.sql").read_text())
        self._db.execute("INSERT OR IGNORE INTO meta VALUES ('schema_version', ?)", (SCHEMA_VERSION,))

    def digest(self) -> str:
        """Return a hash of all that publishing shows: two equal digests publish equal results."""
        shown = hashlib.sha256()
        for query in _SHOWN:
            for row in self._db.execute(query):
                shown.update(repr(row).encode())
        return shown.hexdigest()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _commit(self) -> Iterator[sqlite3.Connection]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield self._db
            self._db.execute("COMMIT")
        except sqlite3.OperationalError as error:  # the disk is full, read-only or gone
            self._roll_back()
            raise StoreError(
                f"the control plane cannot be written: {error}",
                todo="make room or mend the disk; the same command resumes, and nothing that was committed is lost",
            ) from error
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def meta(self) -> dict[str, str]:
        """Return the facts about the run, by name."""
        return dict(self._db.execute("SELECT key, value FROM meta"))

    def put_meta(self, facts: Mapping[str, str]) -> None:
        """Set facts about the run."""
        with self._commit() as db:
            db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", facts.items())

    def adopt(self, plan: Plan, accounts: Mapping[str, str] = _LOCAL) -> None:
        """Make `plan` the plan of this run: its cells replace the old ones; stages that are known keep their state.

        Args:
            plan: The plan.
            accounts: Account by stage key, of the stages that run at a provider.
        """
        with self._commit() as db:
            for table in CELL_TABLES:
                db.execute(f"DELETE FROM {table}")  # noqa: S608 - our own table names
            _insert(db, "cells", 27, rows.cell_rows(plan))
            _insert(db, "evaluations", 5, rows.evaluation_rows(plan))
            _insert(db, "judgements", 6, rows.judgement_rows(plan))
            _insert(db, "cell_stages", 2, rows.cell_stage_rows(plan))
            _insert(db, "pins", 4, rows.pin_rows(plan))
            db.execute("UPDATE stages SET planned = 0")
            upsert = " ON CONFLICT (stage_key) DO UPDATE SET planned = 1, account = excluded.account"
            fresh = (rows.stage_row(stage, accounts.get(key)) for key, stage in plan.stages.items())
            _insert(db, "stages", 12, fresh, upsert)

    def stages(self) -> dict[str, StoredStage]:
        """Return every known stage, of this plan and of earlier ones."""
        found = self._db.execute("SELECT stage_key, state, artifact FROM stages")
        return {key: StoredStage(key, StageState(state), artifact) for key, state, artifact in found}

    def payload_parts(self) -> Iterator[tuple[StageKind, str, int, str, tuple[str, ...]]]:
        """Yield (kind, adapter, revision, settings, inputs) of every stage that is done, for `plan --why`."""
        for kind, adapter, revision, settings, inputs in self._db.execute(
            "SELECT kind, adapter, revision, settings, inputs FROM stages WHERE state = 'done'"
        ):
            yield StageKind(kind), adapter, revision, settings, tuple(json.loads(inputs))

    def reset(self, keys: Iterable[str]) -> None:
        """Put stages back to pending; their shards and artifacts no longer count, nor do verdicts on their answers."""
        with self._commit() as db:
            found = list(keys)
            for key in [*found, *_judges_of(db, found)]:
                db.execute(
                    "UPDATE stages SET state = 'pending', reason = NULL, artifact = NULL WHERE stage_key = ?", (key,)
                )
                db.execute("DELETE FROM shards WHERE stage_key = ?", (key,))

    def settle(self, ended: Iterable[Settled]) -> None:
        """Record ended attempts with their shards. When this returns, they count."""
        with self._commit() as db:
            for entry in ended:
                _settle(db, entry)

    def skip(self, reasons: Mapping[str, str]) -> None:
        """Mark stages as skipped, each with its reason."""
        with self._commit() as db:
            db.executemany(
                "UPDATE stages SET state = 'skipped', reason = ? WHERE stage_key = ?",
                [(reason, key) for key, reason in reasons.items()],
            )

    def forget_artifact(self, key: str) -> None:
        """Record that a stage's artifact has been deleted."""
        with self._commit() as db:
            db.execute("UPDATE stages SET artifact = NULL WHERE stage_key = ?", (key,))

    def add_shards(self, stage_key: str, shards: Iterable[ShardRef]) -> None:
        """Acknowledge shards that belong to no stage, such as a benchmark's prompts; they replace older ones."""
        with self._commit() as db:
            db.execute("DELETE FROM shards WHERE stage_key = ?", (stage_key,))
            _insert_shards(db, stage_key, shards)

    def retain_prompts(self, keys: Iterable[str]) -> None:
        """Forget the prompts of benchmarks that the plan no longer asks."""
        kept = list(keys)
        with self._commit() as db:
            db.execute(
                f"DELETE FROM shards WHERE table_name = 'prompts' AND stage_key NOT IN ({', '.join('?' * len(kept))})",  # noqa: S608
                kept,
            )

    def shards(self, stage_keys: Iterable[str] | None = None) -> Iterator[tuple[str, ShardRef]]:
        """Yield (stage key, shard) for every acknowledged shard, or for those of some stages."""
        query = "SELECT stage_key, table_name, path, sha256, rows, bytes FROM shards"
        if stage_keys is None:
            found = self._db.execute(query).fetchall()
        else:
            found = [
                row for key in stage_keys for row in self._db.execute(f"{query} WHERE stage_key = ?", (key,)).fetchall()
            ]
        for key, table, path, sha256, count, size in found:
            yield key, ShardRef(table, path, sha256, count, size)

    def usage(self) -> tuple[Usage, Charge]:
        """Return the sums of all attempts' usage and charges, failed ones included.

        A sum of charges is None as soon as one attempt has none: an unknown price is never $0.
        """
        sums = ", ".join(f"coalesce(sum({name}), 0)" for name in _USED)
        used = self._db.execute(f"SELECT {sums} FROM attempts").fetchone()  # noqa: S608 - names of ours
        charges = self._db.execute("SELECT usd, possibly_billed_usd FROM attempts").fetchall()
        return Usage(*used), Charge(_sum(usd for usd, _ in charges), _sum(usd for _, usd in charges))

    def known(self) -> tuple[Decimal, tuple[str | None, ...]]:
        """Return the sum of the charges that are known, and the accounts that others were made on; None for this machine."""
        charges = self._db.execute("SELECT usd FROM attempts WHERE usd IS NOT NULL").fetchall()
        others = self._db.execute(
            "SELECT DISTINCT account FROM attempts JOIN stages USING (stage_key) WHERE usd IS NULL ORDER BY account"
        )
        return _sum(usd for (usd,) in charges) or Decimal(), tuple(account for (account,) in others)

    def charges(self) -> Iterator[tuple[str, Usage, Charge]]:
        """Yield (stage key, usage, charge) of every attempt."""
        query = f"SELECT stage_key, usd, possibly_billed_usd, {', '.join(_USED)} FROM attempts"  # noqa: S608 - names of ours
        for key, usd, possibly_billed_usd, *used in self._db.execute(query):
            yield key, Usage(*used), Charge(_sum([usd]), _sum([possibly_billed_usd]))

    def times(self) -> Iterator[tuple[str, float, float]]:
        """Yield (stage key, start, end) of every attempt that ended, in seconds since the epoch, UTC."""
        yield from self._db.execute("SELECT stage_key, started_at, ended_at FROM attempts WHERE ended_at IS NOT NULL")

    def planned_counts(self) -> dict[tuple[str, str], int]:
        """Return the number of stages of the newest plan by (kind, state)."""
        found = self._db.execute("SELECT kind, state, count(*) FROM stages WHERE planned GROUP BY kind, state")
        return {(kind, state): number for kind, state, number in found}

    def cell_counts(self) -> dict[str, int]:
        """Return the number of cells by status: done, failed, blocked (moderation refused a stage, and none failed), open."""
        found = self._db.execute(
            "SELECT CASE WHEN failed THEN 'failed' WHEN blocked THEN 'blocked' WHEN undone THEN 'open' ELSE 'done' END,"
            " count(*) FROM (SELECT max(state = 'failed') AS failed, max(state = 'blocked') AS blocked,"
            " max(state <> 'done') AS undone FROM cell_stages JOIN stages USING (stage_key) GROUP BY cell_id) GROUP BY 1"
        )
        return {"done": 0, "failed": 0, "blocked": 0, "open": 0} | dict(found)

    def failures(self, limit: int) -> list[tuple[str, str, str]]:
        """Return (stage key, error type, error) of the newest failed attempts of stages that still stand failed."""
        return self._db.execute(
            "SELECT a.stage_key, a.error_type, a.error FROM attempts a JOIN stages s USING (stage_key)"
            " WHERE s.planned AND s.state = 'failed' AND a.attempt = s.attempts ORDER BY a.ended_at DESC LIMIT ?",
            (limit,),
        ).fetchall()

    def device_seconds_by_stage(self) -> dict[str, float]:
        """Return the device seconds of each finished stage's successful attempt, for calibrating forecasts."""
        return dict(self._db.execute("SELECT stage_key, device_seconds FROM attempts WHERE state = 'done'"))


_USED = tuple(field.name for field in fields(Usage))
"""Columns of `attempts`, side by side and in this order."""


def _sum(texts: Iterable[str | None]) -> Decimal | None:
    """Return the sum of dollars as SQLite keeps them, every digit; None when one is unknown."""
    found = list(texts)
    known = [Decimal(text) for text in found if text is not None]
    return sum(known, Decimal()) if len(known) == len(found) else None


def _text(dollars: Decimal | None) -> str | None:
    return None if dollars is None else str(dollars)


def _judges_of(db: sqlite3.Connection, keys: Iterable[str]) -> list[str]:
    """Judge stages of any plan that read what is made again: answers may differ then, and verdicts must fit the text."""
    asked = set(keys)
    judges = db.execute("SELECT stage_key, inputs FROM stages WHERE kind = 'judge' AND state = 'done'")
    return [key for key, inputs in judges if asked.intersection(json.loads(inputs))]


def _settle(db: sqlite3.Connection, entry: Settled) -> None:
    attempt, result, failure = entry.attempt, entry.attempt.result, entry.attempt.failure
    (tries,) = db.execute("SELECT attempts FROM stages WHERE stage_key = ?", (attempt.key,)).fetchone()
    state = "done" if result else "failed" if failure else "interrupted"
    db.execute(
        f"INSERT INTO attempts VALUES ({', '.join('?' * 20)})",  # noqa: S608 - only placeholders
        (
            attempt.key,
            tries + 1,
            state,
            attempt.host,
            attempt.started_at,
            attempt.ended_at,
            *astuple(attempt.usage),
            _text(entry.charge.usd),
            _text(entry.charge.possibly_billed_usd),
            result and result.after,
            failure and failure.error_type,
            failure and failure.message,
            failure and failure.traceback,
        ),
    )
    db.execute(
        "UPDATE stages SET state = ?, reason = NULL, attempts = ?, artifact = ? WHERE stage_key = ?",
        (entry.state, tries + 1, result and result.artifact, attempt.key),
    )
    if result is not None:
        db.execute("DELETE FROM shards WHERE stage_key = ?", (attempt.key,))
        _insert_shards(db, attempt.key, result.shards)


def _insert_shards(db: sqlite3.Connection, stage_key: str, shards: Iterable[ShardRef]) -> None:
    db.executemany(
        "INSERT INTO shards VALUES (?, ?, ?, ?, ?, ?)",
        [(shard.path, shard.table, stage_key, shard.sha256, shard.rows, shard.bytes) for shard in shards],
    )


def _insert(db: sqlite3.Connection, table: str, width: int, values: Iterable[rows.Row], suffix: str = "") -> None:
    db.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * width)}){suffix}", values)  # noqa: S608 - our names


def read_only_uri(run: RunDirectory) -> str:
    """Return the URI that opens the file for reading only, whatever characters its path has."""
    return f"{run.state.resolve().as_uri()}?mode=ro"


def _damaged(run: RunDirectory, why: str) -> StoreError:
    return StoreError(
        f"the control plane cannot be read: {why}",
        where=str(run.state),
        todo="choose another --out directory, or restore this one from a backup",
    )
