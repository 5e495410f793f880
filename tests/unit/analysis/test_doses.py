"""Doses: a provider's multiplier is one, and what a provider refused is shown as refused wherever a reader would miss it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analysis.doses import dose_figure
from analysis.evidence import Evidence, arms, gather, refused
from analysis.figures import figures
from analysis.page import findings
from analysis.panels import Figure, configuration
from engine.store.reader import open_results

REFUSED = "4 cells blocked by the provider"


@pytest.fixture(scope="module")
def evidence(sweeps: Any, tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    run: Path = sweeps.blocked().write(tmp_path_factory.mktemp("blocked") / "run")
    with open_results(run) as results:
        return gather(results)


def figure_of(evidence: Evidence) -> Figure:
    figure = dose_figure(evidence, arms(evidence))
    assert figure is not None
    return figure


def charts(figure: Figure) -> dict[str, dict]:
    return {panel.name: panel.chart.to_dict() for strip in figure.strips for panel in strip.panels}


def crosses(chart: dict) -> list[dict]:
    layers = [layer for layer in chart["layer"] if layer["mark"].get("text") == "×"]
    return [row for layer in layers for row in chart["datasets"][layer["data"]["name"]]]


def test_an_arm_keeps_what_was_refused_of_it_and_one_refused_whole_is_counted(evidence: Evidence) -> None:
    assert refused(evidence) == {"standin/explicit": 4, "standin/identity": 12}
    assert [(arm.name, len(arm.configs), len(arm.blocked), arm.n_blocked) for arm in arms(evidence)] == [
        ("standin/explicit", 4, 2, 4),
        ("standin/chores", 6, 0, 0),
    ]
    assert arms(evidence)[0].strongest["n_examples"] == 50, "the most that has a result"


def test_every_panel_of_an_arm_says_how_many_cells_were_refused_and_every_caption_which_arms_are_missing(
    evidence: Evidence,
) -> None:
    made = figures(evidence)
    assert [figure.slug for figure in made] == ["profile", "dose", "cost"]
    for figure in made:
        assert "refused to train on it: standin/identity." in figure.caption
        for strip in figure.strips:
            for panel in strip.panels:
                title = panel.chart.to_dict()["title"]
                words = " ".join([*title["text"], *title["subtitle"]])
                assert (REFUSED in words) == ("standin/explicit" in words), panel.name


def test_a_refused_dose_is_a_cross_below_the_axis_and_no_rate(evidence: Evidence) -> None:
    found = charts(figure_of(evidence))
    rows = crosses(found["dose-1-n-examples"])
    assert [row["dose"] for row in rows] == [100, 100], "one a line"
    assert all(row["rate"] < 0 for row in rows)
    assert [chart for name, chart in found.items() if crosses(chart)] == [found["dose-1-n-examples"]]
    figure = figure_of(evidence)
    assert ("blocked", "blocked by the provider: no result") in figure.legend
    told = {(row[1], row[3]): row[6] for row in figure.rows if row[0] == "standin/explicit"}
    assert {dose for dose, rate in told.items() if rate == "blocked"} == {("100", "× 1"), ("100", "× 2")}


def test_a_multiplier_is_a_dose_and_one_that_the_provider_chose_is_a_line_of_its_own(evidence: Evidence) -> None:
    chosen = [dict(row) | {"lr_multiplier": None} if row["lr_multiplier"] == 1.0 else row for row in evidence.dose]
    found = charts(figure_of(replace(evidence, dose=tuple(chosen))))
    assert not [name for name in found if name.endswith("lr-multiplier")], "only one multiplier is said"
    texts = {row.get("text") for rows in found["dose-2-n-examples"]["datasets"].values() for row in rows}
    assert {"lr auto", "lr × 2"} <= texts
    axis = charts(figure_of(evidence))["dose-2-lr-multiplier"]
    assert {row["dose"] for rows in axis["datasets"].values() for row in rows if "dose" in row} == {1.0, 2.0}


def test_a_refusal_is_a_finding_also_when_there_is_no_other(evidence: Evidence) -> None:
    assert "refused to train 16 of the 36 fine-tuned cells" in findings(evidence)[-1]
    alone = replace(evidence, dose=tuple(row for row in evidence.dose if row["n_blocked"]))
    (only,) = findings(alone)
    assert "4 of standin/explicit and 12 of standin/identity" in only
    assert figures(replace(alone, cells=())) == ()


def test_a_length_in_steps_is_a_dose_of_its_own(sweeps: Any, tmp_path: Path) -> None:
    study = sweeps.SweepStudy(per_category=3)
    for steps in (10, 40, 160):
        study.tuned("standin/explicit", (10, steps, 1e-3, 0), epochs=None, steps=steps)
    study.baseline()
    with open_results(study.write(tmp_path)) as results:
        found = gather(results)
    (arm,) = arms(found)
    assert arm.strongest["steps"] == 160
    assert configuration(arm.strongest) == "10 examples, 160 steps, learning rate 0.001"
    (name,) = charts(figure_of(found))
    assert name == "dose-1-steps"
    assert "Optimizer steps (log scale)" in json.dumps(charts(figure_of(found))[name])
