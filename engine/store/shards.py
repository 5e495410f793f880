"""Parquet shards: a worker writes its rows once into a file of its own, and hands back only a reference."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.domain.conversation import ChatRow, Image, Prompt, Turn
from engine.domain.errors import StoreError
from engine.domain.results import Response, ShardRef, TrainingStep, Verdict
from engine.store.errors import AGAIN, mapped
from engine.store.layout import RunDirectory, sha256_of, write_whole

_COLUMNS: Mapping[str, str] = MappingProxyType(
    {
        "prompts": "benchmark prompt_id position category cluster text_sha256 text behavior context gold_answers",
        "responses": "stage_key prompt_id sample finish prompt_tokens generated_tokens text_sha256 text thoughts",
        "verdicts": "stage_key prompt_id sample outcome score reason",
        "training": "stage_key step epoch loss lr rows_at_once cut_rows",
        "samples": "stage_key position source row_id pin",
        "rows": "stage_key position source row_id turns rejected category",
    }
)
_TYPES = MappingProxyType(
    dict.fromkeys(
        ("position", "sample", "prompt_tokens", "generated_tokens", "step", "rows_at_once", "cut_rows"), pa.int32()
    )
    | dict.fromkeys(("score", "epoch", "loss", "lr"), pa.float64())
    | {"gold_answers": pa.list_(pa.string())}
)
"""Of the columns that are not text."""

SCHEMAS: Mapping[str, pa.Schema] = MappingProxyType(
    {
        table: pa.schema([(name, _TYPES.get(name, pa.string())) for name in names.split()])
        for table, names in _COLUMNS.items()
    }
)
"""The columns of every shard; those that tables.sql lacks (text, reason, ...), and the table `rows`, stay in the shards."""


def write_shard(run: RunDirectory, table: str, name: str, rows: Sequence[Mapping[str, object]]) -> ShardRef:
    """Write `rows` as one new Parquet file and return the reference to it.

    Args:
        run: The run directory.
        table: One of `SCHEMAS`.
        name: The file's name begins so: the first of the stages (or the benchmark) that the rows come from.
        rows: The rows, with exactly the columns of the schema.

    Raises:
        StoreError: The disk is full, read-only or failing.
        pyarrow.ArrowException: A row holds a value of another type.
    """
    path = run.shards / table / f"{name}-{uuid.uuid4().hex[:8]}.parquet"
    data = pa.Table.from_pylist(list(rows), schema=SCHEMAS[table])
    with mapped("a shard cannot be written", path, pa.ArrowException):
        write_whole(path, lambda temporary: pq.write_table(data, temporary, compression="zstd"))
        return ShardRef(table, str(path.relative_to(run.root)), sha256_of(path), data.num_rows, path.stat().st_size)


def read_rows(run: RunDirectory, shard: ShardRef, stage_key: str) -> list[dict[str, Any]]:
    """Read one stage's rows back.

    Raises:
        StoreError: The file is missing, or does not match its recorded SHA-256.
    """
    table = _table(run.root / shard.path, shard.sha256)
    rows: list[dict[str, Any]] = table.filter(pc.equal(table["stage_key"], stage_key)).to_pylist()
    return rows


@lru_cache(maxsize=4)
def _table(path: Path, sha256: str) -> pa.Table:
    """Read a file once for the stages of a batch, and hold it to its hash: nobody ever changes it."""
    with mapped("a shard cannot be read", path, pa.ArrowException, todo=AGAIN):
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise StoreError("a shard does not match its recorded SHA-256", where=str(path), todo=AGAIN)
        return pq.read_table(pa.BufferReader(data), use_threads=False)


def is_whole(run: RunDirectory, shard: ShardRef) -> bool:
    """Tell whether a shard is on disk, and matches its recorded SHA-256; one that cannot be read is not."""
    path = run.root / shard.path
    try:
        return path.stat().st_size == shard.bytes and sha256_of(path) == shard.sha256
    except OSError:
        return False


def prompt_rows(benchmark: str, prompts: Iterable[Prompt]) -> list[dict[str, object]]:
    """Return the rows of a benchmark's prompts.

    Args:
        benchmark: The benchmark with its settings, as people write it: `str(use)`.
        prompts: Its prompts, in order.
    """
    return [
        {
            "benchmark": benchmark,
            "prompt_id": prompt.prompt_id,
            "position": position,
            "category": prompt.category,
            "cluster": prompt.cluster or prompt.prompt_id,
            "text_sha256": text_sha256(text := _as_read(prompt.turns)),
            "text": text,
            "behavior": prompt.behavior,
            "context": prompt.context,
            "gold_answers": list(prompt.references),
        }
        for position, prompt in enumerate(prompts)
    ]


def _as_read(turns: Sequence[Turn]) -> str:
    """Return a conversation as people read it: a single turn's text, or every turn behind the name of who speaks."""
    texts = [
        "\n".join([*(f"[image {image.sha256}]" for image in turn.images), *([turn.text] if turn.text else [])])
        for turn in turns
    ]
    if len(turns) == 1:
        return texts[0]
    return "\n\n".join(f"{turn.role}: {text}" for turn, text in zip(turns, texts, strict=True))


def response_rows(stage_key: str, responses: Iterable[Response]) -> list[dict[str, object]]:
    """Return the rows of a generate or screen stage."""
    return [
        {**asdict(response), "stage_key": stage_key, "text_sha256": text_sha256(response.text)}
        for response in responses
    ]


def verdict_rows(stage_key: str, responses: Sequence[Response], verdicts: Sequence[Verdict]) -> list[dict[str, object]]:
    """Return the rows of a judge stage: `verdicts[i]` is of `responses[i]`."""
    return [
        {"stage_key": stage_key, "prompt_id": response.prompt_id, "sample": response.sample, **asdict(verdict)}
        for response, verdict in zip(responses, verdicts, strict=True)
    ]


def training_rows(
    stage_key: str, steps: Iterable[TrainingStep], cut_rows: int | None = None
) -> list[dict[str, object]]:
    """Return the rows of a tune stage's loss curve, each with how many rows of the sample were cut."""
    return [{"stage_key": stage_key, "cut_rows": cut_rows, **asdict(step)} for step in steps]


def sample_rows(stage_key: str, rows: Iterable[tuple[str, str, str | None]]) -> list[dict[str, object]]:
    """Return the names of the rows that a sample or rows stage left.

    Args:
        stage_key: The stage.
        rows: (source, row id, the source's pin) of each, in order; no pin for a row that a mitigation wrote or changed.
    """
    return [
        {"stage_key": stage_key, "position": position, "source": source, "row_id": row_id, "pin": pin}
        for position, (source, row_id, pin) in enumerate(rows)
    ]


def chat_row_rows(stage_key: str, rows: Iterable[tuple[str, ChatRow]]) -> list[dict[str, object]]:
    """Return the whole rows that a rows stage left, which are in no file of the user's; they are never published.

    Args:
        stage_key: The stage.
        rows: (source, row) of each, in order.
    """
    return [
        {
            "stage_key": stage_key,
            "position": position,
            "source": source,
            "row_id": row.row_id,
            "turns": json.dumps([asdict(turn) for turn in row.turns], ensure_ascii=False),
            "rejected": row.rejected,
            "category": row.category,
        }
        for position, (source, row) in enumerate(rows)
    ]


def read_chat_rows(run: RunDirectory, shard: ShardRef, stage_key: str) -> list[tuple[str, ChatRow]]:
    """Read the (source, row) pairs that a rows stage left, in order; the inverse of `chat_row_rows`.

    Raises:
        StoreError: The file is missing, or does not match its recorded SHA-256.
    """
    found = sorted(read_rows(run, shard, stage_key), key=lambda row: row["position"])
    return [  # older shards have no categories
        (row["source"], ChatRow(row["row_id"], _turns(row["turns"]), row["rejected"], row.get("category", "")))
        for row in found
    ]


def _turns(text: str) -> tuple[Turn, ...]:
    found = json.loads(text)
    return tuple(Turn(**turn | {"images": tuple(Image(**image) for image in turn["images"])}) for turn in found)


def text_sha256(text: str) -> str:
    """Return the SHA-256 of a text in UTF-8, in hex; it stands in for the text where the text is sealed."""
    return hashlib.sha256(text.encode()).hexdigest()


def sweep_orphans(run: RunDirectory, known: frozenset[str]) -> int:
    """Delete files of shards that were never acknowledged (a killed run leaves some), temporary ones too.

    Args:
        run: The run directory; nobody writes shards into it meanwhile.
        known: Paths of the acknowledged shards, relative to the run directory.

    Returns:
        How many there were.

    Raises:
        StoreError: One cannot be deleted.
    """
    with mapped("a stray file cannot be deleted", run.shards):
        ours = [path for table in SCHEMAS for path in (run.shards / table).glob("*.parquet*")]
        orphans = [path for path in ours if path.is_file() and str(path.relative_to(run.root)) not in known]
        for path in orphans:
            path.unlink()
    return len(orphans)
