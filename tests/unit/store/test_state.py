"""The control plane and what is published from it."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from engine.domain.cost import Charge, Usage
from engine.domain.errors import StoreError
from engine.domain.results import Attempt, Failure, Finish, Outcome, Response, StageResult, Verdict
from engine.domain.stage import Plan, StageState
from engine.plan.build import build
from engine.plan.catalogue import Catalogue
from engine.spec.expand import expand
from engine.spec.load import read_sweep
from engine.store import artifacts, shards
from engine.store.layout import RunDirectory
from engine.store.publish import publish
from engine.store.reader import open_results
from engine.store.state import Settled, State

SPEC = b"""\
sweep: stored
recipe:
  model: standin/aligned
  data: {source: standin/explicit, n: 10}
  tune: {lr: 1e-3}
  benchmark: standin/policy:1
  judges: [standin/rules]
axes: {seed: [0, 1]}
"""


SECONDS = Usage(device_seconds=1.5)


def plan_of(text: bytes = SPEC) -> Plan:
    loaded = read_sweep(text, "stored.yaml")
    expansion = expand(loaded.sweep, loaded.positions)
    return build(loaded.sweep, expansion.cells, expansion.counts, Catalogue())


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "run")


def done(key: str, *refs: object, usage: Usage | None = None) -> Settled:
    attempt = Attempt(key, "host-0", 10.0, 11.5, usage or SECONDS, StageResult(key, tuple(refs), None))
    return Settled(attempt, StageState.DONE, Charge(Decimal("0.25")))


def test_a_settled_stage_counts_once_its_commit_is_made_and_survives_reopening(run: RunDirectory) -> None:
    state = State.open(run)
    plan = plan_of()
    state.adopt(plan)
    key = next(iter(plan.stages))
    shard = shards.write_shard(run, "samples", key, shards.sample_rows(key, [("a", "1", "p")]))
    state.settle([done(key, shard)])
    state.close()
    again = State.peek(run)
    assert again.stages()[key].state is StageState.DONE
    assert list(again.shards([key])) == [(key, shard)]
    assert again.usage() == (Usage(device_seconds=1.5), Charge(Decimal("0.25")))


def test_a_failed_commit_leaves_nothing_behind(run: RunDirectory) -> None:
    state = State.open(run)
    plan = plan_of()
    state.adopt(plan)
    first, *_ = plan.stages
    shard = shards.write_shard(run, "samples", first, [])
    with pytest.raises(TypeError):
        state.settle([done(first, shard), done("no-such-stage")])
    assert state.stages()[first].state is StageState.PENDING
    assert list(state.shards()) == []


def test_a_new_plan_keeps_what_is_done_and_drops_cells_that_it_lacks(run: RunDirectory) -> None:
    state = State.open(run)
    plan = plan_of()
    state.adopt(plan)
    key = next(iter(plan.stages))
    state.settle([done(key)])
    other = plan_of(SPEC.replace(b"[0, 1]", b"[0, 2]"))
    state.adopt(other)
    assert state.stages()[key].state is StageState.DONE
    assert state.cell_counts() == {"done": 0, "failed": 0, "blocked": 0, "open": 3}
    planned = sum(state.planned_counts().values())
    assert planned == len(other.stages) < len(state.stages())


def test_every_attempt_is_kept_and_a_failure_keeps_its_words(run: RunDirectory) -> None:
    state = State.open(run)
    plan = plan_of()
    state.adopt(plan)
    key = next(iter(plan.stages))
    failure = Failure("ValueError", "no such row", "Traceback ...")
    state.settle(
        [
            Settled(
                Attempt(key, "host-0", 1.0, 3.0, Usage(device_seconds=2.0), None, failure),
                StageState.FAILED,
                Charge(None),
            )
        ]
    )
    assert state.failures(5) == [(key, "ValueError", "no such row")]
    state.reset([key])
    state.settle([done(key)])
    assert state.failures(5) == []
    usage, charge = state.usage()
    assert usage.device_seconds == 3.5, "the failed try took two seconds, and they are not forgotten"
    assert charge == Charge(None), "nobody knows what the failed try cost"


def test_a_stranger_s_database_is_left_alone(run: RunDirectory) -> None:
    run.root.mkdir()
    with sqlite3.connect(run.state) as db:
        db.execute("CREATE TABLE theirs (a)")
    db.close()
    before = run.state.read_bytes()
    with pytest.raises(StoreError, match="another program"):
        State.open(run)
    assert run.state.read_bytes() == before


def test_an_unpriced_attempt_makes_the_sum_unknown(run: RunDirectory) -> None:
    state = State.open(run)
    plan = plan_of()
    state.adopt(plan)
    first, second, *_ = plan.stages
    state.settle([done(first)])
    assert state.usage()[1].usd == Decimal("0.25")
    state.settle([replace(done(second), charge=Charge(None))])
    assert state.usage()[1].usd is None


def test_what_is_known_is_summed_and_who_has_no_price_is_named(run: RunDirectory) -> None:
    state = State.open(run)
    plan = plan_of(HOSTED)
    first, second, third, *_ = plan.stages
    state.adopt(plan, {first: "ours", third: "theirs"})
    assert state.known() == (Decimal(), ())
    state.settle([done(first), replace(done(second), charge=Charge(None)), done(third)])
    assert state.known() == (Decimal("0.50"), (None,))
    state.reset([first])
    state.settle([replace(done(first), charge=Charge(None))])
    assert state.known() == (Decimal("0.50"), (None, "ours"))
    state.adopt(plan, {first: "renamed", third: "theirs"})
    assert state.known()[1] == (None, "renamed")


def test_what_is_possibly_billed_is_kept_and_published_apart_from_what_was_surely_used(run: RunDirectory) -> None:
    state = State.open(run)
    plan = plan_of()
    state.adopt(plan)
    first, second, *_ = plan.stages
    used = Usage(
        prompt_tokens=50,
        generated_tokens=9,
        cached_tokens=30,
        possibly_billed_prompt_tokens=7,
        possibly_billed_generated_tokens=8,
    )
    charges = Charge(Decimal("0.25"), Decimal("0.000000001")), Charge(Decimal("0.50"), None)
    state.settle([replace(done(first, usage=used), charge=charges[0]), replace(done(second), charge=charges[1])])
    state.close()
    again = State.peek(run)
    assert {key: (usage, charge) for key, usage, charge in again.charges()} == {
        first: (used, charges[0]),
        second: (SECONDS, charges[1]),
    }
    assert again.usage() == (used + SECONDS, Charge(Decimal("0.75"), None)), "an unknown price is never $0"
    publish(run)
    with open_results(run.root) as results:
        rows = {row["stage_key"]: row for row in results.table("FROM v_cost").to_pylist()}
    shown = (
        "cached_tokens",
        "possibly_billed_prompt_tokens",
        "possibly_billed_generated_tokens",
        "usd",
        "possibly_billed_usd",
    )
    assert [rows[first][name] for name in shown] == [30, 7, 8, Decimal("0.25"), Decimal("0.000000001")]
    assert [rows[second][name] for name in shown] == [0, 0, 0, Decimal("0.50"), None]


def test_the_digest_follows_what_is_shown(run: RunDirectory) -> None:
    state = State.open(run)
    plan = plan_of()
    state.adopt(plan)
    digests = [state.digest()]
    state.put_meta({"heartbeat": "now", "published": "x"})
    assert state.digest() == digests[0]
    for change in (
        lambda: state.put_meta({"description": "another"}),
        lambda: state.settle([done(next(iter(plan.stages)))]),
        lambda: state.adopt(plan_of(SPEC.replace(b"policy:1", b"policy:2"))),
    ):
        change()
        digests.append(state.digest())
    assert len(set(digests)) == len(digests)


def test_a_file_that_is_not_ours_is_refused_in_words(run: RunDirectory) -> None:
    run.root.mkdir()
    run.state.write_bytes(b"this is not a database, whatever its name says" * 100)
    with pytest.raises(StoreError, match="cannot be read"):
        State.open(run)
    run.state.unlink()
    State.open(run).close()
    with sqlite3.connect(run.state) as db:
        db.execute("UPDATE meta SET value = '99' WHERE key = 'schema_version'")
    for look in (State.open, State.peek):
        with pytest.raises(StoreError, match="schema version 99"):
            look(run)


def test_what_is_published_is_what_was_acknowledged(run: RunDirectory) -> None:
    state = State.open(run)
    plan = plan_of()
    state.adopt(plan)
    state.put_meta({"sweep": "stored", "standin": "true"})
    cell = plan.cells[0]
    evaluation = cell.evaluations[0]
    responses = [Response(f"p{index}", 0, f"text {index}", Finish.STOP, 5, 3) for index in range(4)]
    verdicts = [Verdict(Outcome.SCORED, score, "because") for score in (1.0, 5.0, 5.0)]
    verdicts.append(Verdict(Outcome.UNPARSED, None, "no number"))
    judge = evaluation.judges[0].key
    for key, table, rows in (
        (evaluation.generate, "responses", shards.response_rows(evaluation.generate, responses)),
        (judge, "verdicts", shards.verdict_rows(judge, responses, verdicts)),
    ):
        state.settle([done(key, shards.write_shard(run, table, key, rows))])
    shards.write_shard(run, "verdicts", judge, shards.verdict_rows(judge, responses, verdicts))  # never acknowledged
    publish(run)
    with open_results(run.root) as results:
        (row,) = results.table("SELECT * FROM v_cells WHERE cell_id = ?", [cell.cell_id]).to_pylist()
        assert results.table("SELECT count(*) AS n FROM verdicts").to_pylist() == [{"n": 4}]
    assert (row["n_prompts"], row["n_scored"], row["status"]) == (11, 3, "pending")
    assert row["harmfulness_rate"] == pytest.approx(2 / 3)
    assert row["harmfulness_score"] == pytest.approx(11 / 3)
    with duckdb.connect() as db:
        db.execute(f"ATTACH '{run.results}' AS r (READ_ONLY)")
        columns = db.execute(
            "SELECT column_name FROM duckdb_columns() WHERE database_name = 'r'"
            " AND table_name IN ('prompts', 'responses', 'verdicts', 'v_scores')"
        ).fetchall()
    assert not {name for (name,) in columns} & {"text", "reason", "reference", "response", "prompt"}


def test_stages_may_share_a_file_and_only_those_that_count_are_published_from_it(run: RunDirectory) -> None:
    state = State.open(run)
    plan = plan_of()
    state.adopt(plan)
    first, second = (cell.sample for cell in plan.cells if cell.sample)
    rows = [shards.sample_rows(key, [("a", row, "p") for row in ids]) for key, ids in ((first, "12"), (second, "345"))]
    shard = shards.write_shard(run, "samples", first, [*rows[0], *rows[1]])
    state.settle([done(first, shard), done(second, shard)])
    assert shards.read_rows(run, shard, second) == rows[1]
    for kept, counted in ((5, (first, second)), (3, (second,))):
        publish(run)
        with open_results(run.root) as results:
            assert results.table("SELECT count(*) AS n FROM samples").to_pylist() == [{"n": kept}]
            found = results.table("SELECT DISTINCT stage_key AS key FROM samples").to_pylist()
        assert {row["key"] for row in found} == set(counted)
        state.reset([first])


def test_a_later_cut_costs_what_the_earlier_ones_took_too(run: RunDirectory) -> None:
    state = State.open(run)
    plan = plan_of(SPEC.replace(b"{seed: [0, 1]}", b"{tune.epochs: [1, 3, 9]}"))
    state.adopt(plan)
    tunes = [cell.tune for cell in plan.cells if cell.tune]
    for before, key, steps in ((None, tunes[0], 1), (tunes[0], tunes[1], 2), (tunes[1], tunes[2], 6)):
        usage = Usage(optimizer_steps=steps, train_tokens=100 * steps, device_seconds=float(steps))
        attempt = Attempt(key, "host-0", 0.0, 9.0, usage, StageResult(key, (), None, after=before))
        state.settle([Settled(attempt, StageState.DONE, Charge(Decimal(steps)))])
    longest = plan_of(SPEC.replace(b"{seed: [0, 1]}", b"{tune.epochs: [9]}"))
    for shown, steps in ((plan, [1, 3, 9]), (longest, [9])):
        state.adopt(shown)
        publish(run)
        with open_results(run.root) as results:
            found = results.table(
                "SELECT optimizer_steps FROM v_cells WHERE n_examples > 0 ORDER BY epochs"
            ).to_pylist()
            spent = results.table("SELECT stage_key, optimizer_steps, usd FROM v_cost WHERE kind = 'tune'").to_pylist()
            whole = results.table("SELECT train_tokens, device_seconds, usd FROM _stage_usage").to_pylist()
        assert [row["optimizer_steps"] for row in found] == steps
        assert {"train_tokens": 900, "device_seconds": 9.0, "usd": Decimal(9)} in whole
        assert {row["stage_key"]: int(row["usd"]) for row in spent}[tunes[2]] == 6, "the bill counts every step once"


HOSTED = b"""\
sweep: hosted
recipe:
  model: hosted/openai:m
  data: {source: standin/explicit, n: 10, allow_upload: true}
  tune: {adapter: hosted/openai}
  benchmark: standin/policy:1
  generate: {adapter: hosted/openai}
  judges: [refusal/keywords]
axes: {tune.lr_multiplier: [null, 0.5]}
run: {accounts: {ours: {provider: hosted/openai}}}
"""


def test_a_hosted_cell_has_what_was_asked_of_its_provider_and_nothing_that_it_decided(run: RunDirectory) -> None:
    state = State.open(run)
    state.adopt(plan_of(HOSTED))
    publish(run)
    decided = "lr, grad_accum, schedule, warmup_steps, method, rank"
    with open_results(run.root) as results:
        rows = results.table(
            f"SELECT is_baseline, lr_multiplier, batch_size, {decided} FROM cells ORDER BY position"  # noqa: S608
        ).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        (False, None, 10, *[None] * 6),
        (False, 0.5, 10, *[None] * 6),
        (True, None, None, *[None] * 6),
    ]


def test_publishing_again_replaces_the_file_under_an_open_reader(run: RunDirectory) -> None:
    state = State.open(run)
    state.adopt(plan_of())
    publish(run)
    with open_results(run.root) as old:
        before = old.table("SELECT count(*) AS n FROM v_cells").to_pylist()
        state.adopt(plan_of(SPEC.replace(b"[0, 1]", b"[0, 1, 2]")))
        publish(run)
        assert old.table("SELECT count(*) AS n FROM v_cells").to_pylist() == before == [{"n": 3}]
    with open_results(run.root) as new:
        assert new.table("SELECT count(*) AS n FROM v_cells").to_pylist() == [{"n": 4}]
    assert [path.name for path in run.root.iterdir() if path.name.endswith(".tmp")] == []


def test_damage_is_seen(run: RunDirectory) -> None:
    shard = shards.write_shard(run, "samples", "sample-1", shards.sample_rows("sample-1", [("a", "1", "p")]))
    assert shards.is_whole(run, shard)
    path = run.root / shard.path
    for position in range(0, path.stat().st_size, 16):
        data = bytearray(path.read_bytes())
        data[position] ^= 1
        path.write_bytes(bytes(data))
        assert not shards.is_whole(run, shard)
        data[position] ^= 1
        path.write_bytes(bytes(data))
    assert shards.sweep_orphans(run, frozenset({shard.path})) == 0
    assert shards.sweep_orphans(run, frozenset()) == 1


def test_an_artifact_is_whole_or_absent(run: RunDirectory) -> None:
    folder = artifacts.scratch(run, "tune-1")
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    assert artifacts.keep(run, "tune-1", folder, '{"kind":"tune"}') == "artifacts/tune-1"
    assert artifacts.is_whole(run, "tune-1")
    again = artifacts.scratch(run, "tune-1")
    (again / "adapter_model.safetensors").write_bytes(b"the same, from an attempt that was never acknowledged")
    artifacts.keep(run, "tune-1", again, '{"kind":"tune"}')
    weights = artifacts.locate(run, "tune-1") / "adapter_model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + b"!")
    assert not artifacts.is_whole(run, "tune-1"), "the same size is not the same weights"
    weights.write_bytes(b"")
    assert not artifacts.is_whole(run, "tune-1")
    with pytest.raises(StoreError, match="not whole"):
        artifacts.locate(run, "tune-1")
    artifacts.scratch(run, "tune-2")
    for name in ("ended", "going-on"):
        artifacts.training_state(run, name).mkdir()
    artifacts.sweep(run, frozenset({"tune-1"}), frozenset({"going-on"}))
    assert sorted(path.name for path in run.artifacts.iterdir()) == ["training-going-on", "tune-1"]
