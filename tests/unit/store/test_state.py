"""The control plane: what counts, what a plan replaces, and what is published from it."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import duckdb
import pytest

from engine.domain.conversation import Image, Prompt, Turn
from engine.domain.cost import Charge, Usage
from engine.domain.errors import StoreError
from engine.domain.plan import Plan
from engine.domain.results import Attempt, Failure, Finish, Outcome, Response, StageResult, Verdict
from engine.domain.stage import StageKind, StageState
from engine.store import shards
from engine.store.layout import RunDirectory
from engine.store.publish import publish
from engine.store.reader import open_results
from engine.store.state import Settled, State

SECONDS = Usage(device_seconds=1.5)


@pytest.fixture
def plan(make: Any) -> Plan:
    return make.plan(make.recipe(), make.recipe(seed=1))


def test_a_settled_stage_counts_once_its_commit_is_made_and_survives_reopening(
    make: Any, plan: Plan, run: RunDirectory
) -> None:
    key = next(iter(plan.stages))
    with State.open(run) as state:
        state.adopt(plan)
        shard = shards.write_shard(run, "samples", key, shards.sample_rows(key, [("a", "1", "p")]))
        state.settle([make.done(key, shard)])
    with State.peek(run) as again:
        assert again.stages()[key].state is StageState.DONE
        assert list(again.shards([key])) == [(key, shard)]
        assert again.usage() == (SECONDS, Charge(Decimal("0.25")))
        assert again.payloads() == [plan.stages[key].payload]


def test_a_failed_commit_leaves_nothing_behind(make: Any, plan: Plan, run: RunDirectory) -> None:
    first, *_ = plan.stages
    with State.open(run) as state:
        state.adopt(plan)
        shard = shards.write_shard(run, "samples", first, [])
        with pytest.raises(TypeError):
            state.settle([make.done(first, shard), make.done("no-such-stage")])
        assert state.stages()[first].state is StageState.PENDING
        assert state.shards() == []


def test_a_new_plan_keeps_what_is_done_and_drops_cells_that_it_lacks(make: Any, plan: Plan, run: RunDirectory) -> None:
    key = next(iter(plan.stages))
    other = make.plan(make.recipe(), make.recipe(seed=2))
    with State.open(run) as state:
        state.adopt(plan)
        state.settle([make.done(key)])
        state.adopt(other)
        assert state.stages()[key].state is StageState.DONE
        assert state.cell_counts() == {"done": 0, "failed": 0, "blocked": 0, "open": 3}
        assert sum(state.planned_counts().values()) == len(other.stages) < len(state.stages())


def test_a_failure_is_kept_and_names_its_cell_and_adapter_until_the_stage_is_done(
    make: Any, plan: Plan, run: RunDirectory
) -> None:
    key = next(key for key, stage in plan.stages.items() if stage.kind is StageKind.TUNE)
    failure = Failure("ValueError", "no such row", "Traceback ...")
    attempt = Attempt(key, "worker-0", 1.0, 3.0, Usage(device_seconds=2.0), None, failure)
    with State.open(run) as state:
        state.adopt(plan)
        state.settle([Settled(attempt, StageState.FAILED, Charge(None))])
        (failed,) = state.failures(5)
        assert (failed.stage, failed.kind, failed.adapter) == (key, StageKind.TUNE, "local/sft")
        assert (failed.cell, failed.cells) == ("seed=0", 1)
        assert (failed.error_type, failed.error) == ("ValueError", "no such row")
        state.reset([key])
        state.settle([make.done(key)])
        assert state.failures(5) == []
        usage, charge = state.usage()
    assert usage.device_seconds == 3.5, "the failed try took two seconds, and they are not forgotten"
    assert charge == Charge(None), "nobody knows what the failed try cost"


def test_what_reads_responses_goes_back_with_them_at_any_remove(make: Any, run: RunDirectory) -> None:
    plan = make.plan(make.recipe(mitigations=(make.filter,)), baselines=False)
    (cell,) = plan.cells
    (evaluation,) = cell.evaluations
    with State.open(run) as state:
        state.adopt(plan)
        state.settle(make.done(key) for key in plan.stages)
        state.reset([evaluation.generate])
        pending = {key for key, stage in state.stages().items() if stage.state is StageState.PENDING}
    judges = {judge.key for judge in evaluation.judges}
    assert pending == {evaluation.generate, *evaluation.screening, *judges} == set(plan.stages) - set(cell.chain)


def test_an_unpriced_attempt_makes_the_sum_unknown(make: Any, plan: Plan, run: RunDirectory) -> None:
    first, second, *_ = plan.stages
    with State.open(run) as state:
        state.adopt(plan)
        state.settle([make.done(first)])
        assert state.usage()[1].usd == Decimal("0.25")
        state.settle([replace(make.done(second), charge=Charge(None))])
        assert state.usage()[1].usd is None


def test_what_is_known_is_summed_and_who_has_no_price_is_named(make: Any, plan: Plan, run: RunDirectory) -> None:
    first, second, third, *_ = plan.stages
    with State.open(run) as state:
        state.adopt(plan, {first: "ours", third: "theirs"})
        assert state.known() == (Decimal(), ())
        state.settle([make.done(first), replace(make.done(second), charge=Charge(None)), make.done(third)])
        assert state.known() == (Decimal("0.50"), (None,))
        state.reset([first])
        state.settle([replace(make.done(first), charge=Charge(None))])
        assert state.known() == (Decimal("0.50"), (None, "ours"))
        state.adopt(plan, {first: "renamed", third: "theirs"})
        assert state.known()[1] == (None, "renamed")


def test_what_is_possibly_billed_is_kept_and_published_apart_from_what_was_surely_used(
    make: Any, plan: Plan, run: RunDirectory
) -> None:
    first, second, *_ = plan.stages
    used = Usage(
        prompt_tokens=50,
        generated_tokens=9,
        cached_tokens=30,
        possibly_billed_prompt_tokens=7,
        possibly_billed_generated_tokens=8,
    )
    charges = Charge(Decimal("0.25"), Decimal("0.000000001")), Charge(Decimal("0.50"), None)
    with State.open(run) as state:
        state.adopt(plan)
        state.settle(
            [replace(make.done(first, usage=used), charge=charges[0]), replace(make.done(second), charge=charges[1])]
        )
    with State.peek(run) as again:
        assert {key: (usage, charge) for key, usage, charge in again.charges()} == {
            first: (used, charges[0]),
            second: (SECONDS, charges[1]),
        }
        assert again.usage() == (used + SECONDS, Charge(Decimal("0.75"), None)), "an unknown price is never $0"
    publish(run)
    with open_results(run.root) as results:
        rows = {row["stage_key"]: row for row in results.table("FROM v_cost").to_pylist()}
    shown = ("cached_tokens", "possibly_billed_prompt_tokens", "possibly_billed_generated_tokens", "usd")
    assert [rows[first][name] for name in shown] == [30, 7, 8, Decimal("0.25")]
    assert [rows[second][name] for name in shown] == [0, 0, 0, Decimal("0.50")]
    assert [rows[key]["possibly_billed_usd"] for key in (first, second)] == [Decimal("0.000000001"), None]


def test_the_digest_follows_what_is_shown(make: Any, plan: Plan, run: RunDirectory) -> None:
    with State.open(run) as state:
        state.adopt(plan)
        digests = [state.digest()]
        state.put_meta({"heartbeat": "now", "published": "x"})
        assert state.digest() == digests[0]
        for change in (
            lambda: state.put_meta({"description": "another"}),
            lambda: state.settle([make.done(next(iter(plan.stages)))]),
            lambda: state.adopt(make.plan(make.recipe(benchmark=make.use("file", path="x")))),
        ):
            change()
            digests.append(state.digest())
    assert len(set(digests)) == len(digests)


def test_a_plan_s_settings_mitigations_and_pairings_are_published(make: Any, run: RunDirectory) -> None:
    mitigated = make.recipe(mitigations=(make.use("scale", a=0.5), make.filter), tune=make.tune({"steps": 9}, lr=3e-4))
    plan = make.plan(mitigated, make.recipe(), make.hosted(lr_multiplier=2.0))
    with State.open(run) as state:
        state.adopt(plan)
    publish(run)
    with open_results(run.root) as results:
        cells = results.table("FROM v_cells ORDER BY position").to_pylist()
        settings = results.table(
            "SELECT path, adapter, number FROM v_settings WHERE cell_id = ? AND path LIKE 'mitigations.%'",
            [plan.cells[0].cell_id],
        ).to_pylist()
        chain = results.table(
            "SELECT stage_key FROM cell_stages WHERE cell_id = ? ORDER BY position", [plan.cells[0].cell_id]
        )["stage_key"].to_pylist()
        asked = results.table(
            "SELECT generate_key, responses_key FROM evaluations WHERE cell_id = ?", [plan.cells[0].cell_id]
        ).to_pylist()
        pairings = results.table("SELECT pairing, count(*) AS n FROM v_pairs GROUP BY 1 ORDER BY 1").to_pylist()
    first, plain, hosted, *added = cells
    assert first["mitigation"] == "scale(a=0.5)+output-filter(guard=guard/llama:dir:guard)"
    assert (first["steps"], first["epochs"], first["lr"], first["rank"]) == (9, None, 3e-4, 8)
    assert (plain["steps"], plain["epochs"], plain["mitigation"], plain["tuner"]) == (None, 5, "none", "local/sft")
    assert (hosted["model"], hosted["lr"], hosted["lr_multiplier"]) == ("hosted/openai@lab", None, 2.0)
    assert (hosted["method"], hosted["rank"], hosted["schedule"], hosted["batch_size"]) == (None,) * 4
    assert [row["origin"] for row in added] == ["baseline", "baseline", "unmitigated"]
    assert (first["baseline_cell_id"], first["unmitigated_cell_id"]) == (added[0]["cell_id"], added[2]["cell_id"])
    assert {row["path"]: (row["adapter"], row["number"]) for row in settings} == {
        "mitigations.scale.a": ("scale", 0.5),
        "mitigations.output-filter.guard": ("output-filter", None),
        "mitigations.output-filter.guard.model": ("guard/llama", None),
        "mitigations.output-filter.guard.threshold": ("guard/llama", 0.5),
        "mitigations.output-filter.refuse": ("output-filter", None),
    }
    (evaluation,) = plan.cells[0].evaluations
    assert chain == list(plan.cells[0].stages)
    assert asked == [{"generate_key": evaluation.generate, "responses_key": evaluation.screening[-1]}]
    assert pairings == [{"pairing": "starting_model", "n": 4}, {"pairing": "unmitigated", "n": 1}]


def test_what_is_published_is_what_was_acknowledged(make: Any, plan: Plan, run: RunDirectory) -> None:
    cell = plan.cells[0]
    evaluation = cell.evaluations[0]
    responses = [Response(f"p{index}", 0, f"text {index}", Finish.STOP, 5, 3) for index in range(4)]
    verdicts = [Verdict(Outcome.SCORED, score, "because") for score in (1.0, 5.0, 5.0)]
    verdicts.append(Verdict(Outcome.UNPARSED, None, "no number"))
    judge = evaluation.judges[0].key
    with State.open(run) as state:
        state.adopt(plan)
        state.put_meta({"sweep": "stored", "standin": "true"})
        for key, table, rows in (
            (evaluation.generate, "responses", shards.response_rows(evaluation.generate, responses)),
            (judge, "verdicts", shards.verdict_rows(judge, responses, verdicts)),
        ):
            state.settle([make.done(key, shards.write_shard(run, table, key, rows))])
        shards.write_shard(
            run, "verdicts", judge, shards.verdict_rows(judge, responses, verdicts)
        )  # never acknowledged
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
            " AND table_name IN ('prompts', 'responses', 'verdicts', 'samples', 'v_scores')"
        ).fetchall()
        tables = {name for (name,) in db.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    sealed = {"text", "reason", "gold_answers", "behavior", "context", "response", "prompt", "turns"}
    assert not {name for (name,) in columns} & sealed
    assert "rows" not in tables


def test_prompts_of_several_turns_are_hashed_and_unsealed_whole(make: Any, plan: Plan, run: RunDirectory) -> None:
    evaluation = plan.cells[0].evaluations[0]
    talk = (Turn("user", "Hello"), Turn("assistant", "Yes?"), Turn("user", "Look", (Image("a.png", "f00"),)))
    prompts = [
        Prompt.single("one", "A", "What is 2 + 2?", references=("4", "four")),
        Prompt("many", "A", talk, behavior="greets", context="a picture"),
    ]
    responses = [Response(prompt.prompt_id, 0, "Fine.", Finish.STOP, 5, 3) for prompt in prompts]
    judge = evaluation.judges[0].key
    verdicts = [Verdict(Outcome.SCORED, 1.0, "because")] * 2
    with State.open(run) as state:
        state.adopt(plan)
        rows = shards.prompt_rows(str(evaluation.benchmark), prompts)
        state.add_shards("prompts-1", [shards.write_shard(run, "prompts", "prompts-1", rows)])
        answers = shards.response_rows(evaluation.generate, responses)
        state.settle([make.done(evaluation.generate, shards.write_shard(run, "responses", "r", answers))])
        given = shards.verdict_rows(judge, responses, verdicts)
        state.settle([make.done(judge, shards.write_shard(run, "verdicts", "v", given))])
    publish(run)
    with open_results(run.root, unseal=True) as results:
        found = {row["prompt_id"]: row for row in results.table("FROM v_responses").to_pylist()}
        hashes = results.table("SELECT prompt_id, text_sha256 FROM v_prompts").to_pylist()
    assert found["one"]["prompt"] == "What is 2 + 2?"
    assert (found["one"]["gold_answers"], found["many"]["gold_answers"]) == (["4", "four"], [])
    assert found["many"]["prompt"] == "user: Hello\n\nassistant: Yes?\n\nuser: [image f00]\nLook"
    assert (found["many"]["behavior"], found["many"]["context"]) == ("greets", "a picture")
    texts = {row["prompt_id"]: row["text_sha256"] for row in hashes}
    assert texts == {name: shards.text_sha256(row["prompt"]) for name, row in found.items()}


def test_stages_may_share_a_file_and_only_those_that_count_are_published_from_it(
    make: Any, plan: Plan, run: RunDirectory
) -> None:
    first, second = (cell.chain[0] for cell in plan.cells if cell.chain)
    rows = [shards.sample_rows(key, [("a", row, "p") for row in ids]) for key, ids in ((first, "12"), (second, "345"))]
    shard = shards.write_shard(run, "samples", first, [*rows[0], *rows[1]])
    with State.open(run) as state:
        state.adopt(plan)
        state.settle([make.done(first, shard), make.done(second, shard)])
        assert shards.read_rows(run, shard, second) == rows[1]
        for kept, counted in ((5, (first, second)), (3, (second,))):
            publish(run)
            with open_results(run.root) as results:
                assert results.table("SELECT count(*) AS n FROM samples").to_pylist() == [{"n": kept}]
                found = results.table("SELECT DISTINCT stage_key AS key FROM samples").to_pylist()
            assert {row["key"] for row in found} == set(counted)
            state.reset([first])


def test_a_later_checkpoint_costs_what_the_earlier_ones_took_too(make: Any, run: RunDirectory) -> None:
    lengths = [make.recipe(tune=make.tune({"epochs": epochs})) for epochs in (1, 3, 9)]
    plan = make.plan(*lengths)
    tunes = [cell.tune for cell in plan.cells if cell.tune]
    with State.open(run) as state:
        state.adopt(plan)
        for before, key, steps in ((None, tunes[0], 1), (tunes[0], tunes[1], 2), (tunes[1], tunes[2], 6)):
            usage = Usage(optimizer_steps=steps, train_tokens=100 * steps, device_seconds=float(steps))
            attempt = Attempt(key, "worker-0", 0.0, 9.0, usage, StageResult(key, (), None, after=before))
            state.settle([Settled(attempt, StageState.DONE, Charge(Decimal(steps)))])
        for shown, steps in ((plan, [1, 3, 9]), (make.plan(lengths[2]), [9])):
            state.adopt(shown)
            publish(run)
            with open_results(run.root) as results:
                found = results.table(
                    "SELECT optimizer_steps FROM v_cells WHERE n_examples > 0 ORDER BY epochs"
                ).to_pylist()
                spent = results.table(
                    "SELECT stage_key, optimizer_steps, usd FROM v_cost WHERE kind = 'tune'"
                ).to_pylist()
                whole = results.table("SELECT train_tokens, device_seconds, usd FROM _stage_usage").to_pylist()
            assert [row["optimizer_steps"] for row in found] == steps
            assert {"train_tokens": 900, "device_seconds": 9.0, "usd": Decimal(9)} in whole
            assert {row["stage_key"]: int(row["usd"]) for row in spent}[tunes[2]] == 6, (
                "the bill counts every step once"
            )


def test_publishing_again_replaces_the_file_under_an_open_reader(make: Any, plan: Plan, run: RunDirectory) -> None:
    with State.open(run) as state:
        state.adopt(plan)
        publish(run)
        with open_results(run.root) as old:
            before = old.table("SELECT count(*) AS n FROM v_cells").to_pylist()
            state.adopt(make.plan(*(make.recipe(seed=seed) for seed in (0, 1, 2))))
            publish(run)
            assert old.table("SELECT count(*) AS n FROM v_cells").to_pylist() == before == [{"n": 3}]
    with open_results(run.root) as new:
        assert new.table("SELECT count(*) AS n FROM v_cells").to_pylist() == [{"n": 4}]
    assert not run.publishing.exists()


def test_a_missing_run_is_said(run: RunDirectory) -> None:
    with pytest.raises(StoreError, match="not a run directory"):
        State.peek(run)
    assert not run.root.exists()
