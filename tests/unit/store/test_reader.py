"""The reader answers questions and can do nothing else."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import pytest

from engine.domain.errors import QueryError, StoreError
from engine.store.reader import open_results

REFUSED = [
    "COPY v_cells TO 'out.csv'",
    "COPY (SELECT 1) TO 'out.csv'",
    "EXPORT DATABASE 'out'",
    "ATTACH 'other.duckdb'",
    "DETACH results",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET threads = 8",
    "RESET memory_limit",
    "PRAGMA threads = 8",
    "PRAGMA enable_profiling",
    "USE memory",
    "INSERT INTO meta VALUES ('a', 'b')",
    "UPDATE meta SET value = 'x'",
    "DELETE FROM meta",
    "DROP VIEW v_cells",
    "CREATE TABLE x AS SELECT 1",
    "CREATE TEMP TABLE x AS SELECT 1",
    "CALL pragma_version()",
    "BEGIN",
    "CHECKPOINT",
    "VACUUM",
    "PREPARE p AS SELECT 1",
    "PIVOT v_cells ON status",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP VIEW v_cells",
    "SELECT * FROM read_text('/etc/hostname')",
    "SELECT * FROM read_csv('/etc/hostname')",
    "SELECT * FROM glob('/*')",
    "FROM '/etc/hostname'",
    "FROM 'http://127.0.0.1:1/x.csv'",
    "SELECT getenv('HOME')",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO 'out.csv'",
    "EXPLAIN ANALYZE INSERT INTO results.meta VALUES ('a', 'b')",
    "",
    "-- only a comment",
    "SELEC 1",
]
ANSWERED = [
    "SELECT 1",
    "FROM v_cells",
    "WITH a AS (SELECT 1) SELECT * FROM a",
    "VALUES (1)",
    "DESCRIBE v_cells",
    "SUMMARIZE v_cells",
    "SHOW TABLES",
    "EXPLAIN FROM v_cells",
    "PRAGMA table_info('v_cells')",
    "SELECT 1;",
    "SELECT 1 AS a, 2 AS a",
    "SELECT * FROM (SELECT status, seed FROM v_cells) PIVOT (count(*) FOR seed IN (0, 1))",
]


@pytest.mark.parametrize("sql", REFUSED)
def test_refuses(small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: str) -> None:
    monkeypatch.chdir(tmp_path)
    with open_results(small_run) as results, pytest.raises(QueryError) as caught:
        results.table(sql)
    assert caught.value.what
    assert "\n" not in caught.value.what
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sql", ANSWERED)
def test_answers(small_run: Path, sql: str) -> None:
    with open_results(small_run) as results:
        assert results.table(sql).num_columns >= 1


def test_no_python_variable_is_seen(small_run: Path) -> None:
    import pyarrow as pa

    secret = pa.table({"a": [1]})
    with open_results(small_run) as results:
        for name in ("secret", "sql", "parameters"):
            with pytest.raises(QueryError):
                results.table(f"FROM {name}")
    assert secret.num_rows == 1


def test_parameters(small_run: Path) -> None:
    with open_results(small_run) as results:
        assert results.table("SELECT count(*) AS n FROM v_cells WHERE seed = ?", [1]).to_pylist() == [{"n": 8}]
        assert results.table("SELECT $a + 1 AS n", {"a": 1}).to_pylist() == [{"n": 2}]


def test_a_near_miss_is_suggested(small_run: Path) -> None:
    with open_results(small_run) as results:
        with pytest.raises(QueryError, match="v_cells") as table:
            results.table("FROM v_cell")
        with pytest.raises(QueryError, match="harmfulness_rate") as column:
            results.table("SELECT harmfullness_rate FROM v_cells")
    assert "views.md" in table.value.todo
    assert "views.md" in column.value.todo
    assert len(str(table.value).splitlines()) == 3


def test_a_long_query_is_stopped_and_the_connection_lives_on(small_run: Path) -> None:
    with open_results(small_run, timeout_s=0.3) as results:
        start = time.monotonic()
        with pytest.raises(QueryError, match=r"more than 0\.3 s"):
            results.table("SELECT sum(a.range * b.range) FROM range(100000000) a, range(100000000) b")
        assert time.monotonic() - start < 5
        assert results.table("SELECT 1 AS one").to_pylist() == [{"one": 1}]


def test_the_file_may_be_replaced_while_it_is_open(sweeps: Any, tmp_path: Path) -> None:
    run = sweeps.Study(sweep="old").write(tmp_path / "run")
    new = sweeps.Study(sweep="new").write(tmp_path / "next") / "results.duckdb"
    asked = "SELECT value FROM v_meta WHERE key = 'sweep'"
    with open_results(run) as old:
        os.replace(new, run / "results.duckdb")  # noqa: PTH105  # what publish does
        with open_results(run) as fresh:
            assert fresh.table(asked)["value"].to_pylist() == ["new"]
        assert old.table(asked)["value"].to_pylist() == ["old"]


def test_reading_leaves_nothing_behind(small_run: Path) -> None:
    before = sorted(path.name for path in small_run.iterdir())
    with open_results(small_run) as results:
        results.table("FROM v_cells ORDER BY label")
    assert sorted(path.name for path in small_run.iterdir()) == before


def test_a_quote_in_the_path_is_harmless(sweeps: Any, tmp_path: Path) -> None:
    run = sweeps.Study().write(tmp_path / "plain").rename(tmp_path / "it's; DROP")
    with open_results(run) as results:
        assert results.table("FROM v_cells").num_rows == 0


def test_a_missing_or_broken_file_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no published results"):
        open_results(tmp_path)
    (tmp_path / "results.duckdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreError, match="cannot be read"):
        open_results(tmp_path)


@pytest.fixture
def sealed_run(sweeps: Any, tmp_path: Path) -> Path:
    study = sweeps.Study()
    study.prompts("bench", {"A": ["p1", "p2"]})
    study.cell("c")
    study.evaluation("c", "harm", "bench", 2, "generate-c")
    study.stage("generate-c", "generate", ["c"])
    key = study.judgement("c", "harm", "rubric", 0, "harm")
    study.stage(key, "judge", ["c"])
    study.verdicts(key, {"p1": 5, "p2": 1})
    for prompt in ("p1", "p2"):
        text = hashlib.sha256(f"answer generate-c {prompt}".encode()).hexdigest()
        counts = {"prompt_tokens": 3, "generated_tokens": 4}
        values = {"stage_key": "generate-c", "prompt_id": prompt, "sample": 0, "finish": "stop", "text_sha256": text}
        study.add("responses", **values, **counts)
    run = study.write(tmp_path / "run")
    sweeps.write_sealed(study, run)
    return run


def test_texts_stay_sealed_unless_asked_for(sealed_run: Path) -> None:
    with open_results(sealed_run) as results, pytest.raises(QueryError):
        results.table("FROM v_responses")


def test_unsealed_texts_are_joined_back(sealed_run: Path) -> None:
    with open_results(sealed_run, unseal=True) as results:
        rows = results.table("FROM v_responses ORDER BY prompt_id").to_pylist()
        reasons = results.table("SELECT prompt_id, score, reason FROM v_verdicts ORDER BY prompt_id").to_pylist()
        with pytest.raises(QueryError):
            results.table("SELECT * FROM read_parquet('/x')")
    assert [(row["prompt"], row["response"]) for row in rows] == [
        ("prompt p1", "answer generate-c p1"),
        ("prompt p2", "answer generate-c p2"),
    ]
    assert reasons[0] == {"prompt_id": "p1", "score": 5.0, "reason": "because p1"}


def test_shards_of_an_abandoned_attempt_do_not_count(sealed_run: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = {"prompt_id": "p1", "sample": 0, "finish": "stop", "prompt_tokens": 1, "generated_tokens": 1}
    strays = [
        row | {"stage_key": "generate-c", "text": "torn"},
        row | {"stage_key": "generate-unknown", "text": "alien"},
    ]
    pq.write_table(pa.Table.from_pylist(strays), sealed_run / "shards" / "responses" / "1.parquet")
    with open_results(sealed_run, unseal=True) as results:
        texts = results.table("SELECT response FROM v_responses ORDER BY prompt_id")["response"].to_pylist()
    assert texts == ["answer generate-c p1", "answer generate-c p2"]


def test_missing_shards_are_a_store_error(small_run: Path) -> None:
    with pytest.raises(StoreError, match="sealed texts"):
        open_results(small_run, unseal=True)
