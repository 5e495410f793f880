"""The sealed texts: prompts, responses and judges' reasons, which the published file leaves out.

They lie in the run directory's shards. Here they are joined back, for one connection, before it is locked down.
A row counts only if the published file knows it: of two attempts' rows, the one whose hash or score was published.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb

from engine.domain.errors import StoreError
from engine.store.errors import AGAIN, mapped

if TYPE_CHECKING:
    from pathlib import Path

_PROMPTS = """
CREATE TEMP TABLE _prompt_texts AS
SELECT f.benchmark, f.prompt_id, f.text, f.behavior, f.context, f.gold_answers
FROM read_parquet($files, union_by_name = true) f
JOIN prompts p ON p.benchmark = f.benchmark AND p.prompt_id = f.prompt_id
QUALIFY row_number() OVER (
    PARTITION BY f.benchmark, f.prompt_id ORDER BY (sha256(f.text) = p.text_sha256) DESC) = 1
"""

_ANSWERS = """
CREATE TEMP TABLE {name} AS
SELECT f.stage_key, f.prompt_id, f.sample, {texts}
FROM {files} f
SEMI JOIN stages s ON s.stage_key = f.stage_key AND s.state = 'done'
JOIN {table} p ON p.stage_key = f.stage_key AND p.prompt_id = f.prompt_id AND p.sample = f.sample
QUALIFY row_number() OVER (PARTITION BY f.stage_key, f.prompt_id, f.sample ORDER BY ({published}) DESC) = 1
"""
_RESPONSES = _ANSWERS.format(
    name="_response_texts",
    texts="f.text, f.thoughts",
    files="(FROM read_parquet($files, union_by_name = true) UNION ALL BY NAME SELECT '' AS thoughts WHERE false)",  # earlier releases had none
    table="responses",
    published="sha256(f.text) = p.text_sha256",
)
_REASONS = _ANSWERS.format(
    name="_verdict_reasons",
    texts="f.reason",
    files="read_parquet($files, union_by_name = true)",
    table="verdicts",
    published="f.outcome = p.outcome AND f.score IS NOT DISTINCT FROM p.score",
)

_VIEWS = """
CREATE TEMP VIEW v_responses AS
SELECT c.cell_id, c.label, e.role, e.benchmark, r.prompt_id, p.category, p.cluster, r.sample,
    pt.text AS prompt, pt.behavior, pt.context, pt.gold_answers, rt.text AS response,
    coalesce(rt.thoughts, '') AS thoughts, r.finish, r.prompt_tokens,
    r.generated_tokens
FROM results.evaluations e JOIN results.cells c USING (cell_id)
JOIN results.responses r ON r.stage_key = e.responses_key
JOIN _response_texts rt ON rt.stage_key = r.stage_key AND rt.prompt_id = r.prompt_id AND rt.sample = r.sample
LEFT JOIN results.prompts p ON p.benchmark = e.benchmark AND p.prompt_id = r.prompt_id
LEFT JOIN _prompt_texts pt ON pt.benchmark = e.benchmark AND pt.prompt_id = r.prompt_id;

CREATE TEMP VIEW v_verdicts AS
SELECT s.cell_id, s.label, s.role, s.benchmark, s.judge, s.measures, s.prompt_id, s.category, s.sample,
    s.outcome, s.score, vr.reason
FROM results.v_scores s LEFT JOIN _verdict_reasons vr
    ON vr.stage_key = s.judge_key AND vr.prompt_id = s.prompt_id AND vr.sample = s.sample;
"""

_LOADS = (("prompts", _PROMPTS), ("responses", _RESPONSES), ("verdicts", _REASONS))


def load_sealed(connection: duckdb.DuckDBPyConnection, run_dir: Path) -> None:
    """Make the views `v_responses` and `v_verdicts` on a connection whose results are attached as `results`.

    Args:
        connection: Not locked down yet, with `results` in use.
        run_dir: The run directory, whose `shards/` are read.

    Raises:
        StoreError: A folder of shards has no file, or a shard is not readable Parquet.
    """
    for table, statement in _LOADS:
        with mapped("the sealed texts cannot be read", run_dir / "shards" / table, duckdb.Error, todo=AGAIN):
            connection.execute(statement, {"files": _shards(run_dir, table)})
    connection.execute(_VIEWS)


def _shards(run_dir: Path, table: str) -> list[str]:
    """List a table's shards: regular files inside the run directory only."""
    folder = (run_dir / "shards" / table).resolve()
    files = [str(path) for path in sorted(folder.glob("*.parquet")) if path.is_file() and not path.is_symlink()]
    if not files or not folder.is_relative_to(run_dir.resolve()):
        raise StoreError(
            "the sealed texts are not in this run directory",
            where=str(run_dir / "shards" / table),
            todo="Ask without the texts, or copy the run's `shards/` beside its `results.duckdb`.",
        )
    return files
