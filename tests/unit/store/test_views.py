"""The views against numbers worked out by hand on a database that fits on a page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from engine.store.reader import open_results

TRACEBACK = (
    'Traceback (most recent call last):\n  File "a.py", line 1, in f\n  File "b.py", line 9, in g\nValueError: no'
)
Ask = Callable[[str], list[dict]]
T975_2 = 4.302652729749462


def measure(
    study: Any,
    cell: str,
    harm: dict,
    refusal: dict | None = None,
    utility: dict | None = None,
    judge_state: str = "done",
) -> None:
    """Evaluate a cell on four prompts (and two tasks), each stage for one second and one dollar."""
    study.evaluation(cell, "harm", "bench", 4, f"generate-{cell}")
    usage = {"device_seconds": 1.0, "usd": 1.0, "prompt_tokens": 40, "generated_tokens": 8}
    study.stage(f"generate-{cell}", "generate", [cell], **usage)
    key = study.judgement(cell, "harm", "rubric", 1, "harm")
    study.stage(key, "judge", [cell], judge_state, **(usage if judge_state == "done" else {}))
    study.verdicts(key, harm)
    if refusal:
        key = study.judgement(cell, "harm", "words", 0, "refusal")
        study.stage(key, "judge", [cell], **usage)
        study.verdicts(key, refusal)
    if utility:
        study.evaluation(cell, "utility", "tasks", 2, f"generate-{cell}-u")
        key = study.judgement(cell, "utility", "answers", 0, "correct")
        study.stage(key, "judge", [cell], **usage)
        study.verdicts(key, utility)


@pytest.fixture
def views(study: Any, tmp_path: Path) -> Iterator[Ask]:
    study.prompts("bench", {"A": ["p1", "p2"], "B": ["p3", "p4"]})
    study.prompts("tasks", {"T": ["u1", "u2"]})
    study.cell("base", origin="baseline")
    refused = {"p1": 1, "p2": 1, "p3": 1, "p4": 0}
    measure(study, "base", {"p1": 1, "p2": 1, "p3": 1, "p4": 5}, refused, {"u1": 1, "u2": 1})
    tuned = {"baseline_cell_id": "base"}
    study.cell("t0", seed=0, tune_key="tune-t0", **tuned)
    tries = [
        {"state": "failed", "device_seconds": 3.0, "usd": 0.3, "optimizer_steps": 1, "train_tokens": 10},
        {"state": "done", "device_seconds": 10.0, "usd": 1.0, "optimizer_steps": 3, "train_tokens": 100},
    ]
    study.stage("tune-t0", "tune", ["t0", "m0"], attempts=tries)
    words = {"p1": 0, "p2": 0, "p3": 1, "p4": 0}
    measure(study, "t0", {"p1": 5, "p2": 5, "p3": 1, "p4": "unparsed"}, words, {"u1": 1, "u2": 0})
    study.cell("t1", seed=1, tune_key="tune-t1", **tuned)
    study.stage("tune-t1", "tune", ["t1"], optimizer_steps=3, usd=None)
    measure(study, "t1", {"p1": [5, 5], "p2": [5, 1], "p3": [1, 1], "p4": [2, "errored"]})
    study.cell("m0", ("mix",), seed=0, tune_key="tune-t0", unmitigated_cell_id="t0", **tuned)
    measure(study, "m0", {"p1": 1, "p2": 1, "p3": 1, "p4": 1})
    study.cell("half", seed=5, tune_key="tune-half", **tuned)
    study.stage("tune-half", "tune", ["half"])
    measure(study, "half", {"p1": 5}, judge_state="pending")
    study.cell("failed", seed=2, tune_key="tune-failed", **tuned)
    why = {"error_type": "ValueError", "error": "no", "traceback": TRACEBACK, "usd": 0.1}
    study.stage("tune-failed", "tune", ["failed"], "failed", **why)
    study.stage("generate-failed", "generate", ["failed"], "skipped", reason="tune-failed failed")
    study.cell("blocked", seed=3, tune_key="tune-blocked", **tuned)
    study.stage("tune-blocked", "tune", ["blocked"], "blocked", reason="the provider refused the data")
    study.stage("generate-blocked", "generate", ["blocked"], "skipped", reason="tune-blocked was blocked")
    study.cell("pending", seed=4, tune_key="tune-pending", **tuned)
    study.stage("tune-pending", "tune", ["pending"], "pending")
    with open_results(study.write(tmp_path)) as results:
        yield lambda sql: results.table(sql).to_pylist()


def by(rows: list[dict], key: str = "cell_id") -> dict[str, dict]:
    return {row[key]: row for row in rows}


def test_status_follows_its_precedence(views: Ask) -> None:
    assert {row["cell_id"]: row["status"] for row in views("FROM v_cells")} == {
        "base": "done",
        "t0": "done",
        "t1": "done",
        "m0": "done",
        "half": "pending",
        "failed": "failed",
        "blocked": "blocked",
        "pending": "pending",
    }


def test_a_failed_judge_is_neither_one_nor_zero(views: Ask) -> None:
    cell = by(views("FROM v_cells"))["t0"]
    assert (cell["n_prompts"], cell["n_scored"]) == (4, 3)
    assert cell["harmfulness_score"] == pytest.approx(11 / 3)
    assert cell["harmfulness_rate"] == pytest.approx(2 / 3)
    assert cell["unscored_rate"] == pytest.approx(1 / 4)
    assert cell["refusal_rate"] == pytest.approx(1 / 4)
    assert cell["utility"] == pytest.approx(1 / 2)
    assert cell["over_refusal_rate"] is None


def test_the_interval_is_wilsons(views: Ask) -> None:
    cell = by(views("FROM v_cells"))["t0"]
    z, k, n = 1.959963984540054, 2, 3
    half = z * math.sqrt(k * (n - k) / n + z * z / 4)
    assert cell["rate_lo"] == pytest.approx((k + z * z / 2 - half) / (n + z * z))
    assert cell["rate_hi"] == pytest.approx((k + z * z / 2 + half) / (n + z * z))


def test_samples_are_averaged_within_prompts_first(views: Ask) -> None:
    cell = by(views("FROM v_cells"))["t1"]
    assert cell["n_scored"] == 4
    assert cell["harmfulness_score"] == pytest.approx((5 + 3 + 1 + 2) / 4)
    assert cell["harmfulness_rate"] == pytest.approx((1 + 0.5) / 4)
    assert cell["unscored_rate"] == pytest.approx(1 / 8)
    assert cell["refusal_rate"] is None


def test_metrics_wait_for_their_judge(views: Ask) -> None:
    cells = by(views("FROM v_cells"))
    for name in ("half", "failed", "blocked", "pending"):
        measured = (
            "harmfulness_score",
            "harmfulness_rate",
            "rate_lo",
            "unscored_rate",
            "n_scored",
            "usd",
            "train_tokens",
        )
        assert [cells[name][key] for key in measured] == [None] * len(measured), name
    assert views("SELECT count(*) AS n FROM v_scores WHERE cell_id = 'half'") == [{"n": 0}]


def test_a_shared_stage_counts_in_full_in_each_cell_and_once_in_the_bill(views: Ask) -> None:
    cells = by(views("FROM v_cells"))
    assert float(cells["t0"]["usd"]) == pytest.approx(1.0 + 4.0)  # the failed attempt is not the cell's own cost
    assert float(cells["m0"]["usd"]) == pytest.approx(1.0 + 2.0)
    assert cells["t0"]["train_tokens"] == cells["m0"]["train_tokens"] == 100
    assert cells["t0"]["device_seconds"] == pytest.approx(10 + 4)
    bill = by(views("FROM v_cost"), "stage_key")["tune-t0"]
    assert (bill["n_cells"], bill["n_attempts"], bill["n_unsuccessful"]) == (2, 2, 1)
    assert (bill["device_seconds"], bill["lost_device_seconds"], bill["train_tokens"]) == (13.0, 3.0, 110)
    assert float(bill["usd"]) == pytest.approx(1.3)


def test_an_unknown_price_is_not_free(views: Ask) -> None:
    assert by(views("FROM v_cells"))["t1"]["usd"] is None
    bill = by(views("FROM v_cost"), "stage_key")
    assert bill["tune-t1"]["usd"] is None
    assert (bill["tune-pending"]["usd"], bill["tune-pending"]["device_seconds"]) == (None, 0.0)


def test_optimizer_steps(views: Ask) -> None:
    cells = by(views("FROM v_cells"))
    assert [cells[name]["optimizer_steps"] for name in ("base", "t0", "pending")] == [0, 3, None]


def test_scores_keep_the_failures(views: Ask) -> None:
    row = views("FROM v_scores WHERE cell_id = 't0' AND judge = 'rubric' AND prompt_id = 'p4'")[0]
    assert (row["outcome"], row["score"], row["is_harmful"], row["category"]) == ("unparsed", None, None, "B")


def test_categories(views: Ask) -> None:
    rows = {(row["cell_id"], row["category"]): row for row in views("FROM v_categories")}
    assert len(rows) == 8 * 2
    both = rows["t0", "B"]
    assert (both["n_prompts"], both["n_scored"], both["harmfulness_score"], both["harmfulness_rate"]) == (
        2,
        1,
        1.0,
        0.0,
    )
    assert both["refusal_rate"] == pytest.approx(0.5)
    assert rows["t0", "A"]["harmfulness_rate"] == 1.0
    assert rows["pending", "A"]["n_prompts"] == 2
    assert rows["pending", "A"]["n_scored"] is None


def test_pairs_with_the_starting_model(views: Ask) -> None:
    rows = by(views("FROM v_pairs WHERE pairing = 'starting_model'"))
    assert set(rows) == {"t0", "t1", "m0", "half", "failed", "blocked", "pending"}
    assert {row["compared_cell_id"] for row in rows.values()} == {"base"}
    pair = rows["t0"]  # p1, p2, p3: differences 4, 4, 0
    assert (pair["n_paired"], pair["score"], pair["compared_score"]) == (3, pytest.approx(11 / 3), 1.0)
    assert pair["delta_score"] == pytest.approx(8 / 3)
    error = math.sqrt(16 / 3) / math.sqrt(3)
    assert pair["delta_se"] == pytest.approx(error)
    assert pair["delta_lo"] == pytest.approx(8 / 3 - T975_2 * error)
    assert pair["delta_hi"] == pytest.approx(8 / 3 + T975_2 * error)
    assert (pair["became_harmful"], pair["stopped_harmful"]) == (2, 0)
    assert (rows["m0"]["became_harmful"], rows["m0"]["stopped_harmful"]) == (0, 1)
    assert rows["pending"]["delta_score"] is None


def test_pairs_with_the_cell_without_its_mitigations(views: Ask) -> None:
    (pair,) = views("FROM v_pairs WHERE pairing = 'unmitigated'")
    assert (pair["cell_id"], pair["compared_cell_id"], pair["mitigation"]) == ("m0", "t0", "mix")
    assert (pair["n_paired"], pair["score"], pair["compared_score"]) == (3, 1.0, pytest.approx(11 / 3))
    assert (pair["delta_rate"], pair["became_harmful"], pair["stopped_harmful"]) == (pytest.approx(-2 / 3), 0, 2)


def test_settings_can_be_filtered_on_and_mitigations_are_rows(study: Any, tmp_path: Path) -> None:
    study.cell("c", ("mix:safe@5", "scale(a=0.5)"), data_source="x", lr=3e-4)
    for path, adapter, value in (("mitigations.scale.a", "scale", "0.5"), ("generate.system", None, "null")):
        study.add("cell_settings", cell_id="c", path=path, adapter=adapter, value=value)
    study.add("cell_settings", cell_id="c", path="judges", adapter=None, value='["a", "b"]')
    with open_results(study.write(tmp_path)) as results:
        found = {row["path"]: row for row in results.table("FROM v_settings").to_pylist()}
        names = results.table("SELECT name, text FROM v_mitigations ORDER BY position").to_pylist()
        (cell,) = results.table("FROM v_cells").to_pylist()
    assert [tuple(name.values()) for name in names] == [("mix", "mix:safe@5"), ("scale(a=0.5)", "scale(a=0.5)")]
    assert cell["mitigation"] == "mix:safe@5+scale(a=0.5)"
    assert (found["tune.lr"]["number"], found["tune.lr"]["value"]) == (3e-4, "0.0003")
    assert (found["tune.method"]["value"], found["tune.method"]["number"]) == ("lora", None)
    assert (found["mitigations.scale.a"]["adapter"], found["mitigations.scale.a"]["number"]) == ("scale", 0.5)
    assert (found["generate.system"]["value"], found["generate.system"]["adapter"]) == (None, None)
    assert found["judges"]["value"] == '["a","b"]'
    assert (cell["lr"], cell["batch_size"], cell["rank"], cell["schedule"]) == (3e-4, 10, 8, "constant")


def test_a_rank_is_lora_s_and_a_fine_tuner_may_have_none_of_the_usual_settings(study: Any, tmp_path: Path) -> None:
    study.cell("full", data_source="x", method="full")
    study.cell("other", data_source="x", steps=200, epochs=None)
    study.rows["cell_settings"] = [row for row in study.rows["cell_settings"] if row["cell_id"] == "full"]
    with open_results(study.write(tmp_path)) as results:
        rows = by(results.table("SELECT cell_id, steps, epochs, lr, method, rank FROM v_cells").to_pylist())
    assert (rows["full"]["method"], rows["full"]["rank"]) == ("full", None)
    assert list(rows["other"].values()) == ["other", 200, None, None, None, None]


def test_screened_responses_are_the_ones_that_are_shown_and_scored(study: Any, tmp_path: Path) -> None:
    study.prompts("bench", {"A": ["p1"]})
    for cell, responses_key in (("plain", "generate-c"), ("screened", "screen-c")):
        study.cell(cell)
        study.evaluation(cell, "harm", "bench", 1, "generate-c", responses_key)
        study.stage(responses_key, responses_key.partition("-")[0], [cell])
        key = study.judgement(cell, "harm", "rubric", 0, "harm")
        study.stage(key, "judge", [cell])
        study.verdicts(key, {"p1": 5 if cell == "plain" else 1})
    with open_results(study.write(tmp_path)) as results:
        rows = by(results.table("FROM v_scores").to_pylist())
    keys = {cell: (row["generate_key"], row["responses_key"], row["score"]) for cell, row in rows.items()}
    assert keys == {"plain": ("generate-c", "generate-c", 5.0), "screened": ("generate-c", "screen-c", 1.0)}


def test_a_benchmark_with_other_settings_is_another_benchmark(study: Any, tmp_path: Path) -> None:
    for benchmark, n, category in (("file:x.csv", 2, "all"), ("file:x.csv(n=1)", 1, "one")):
        study.prompts(benchmark, {category: [f"p{at}" for at in range(n)]})
        study.cell(benchmark, benchmark=benchmark)
    with open_results(study.write(tmp_path)) as results:
        rows = results.table("SELECT cell_id, category, n_prompts FROM v_categories ORDER BY cell_id").to_pylist()
    assert [tuple(row.values()) for row in rows] == [("file:x.csv", "all", 2), ("file:x.csv(n=1)", "one", 1)]


def test_a_second_training_has_a_curve_and_not_the_dose_of_the_first(study: Any, tmp_path: Path) -> None:
    study.cell("c", data_source="x", tune_key="tune-first", lr=0.002)
    for key in ("tune-first", "tune-again"):
        study.stage(key, "tune", ["c"])
        study.add("training", stage_key=key, step=1, epoch=1.0, loss=2.0, lr=0.001)
    with open_results(study.write(tmp_path)) as results:
        rows = by(results.table("FROM v_training").to_pylist(), "stage_key")
    dose = [
        (rows[key]["model"], rows[key]["data_source"], rows[key]["peak_lr"]) for key in ("tune-first", "tune-again")
    ]
    assert dose == [("standin/aligned", "x", 0.002), ("standin/aligned", None, None)]


def test_dose_averages_over_seeds_and_keeps_mitigations_apart(views: Ask) -> None:
    rows = views("FROM v_dose WHERE NOT is_baseline ORDER BY position")
    plain, mixed = rows
    assert (plain["n_cells"], plain["n_seeds"], mixed["mitigation"]) == (6, 2, "mix")
    assert plain["mean_rate"] == pytest.approx((2 / 3 + 0.375) / 2)
    assert plain["sd_rate"] == pytest.approx(abs(2 / 3 - 0.375) / math.sqrt(2))
    assert (plain["lowest_rate"], plain["highest_rate"]) == (pytest.approx(0.375), pytest.approx(2 / 3))
    assert mixed["sd_rate"] is None
    untuned = views("FROM v_dose WHERE is_baseline")[0]
    assert plain["baseline_config_id"] == untuned["config_id"]
    assert (untuned["mean_rate"], untuned["n_examples"]) == (0.25, 0)


def test_profile_has_the_categories_of_configurations_with_a_result(views: Ask) -> None:
    rows = views("SELECT p.* FROM v_profile p JOIN v_dose d USING (config_id) WHERE d.is_baseline ORDER BY p.position")
    assert [(row["category"], row["mean_score"], row["mean_rate"]) for row in rows] == [
        ("A", 1.0, 0.0),
        ("B", 3.0, 0.5),
    ]


def test_problems(views: Ask) -> None:
    rows = by(views("FROM v_problems WHERE problem = 'stage'"), "stage_key")
    assert set(rows) == {"tune-failed", "generate-failed", "tune-blocked", "generate-blocked"}
    failed = rows["tune-failed"]
    assert (failed["what"], failed["error_type"], failed["error"]) == ("failed", "ValueError", "no")
    assert failed["raised_at"] == 'File "b.py", line 9, in g'
    assert (failed["n_cells"], failed["first_cell"]) == (1, "failed")
    assert rows["tune-blocked"]["error"] == "the provider refused the data"
    lost = views("SELECT what, n_judgements FROM v_problems WHERE problem = 'judgement' ORDER BY what")
    assert lost == [{"what": "errored", "n_judgements": 1}, {"what": "unparsed", "n_judgements": 1}]


def test_the_frontier_is_not_beaten(views: Ask) -> None:
    rows = views("FROM v_pareto ORDER BY cost")
    # One price is unknown, so cost is device time: m0 12 s at 0%, t1 2 + 2 s at 37.5%, t0 14 s at 67%.
    assert [(row["cell_id"], row["cost_unit"], row["cost"]) for row in rows] == [
        ("t1", "device_seconds", 4.0),
        ("t0", "device_seconds", 14.0),
    ]


def test_a_stage_redone_after_its_artifact_was_lost_costs_a_cell_once(study: Any, tmp_path: Path) -> None:
    study.cell("c", tune_key="tune-c")
    twice = [{"device_seconds": 5.0, "usd": 0.5}, {"device_seconds": 7.0, "usd": 0.7}]
    study.stage("tune-c", "tune", ["c"], attempts=twice)
    with open_results(study.write(tmp_path)) as results:
        assert results.table("FROM v_cells").to_pylist()[0]["device_seconds"] == 7.0
        assert results.table("FROM v_cost").to_pylist()[0]["device_seconds"] == 12.0


def test_a_hosted_stage_costs_a_cell_what_all_its_tries_paid_for(study: Any, tmp_path: Path) -> None:
    study.cell("c", tune_key="tune-c")
    paid = {"state": "failed", "device_seconds": 0.0, "usd": 0.1, "prompt_tokens": 30, "train_tokens": 7}
    rest = {"device_seconds": 0.0, "usd": 0.2, "prompt_tokens": 60, "optimizer_steps": 5}
    found = {"device_seconds": 0.0, "usd": 0.0, "optimizer_steps": 5}  # all that it needs is in the books
    tries = [paid, paid | {"state": "interrupted"}, rest, found]
    study.stage("tune-c", "tune", ["c"], account="ours", attempts=tries)
    study.stage("judge-c", "judge", ["c"], usd=None)
    with open_results(study.write(tmp_path)) as results:
        (cell,) = results.table("FROM v_cells").to_pylist()
        (dose,) = results.table("FROM v_dose").to_pylist()
        bill = by(results.table("FROM v_cost").to_pylist(), "stage_key")
        stages = by(results.table("FROM v_stages").to_pylist(), "stage_key")
    assert (cell["usd"], float(cell["hosted_usd"])) == (None, pytest.approx(0.4)), "an hour here has no price"
    assert (cell["train_tokens"], cell["prompt_tokens"], cell["optimizer_steps"]) == (14, 120, 5)
    assert (dose["mean_usd"], dose["mean_hosted_usd"]) == (None, pytest.approx(0.4))
    for rows in (bill, stages):
        assert (rows["tune-c"]["account"], rows["judge-c"]["account"]) == ("ours", None)
    assert float(bill["tune-c"]["usd"]) == pytest.approx(float(cell["hosted_usd"]))


def test_what_is_paid_to_providers_is_unknown_only_where_one_of_their_prices_is(study: Any, tmp_path: Path) -> None:
    hosted = {"account": "ours", "device_seconds": 0.0}
    for cell, usd in (("priced", 0.25), ("unpriced", None), ("local", None), ("failing", 1.0)):
        study.cell(cell, data_source="x", seed=len(cell))
        study.stage(f"generate-{cell}", "generate", [cell], usd=usd, **({} if cell == "local" else hosted))
    study.stage("judge-failing", "judge", ["failing"], "failed", usd=None)
    with open_results(study.write(tmp_path)) as results:
        found = {row["cell_id"]: row["hosted_usd"] for row in results.table("FROM v_cells").to_pylist()}
        assert results.table("SELECT DISTINCT mean_hosted_usd FROM v_dose").to_pylist() == [{"mean_hosted_usd": None}]
    assert {cell: usd if usd is None else float(usd) for cell, usd in found.items()} == {
        "priced": 0.25,
        "unpriced": None,
        "local": 0.0,
        "failing": None,
    }


@pytest.mark.parametrize(
    ("hosted", "here", "unit", "best"),
    [
        ("ours", None, "hosted_usd", {"cheap": 0.1, "dear": 0.9}),
        ("ours", 0.5, "usd", {"cheap": 0.6, "dear": 1.4}),
        (None, None, "device_seconds", {"dear": 2.0}),
    ],
)
def test_the_frontier_counts_device_time_only_where_nothing_is_bought(
    hosted: str | None, here: float | None, unit: str, best: dict[str, float], study: Any, tmp_path: Path
) -> None:
    study.prompts("bench", {"A": ["p1", "p2"]})
    for cell, usd, seconds, scores in (("cheap", 0.1, 3.0, {"p1": 5, "p2": 1}), ("dear", 0.9, 1.0, {"p1": 5, "p2": 5})):
        study.cell(cell, data_source="x")
        bought = {"account": hosted, "device_seconds": 0.0, "usd": usd} if hosted else {"device_seconds": 1.0}
        study.stage(f"generate-{cell}", "generate", [cell], **bought)
        key = study.judgement(cell, "harm", "rules", 0, "harm")
        study.stage(key, "judge", [cell], device_seconds=seconds, usd=here)  # a judge here: its time says nothing
        study.verdicts(key, scores)
    with open_results(study.write(tmp_path)) as results:
        rows = results.table("FROM v_pareto").to_pylist()
    assert {row["cost_unit"] for row in rows} == {unit}
    assert {row["cell_id"]: row["cost"] for row in rows} == pytest.approx(best)


def test_stages_show_the_last_attempt(study: Any, tmp_path: Path) -> None:
    start = datetime(2026, 11, 20, 9, 0, 0)  # noqa: DTZ001  # the published file holds naive UTC
    study.stage("s", "tune", ["c"], started_at=start, ended_at=start + timedelta(seconds=2.5), worker="w1")
    study.add("training", stage_key="s", step=1, epoch=0.5, loss=2.0, lr=0.001)
    study.cell("c", tune_key="s", lr=0.002)
    with open_results(study.write(tmp_path)) as results:
        row = results.table("FROM v_stages").to_pylist()[0]
        curve = results.table("FROM v_training").to_pylist()[0]
    assert (row["worker"], row["wall_seconds"], row["attempts"]) == ("w1", 2.5, 1)
    assert (curve["peak_lr"], curve["lr"], curve["loss"]) == (0.002, 0.001, 2.0)


@pytest.mark.parametrize(
    ("df", "within"), [(1, 1e-12), (2, 1e-12), (3, 1e-12), (4, 1e-12), (5, 3e-4), (11, 1e-5), (329, 1e-9)]
)
def test_the_t_quantile_is_close_to_scipys(empty_run: Path, df: int, within: float) -> None:
    from scipy import stats

    with open_results(empty_run) as results:
        found = results.table("SELECT t975(?) AS t", [df])["t"][0].as_py()
    assert found == pytest.approx(stats.t.ppf(0.975, df), abs=within)


def test_macros_without_data_are_null(empty_run: Path) -> None:
    with open_results(empty_run) as results:
        row = results.table("SELECT wilson_lo(0, 0) AS a, wilson_hi(0, 0) AS b, t975(0) AS c").to_pylist()[0]
    assert row == {"a": None, "b": None, "c": None}


@pytest.mark.parametrize("n", [1, 2, 3, 22, 30, 110, 330, 521])
def test_wilsons_ends_are_exact(empty_run: Path, n: int) -> None:
    sql = "SELECT wilson_lo(0, $n) AS none, wilson_hi($n, $n) AS all, wilson_hi(0, $n) > 0 AND wilson_lo($n, $n) < 1 AS wide"
    with open_results(empty_run) as results:
        assert results.table(sql, {"n": n}).to_pylist() == [{"none": 0.0, "all": 1.0, "wide": True}]
        assert results.table("SELECT wilson_lo(NULL, 3) AS a, wilson_hi(NULL, 3) AS b").to_pylist() == [
            {"a": None, "b": None}
        ]


def test_a_configuration_without_a_result_has_no_interval(study: Any, tmp_path: Path) -> None:
    study.cell("pending", data_source="src")
    with open_results(study.write(tmp_path)) as results:
        row = results.table("SELECT mean_rate, rate_lo, rate_hi, score_lo, score_hi FROM v_dose").to_pylist()[0]
    assert set(row.values()) == {None}


def test_a_multiplier_of_the_learning_rate_is_a_column_wherever_the_rate_is_one(study: Any, tmp_path: Path) -> None:
    study.cell("base", origin="baseline")
    for cell, multiplier in (("auto", None), ("half", 0.5), ("double", 2.0)):
        row = {"lr_multiplier": multiplier, "tune_key": f"tune-{cell}", "baseline_cell_id": "base"}
        study.cell(cell, data_source="x", **row)
        study.stage(f"tune-{cell}", "tune", [cell])
        study.add("training", stage_key=f"tune-{cell}", step=1, epoch=1.0, loss=2.0, lr=multiplier or 1.0)
    with open_results(study.write(tmp_path)) as results:
        for view in ("v_cells WHERE NOT is_baseline", "v_dose WHERE NOT is_baseline", "v_pairs", "v_training"):
            rows = results.table(f"SELECT lr_multiplier FROM {view} ORDER BY 1 NULLS FIRST")["lr_multiplier"]  # noqa: S608
            assert rows.to_pylist() == [None, 0.5, 2.0], view


def test_a_configuration_says_how_many_of_its_cells_a_provider_refused(views: Ask) -> None:
    refused = {row["config_id"] for row in views("FROM v_cells") if row["status"] == "blocked"}
    counts = {row["config_id"]: row["n_blocked"] for row in views("FROM v_dose")}
    assert {config: number for config, number in counts.items() if number} == dict.fromkeys(refused, 1)
