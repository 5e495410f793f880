"""Parquet shards: a worker writes its rows once into a file of its own, and hands back only a reference."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.domain.conversation import Prompt
from engine.domain.results import Response, ShardRef, TrainingStep, Verdict
from engine.store.layout import RunDirectory, sha256_of, write_whole

_TEXT = pa.string()

SCHEMAS: Mapping[str, pa.Schema] = MappingProxyType(
    {
        "prompts": pa.schema(
            [
                ("benchmark", _TEXT),
                ("prompt_id", _TEXT),
                ("position", pa.int32()),
                ("category", _TEXT),
                ("cluster", _TEXT),
                ("text_sha256", _TEXT),
                ("text", _TEXT),
                ("reference", _TEXT),
            ]
        ),
        "responses": pa.schema(
            [
                ("stage_key", _TEXT),
                ("prompt_id", _TEXT),
                ("sample", pa.int32()),
                ("finish", _TEXT),
                ("prompt_tokens", pa.int32()),
                ("generated_tokens", pa.int32()),
                ("text_sha256", _TEXT),
                ("text", _TEXT),
            ]
        ),
        "verdicts": pa.schema(
            [
                ("stage_key", _TEXT),
                ("prompt_id", _TEXT),
                ("sample", pa.int32()),
                ("outcome", _TEXT),
                ("score", pa.float64()),
                ("reason", _TEXT),
            ]
        ),
        "training": pa.schema(
            [
                ("stage_key", _TEXT),
                ("step", pa.int32()),
                ("epoch", pa.float64()),
                ("loss", pa.float64()),
                ("lr", pa.float64()),
            ]
        ),
        "samples": pa.schema(
            [("stage_key", _TEXT), ("position", pa.int32()), ("source", _TEXT), ("row_id", _TEXT), ("pin", _TEXT)]
        ),
        "rows": pa.schema(
            [
                ("stage_key", _TEXT),
                ("position", pa.int32()),
                ("source", _TEXT),
                ("row_id", _TEXT),
                ("turns", _TEXT),
                ("rejected", _TEXT),
            ]
        ),
    }
)
"""The columns of every shard; those that tables.sql lacks (text, reference, reason, ...) stay in the shards."""


def write_shard(run: RunDirectory, table: str, name: str, rows: Sequence[Mapping[str, object]]) -> ShardRef:
    """Write `rows` as one new Parquet file and return the reference to it.

    Args:
        run: The run directory.
        table: One of `SCHEMAS`.
        name: The file's name begins so: the first of the stages (or the benchmark) that the rows come from.
        rows: The rows, with exactly the columns of the schema.
    """
    path = run.shards / table / f"{name}-{uuid.uuid4().hex[:8]}.parquet"
    data = pa.Table.from_pylist(list(rows), schema=SCHEMAS[table])
    write_whole(path, lambda temporary: pq.write_table(data, temporary, compression="zstd"))
    return ShardRef(table, str(path.relative_to(run.root)), sha256_of(path), data.num_rows, path.stat().st_size)


def read_rows(run: RunDirectory, shard: ShardRef, stage_key: str) -> list[dict[str, object]]:
    """Read one stage's rows back."""
    table = _table(run.root / shard.path)
    rows: list[dict[str, object]] = table.filter(pc.equal(table["stage_key"], stage_key)).to_pylist()
    return rows


@lru_cache(maxsize=4)
def _table(path: Path) -> pa.Table:
    """Read a file once for the stages of a bundle: nobody ever changes it."""
    return pq.read_table(path, use_threads=False)


def is_whole(run: RunDirectory, shard: ShardRef) -> bool:
    """Tell whether a shard is on disk, byte for byte as it was acknowledged."""
    path = run.root / shard.path
    return path.is_file() and path.stat().st_size == shard.bytes and sha256_of(path) == shard.sha256


def prompt_rows(benchmark: str, prompts: Iterable[Prompt]) -> list[dict[str, object]]:
    """Return the rows of a benchmark's prompts."""
    return [
        {
            "benchmark": benchmark,
            "prompt_id": prompt.prompt_id,
            "position": position,
            "category": prompt.category,
            "cluster": prompt.cluster or prompt.prompt_id,
            "text_sha256": text_sha256(prompt.text),
            "text": prompt.text,
            "reference": prompt.reference,
        }
        for position, prompt in enumerate(prompts)
    ]


def response_rows(stage_key: str, responses: Iterable[Response]) -> list[dict[str, object]]:
    """Return the rows of a generate stage."""
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


def training_rows(stage_key: str, steps: Iterable[TrainingStep]) -> list[dict[str, object]]:
    """Return the rows of a tune stage's loss curve."""
    return [{"stage_key": stage_key, **asdict(step)} for step in steps]


def sample_rows(stage_key: str, rows: Iterable[tuple[str, str, str]]) -> list[dict[str, object]]:
    """Return the rows of a sample stage from its (source, row id, the source's pin) triples, in order."""
    return [
        {"stage_key": stage_key, "position": position, "source": source, "row_id": row_id, "pin": pin}
        for position, (source, row_id, pin) in enumerate(rows)
    ]


def text_sha256(text: str) -> str:
    """Return the SHA-256 of a text in UTF-8, in hex; it stands in for the text where the text is sealed."""
    return hashlib.sha256(text.encode()).hexdigest()


def sweep_orphans(run: RunDirectory, known: frozenset[str]) -> int:
    """Delete shard files that were never acknowledged (a killed run leaves some) and return how many there were."""
    ours = [path for table in SCHEMAS for path in (run.shards / table).glob("*.parquet*")]
    orphans = [path for path in ours if path.is_file() and not _is_known(run.root, path, known)]
    for path in orphans:
        path.unlink()
    return len(orphans)


def _is_known(root: Path, path: Path, known: frozenset[str]) -> bool:
    return str(path.relative_to(root)) in known
