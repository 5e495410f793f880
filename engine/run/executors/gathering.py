"""Collects the stages of a batch as they end on its worker, writes their rows in one file per table, and returns their attempts.

So short stages share a file and a commit, and one that fails leaves the others whole.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from engine import registry
from engine.domain.cost import Usage
from engine.domain.errors import StoreError
from engine.domain.results import Attempt, Failure, ShardRef, StageResult
from engine.domain.stage import MODEL_STAGES, StageKind
from engine.ports import StoppedError
from engine.ports.provider_errors import ProviderError
from engine.run.stages.batch import Made, StageBatch
from engine.store import shards
from engine.store.layout import RunDirectory, write_text

MESSAGE_LIMIT = 2_000
TRACEBACK_LIMIT = 20_000
BLIND = f"{StageKind.WEIGHTS.value}-"
"""What keys of stages begin with in which an adapter sees neither rows nor responses."""

GATHER_SECONDS = 0.25
"""Stages that end within so little of each other share one file and one commit, but for checkpoints of training runs."""


class Gathering:
    """Gathers what has ended of a stage batch, and writes it in one file a table."""

    def __init__(self, batch: StageBatch, run: RunDirectory) -> None:
        """Begin with all stages open."""
        self._worker = batch.slot
        self._run = run
        self._open = dict.fromkeys(stage.key for stage in batch.stages)
        self._holds_device = batch.account is None
        # The weights of a checkpoint lie on the disk when it ends, and the next may be far away: its record does not wait.
        self._pause = 0.0 if batch.stages[0].kind in MODEL_STAGES else GATHER_SECONDS
        self._begun, self._clock = time.time(), time.monotonic()
        self._flushed = self._clock
        self._assigned = 0.0  # device-seconds, to the stages that have ended
        self._ended: list[tuple[Attempt, Made | None]] = []

    @property
    def holds(self) -> bool:
        """Whether anything has ended that was not handed back."""
        return bool(self._ended)

    @property
    def is_due(self) -> bool:
        """Whether what has ended is to be handed back now."""
        return time.monotonic() - self._flushed >= self._pause

    def put(self, key: str, made: Made | Exception) -> None:
        """Note that a stage has ended. Where its time was not measured, it gets what no other has; failures share it.

        One that was stopped has not failed: it has neither result nor failure, and is charged for its time.

        Raises:
            ValueError: It has ended before, or is none of the batch's.
        """
        if key not in self._open:
            raise ValueError(f"its adapter handed back {key} twice, or unasked")
        elapsed = time.monotonic() - self._clock
        rest = max(0.0, elapsed - self._assigned) if self._holds_device else 0.0
        if isinstance(made, Exception):
            paid = made.used if isinstance(made, ProviderError) else None
            usage = (paid or Usage()) + Usage(device_seconds=rest / len(self._open))
            failure = None if isinstance(made, StoppedError) else self._failure(key, made)
        else:
            usage, failure = made.usage, None
            if not usage.device_seconds:
                usage = replace(usage, device_seconds=rest)
        attempt = Attempt(key, self._worker, self._begun, self._begun + elapsed, usage, None, failure)
        self._ended.append((attempt, None if isinstance(made, Exception) else made))
        self._assigned += usage.device_seconds
        del self._open[key]

    def _failure(self, key: str, error: Exception) -> Failure:
        """Describe an error. What others' code says over texts may quote them: its words go into a sealed file."""
        return describe(error) if key.startswith(BLIND) or not _is_foreign(error) else self._sealed(key, error)

    def _sealed(self, key: str, error: Exception) -> Failure:
        told = describe(error)
        place = self._run.failures / f"{key}.txt"
        with suppress(StoreError):  # then they are lost, and not shown
            write_text(place, told.traceback)
        places = "".join(traceback.format_tb(error.__traceback__))
        return Failure(told.error_type, f"its words may quote a text, and are in {place}", _storable(places))

    def fail_rest(self, error: Exception) -> None:
        """Note that all stages that are open have failed, or were stopped."""
        for key in list(self._open):
            self.put(key, error)

    def flush(self) -> tuple[Attempt, ...]:
        """Write the rows of what has ended, and return the attempts with their shards."""
        ended, self._ended = self._ended, []
        self._flushed = time.monotonic()
        if not ended:
            return ()
        try:
            return self._stored(ended)
        except Exception:  # noqa: BLE001 - the rows of one of them cannot be stored; the others' can
            return tuple(self._stored_alone(entry) for entry in ended)

    def _stored_alone(self, entry: tuple[Attempt, Made | None]) -> Attempt:
        try:
            (attempt,) = self._stored([entry])
        except StoreError as error:
            return replace(entry[0], failure=describe(error))
        except Exception as error:  # noqa: BLE001 - a failed stage is a row, not a crash; Arrow quotes what it cannot store
            return replace(entry[0], failure=self._sealed(entry[0].key, error))
        return attempt

    def _stored(self, ended: Sequence[tuple[Attempt, Made | None]]) -> tuple[Attempt, ...]:
        rows: dict[str, list[Mapping[str, object]]] = {}
        for _, made in ended:
            for table, more in made.tables.items() if made else ():
                rows.setdefault(table, []).extend(more)
        name = ended[0][0].key
        written = {table: shards.write_shard(self._run, table, name, found) for table, found in rows.items()}
        return tuple(attempt if made is None else _done(attempt, made, written) for attempt, made in ended)


def _done(attempt: Attempt, made: Made, written: Mapping[str, ShardRef]) -> Attempt:
    refs = tuple(written[table] for table in made.tables)
    return replace(attempt, result=StageResult(attempt.key, refs, made.artifact, made.after))


def describe(error: BaseException) -> Failure:
    """Return an exception as rows and people want it, cut to a sane length."""
    text = "".join(traceback.format_exception(error))
    return Failure(type(error).__name__, _storable(str(error)[:MESSAGE_LIMIT]), _storable(text[-TRACEBACK_LIMIT:]))


def _is_foreign(error: BaseException | None) -> bool:
    """Tell whether an error, or one that it came from, passed through the code of somebody else's adapter."""
    while error is not None:
        if registry.owner(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _storable(text: str) -> str:
    """Replace what UTF-8 cannot say: an error may quote anything."""
    return text.encode("utf-8", "replace").decode()
