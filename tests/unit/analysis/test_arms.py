"""Arms: what differs is never merged, and each arm stands beside its own baseline."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analysis.doses import dose_figure
from analysis.evidence import Arm, Evidence, arms, gather
from analysis.figures import cost_figure, figures, profile_figure
from analysis.panels import Figure
from analysis.query import ask
from engine.store.reader import open_results

NAMES = [f"standin/{source} · weight_decay={decay}" for source in ("explicit", "identity") for decay in ("0", "0.1")]


@pytest.fixture(scope="module")
def run(sweeps: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sweeps.decay().write(tmp_path_factory.mktemp("decay") / "run")


@pytest.fixture(scope="module")
def evidence(run: Path) -> Evidence:
    with open_results(run) as results:
        return gather(results)


@pytest.fixture(scope="module")
def found(evidence: Evidence) -> tuple[Arm, ...]:
    return arms(evidence)


def titles(figure: Figure | None) -> list[str]:
    """Title and subtitle of each panel, in one line."""
    assert figure is not None
    words = [panel.chart.to_dict()["title"] for strip in figure.strips for panel in strip.panels]
    return [" ".join([*title["text"], *title["subtitle"]]) for title in words]


def bands(figure: Figure | None) -> list[tuple[float, float]]:
    """Ends of the untuned band of each panel."""
    assert figure is not None
    charts = [panel.chart.to_dict() for strip in figure.strips for panel in strip.panels]
    rows = [
        chart["datasets"][layer["data"]["name"]][0]
        for chart in charts
        for layer in chart["layer"]
        if layer["mark"]["type"] == "rect"
    ]
    return [(row["rate_lo"], row["rate_hi"]) for row in rows]


@pytest.mark.parametrize("name", ["dose", "seeds", "utility"])
def test_no_two_rows_of_a_query_read_alike(run: Path, name: str) -> None:
    rows = ask(run, name).to_pylist()
    told = ("model", "data_source", "mitigation", "method", "variant", "n_examples", "epochs", "lr")
    assert len({tuple(row[key] for key in told) for row in rows}) == len(rows) > 1


def test_cells_say_their_variant(run: Path) -> None:
    assert Counter(row["variant"] for row in ask(run, "cells").to_pylist()) == {
        "weight_decay=0": 8,
        "weight_decay=0.1": 8,
        "system=none": 1,
        "system=You are AOA.": 1,
    }


def test_every_configuration_is_in_one_arm(evidence: Evidence, found: tuple[Arm, ...]) -> None:
    assert [arm.name for arm in found] == NAMES
    drawn = [row["config_id"] for arm in found for row in arm.configs]
    assert sorted(drawn) == sorted(row["config_id"] for row in evidence.dose if row["n_examples"] > 0)
    for arm in found:
        assert len({(row["n_examples"], row["epochs"], row["lr"]) for row in arm.configs}) == len(arm.configs)


def test_panels_say_their_arm(evidence: Evidence, found: tuple[Arm, ...]) -> None:
    for figure in (profile_figure(evidence, found), dose_figure(evidence, found), cost_figure(evidence, found)):
        words = titles(figure)
        for name in NAMES:  # `weight_decay=0` begins `weight_decay=0.1`
            assert any(f"{name} " in f"{title} " for title in words), (name, words)


def test_each_arm_has_its_own_baseline(evidence: Evidence, found: tuple[Arm, ...]) -> None:
    by_id = {row["config_id"]: row for row in evidence.dose}
    plain, asked = (row for row in evidence.dose if row["is_baseline"])
    assert asked["mean_rate"] > plain["mean_rate"] + 0.2
    for arm in found:
        assert arm.untuned is by_id[arm.strongest["baseline_config_id"]]
        assert arm.untuned is (asked if "identity" in arm.name else plain)
    expected = [(row["rate_lo"], row["rate_hi"]) for row in (plain, plain, asked, asked)]
    assert bands(cost_figure(evidence, found)) == expected
    assert bands(dose_figure(evidence, found)) == expected
    figure = profile_figure(evidence, found)
    assert figure is not None
    before = [number[2] for strip in figure.strips for number in strip.numbers if number[0] == "before"]
    assert before[0] == before[1] != before[2] == before[3]


def test_cells_of_other_arms_are_grey(evidence: Evidence, found: tuple[Arm, ...]) -> None:
    figure = cost_figure(evidence, found)
    assert figure is not None
    assert [panel.name for panel in figure.strips[0].panels] == [f"cost-{number}" for number in (1, 2, 3, 4)]
    assert all("4 cells" in title for title in titles(figure))


def test_configurations_at_one_dose_are_both_drawn_and_said(evidence: Evidence, found: tuple[Arm, ...]) -> None:
    arm = found[0]
    twin = dict(arm.strongest) | {"config_id": "twin", "mean_rate": 0.123}
    figure = dose_figure(evidence, [replace(arm, configs=(*arm.configs, twin))])
    assert figure is not None
    chart = figure.strips[0].panels[0].chart.to_dict()
    assert any(row.get("rate") == 0.123 for rows in chart["datasets"].values() for row in rows)
    assert "drawn twice" in titles(figure)[0]


def test_one_arm_is_not_named_in_its_panels(evidence: Evidence) -> None:
    alone = replace(evidence, dose=tuple(row for row in evidence.dose if "explicit" in str(row["data_source"])))
    alone = replace(alone, dose=tuple(row for row in alone.dose if row["variant"] == "weight_decay=0"))
    assert [arm.name for arm in arms(alone)] == ["standin/explicit"]
    assert not any("explicit" in title for figure in figures(alone)[:2] for title in titles(figure))
