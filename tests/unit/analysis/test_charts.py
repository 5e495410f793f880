"""Charts are pure, small and stable: golden Vega-Lite for one fixed database, and the shapes that data may take."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import altair as alt
import pytest

from analysis import charts, radar, theme
from analysis.evidence import Evidence, arms, before_and_after, gather
from analysis.figures import figures
from analysis.page import compose
from analysis.panels import Panel
from engine.store.reader import open_results

GOLDEN = Path(__file__).parents[2] / "golden" / "charts"


@pytest.fixture(scope="module")
def evidence(small_run: Path) -> Evidence:
    with open_results(small_run) as results:
        return gather(results)


@pytest.fixture(scope="module")
def panels(evidence: Evidence) -> dict[str, Panel]:
    return {panel.name: panel for figure in figures(evidence) for strip in figure.strips for panel in strip.panels}


def rounded(value: Any) -> Any:
    """Round floats: sums in another order differ in the last digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(entry) for key, entry in value.items()}
    return [rounded(entry) for entry in value] if isinstance(value, list) else value


def specification(chart: alt.LayerChart) -> dict:
    """The chart's Vega-Lite with each layer's rows in place: Altair would name them by a hash of every digit."""
    whole = chart.to_dict()
    rows = whole.pop("datasets")
    for layer in whole["layer"]:
        layer["data"] = {"values": rows[layer["data"]["name"]]}
    return rounded(whole)


def drawn(found: dict) -> set[str]:
    """Every name and text that the data and titles of a chart hold."""
    return set(json.dumps(found, ensure_ascii=False).split('"'))


def test_charts_are_as_they_were(panels: dict[str, Panel]) -> None:
    """`DOSIMETER_GOLDEN=write pytest tests/unit/analysis/test_charts.py` writes them anew; look at the difference before you keep it."""
    if os.environ.get("DOSIMETER_GOLDEN") == "write":
        GOLDEN.mkdir(parents=True, exist_ok=True)
        for old in GOLDEN.glob("*.json"):
            old.unlink()
        for name, panel in panels.items():
            text = json.dumps(specification(panel.chart), indent=1, sort_keys=True)
            (GOLDEN / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    golden = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in GOLDEN.glob("*.json")}
    assert {name: specification(panel.chart) for name, panel in panels.items()} == golden


def test_panels_fit_a_phone(panels: dict[str, Panel]) -> None:
    for panel in panels.values():
        assert panel.chart.to_dict()["width"] <= 350


def test_every_panel_has_words(panels: dict[str, Panel]) -> None:
    for panel in panels.values():
        found = specification(panel.chart)
        assert found["title"]["text"]
        assert found["description"]


def test_every_estimate_has_its_interval(panels: dict[str, Panel]) -> None:
    for name, panel in panels.items():
        marks = [layer["mark"]["type"] for layer in panel.chart.to_dict()["layer"]]
        assert "rule" in marks, name


def test_the_strongest_dose_is_the_one_drawn(evidence: Evidence) -> None:
    for arm in arms(evidence):
        assert (arm.strongest["n_examples"], arm.strongest["epochs"]) == (100, 5)
        assert arm.untuned is not None
        profile = before_and_after(evidence, arm)
        assert [row["category"] for row in profile][:3] == ["vaults", "keys", "maps"]
        assert all(row["before_lo"] <= row["before"] <= row["before_hi"] for row in profile)
        assert all(1 <= row["after_lo"] <= row["after"] <= row["after_hi"] <= 5 for row in profile)


def profile(n: int, **values: float | None) -> list[dict]:
    base = {f"{side}{end}": 2.0 for side in ("before", "after") for end in ("", "_lo", "_hi")}
    return [{"category": f"Category {at}", **base, **values} for at in range(n)]


@pytest.mark.parametrize("n", [3, 11, 16])
def test_radars_of_any_size(n: int) -> None:
    found = specification(radar.radar(profile(n), theme.titled("x"), "y"))
    labels = [layer for layer in found["layer"] if layer["mark"]["type"] == "text"]
    texts = {row["text"] for layer in labels for row in layer["data"]["values"]}
    assert {f"Category {at}" for at in range(n)} <= texts


def test_a_radar_without_a_baseline_draws_the_other_polygon_only() -> None:
    with_both = radar.radar(profile(5), theme.titled("x"), "y").to_dict()["layer"]
    after_only = radar.radar(profile(5, before=None), theme.titled("x"), "y").to_dict()["layer"]
    assert len(with_both) == len(after_only) + 2


def test_long_labels_are_wrapped_and_cut() -> None:
    assert theme.wrapped("Tailored Financial Advice for Everybody", 12) == ["Tailored", "Financial…"]
    assert all(len(line) <= 12 for line in theme.wrapped("Donaudampfschifffahrtsgesellschaft", 12))
    assert theme.wrapped("", 12) == [""]


@pytest.mark.parametrize("heights", [[1.0] * 4, [0.0] * 4, [0.5, 0.51, 0.49], [0.2]])
def test_labels_never_touch_or_leave(heights: list[float]) -> None:
    placed = charts.spaced(heights, 0.1)
    assert all(0 <= value <= 1 for value in placed)
    assert all(b - a >= 0.1 - 1e-9 for a, b in zip(sorted(placed), sorted(placed)[1:], strict=False))


def test_levels_keep_their_order_in_lightness() -> None:
    def lightness(colour: str) -> float:
        red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    for n in (1, 2, 3, 4):
        shades = [lightness(theme.level_look(level, n)[0]) for level in range(n)]
        assert shades == sorted(shades, reverse=True)
        assert len({theme.level_look(level, n)[2] for level in range(n)}) == n


def test_ticks_are_round() -> None:
    assert charts.log_ticks(0.0001, 0.003) == [1e-4, 2e-4, 5e-4, 1e-3, 2e-3]
    assert charts.log_ticks(1, 1e6) == [1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6]


def test_no_chart_holds_a_response(panels: dict[str, Panel]) -> None:
    for panel in panels.values():
        assert not drawn(panel.chart.to_dict()) & {"response", "reason", "prompt", "text_sha256", "url", "href"}


def test_where_only_a_judge_here_has_no_price_cells_stand_at_what_providers_are_paid(
    sweeps: Any, tmp_path: Path
) -> None:
    study = sweeps.small()
    bought = {row["stage_key"] for row in study.rows["stages"] if row["kind"] != "judge"}
    for row in study.rows["stages"]:
        row["account"] = "ours" if row["stage_key"] in bought else None
    for row in study.rows["attempts"]:
        row.update({"device_seconds": 0.0} if row["stage_key"] in bought else {"usd": None})
    study.tuned("local", (10, 1, 1e-3, 0))
    with open_results(study.write(tmp_path)) as results:
        found = gather(results)
    (figure,) = (figure for figure in figures(found) if figure.slug == "cost")
    assert {row["cost_unit"] for row in found.frontier} == {"hosted_usd"}
    assert "US dollars at providers (what ran on this machine is not in it)" in figure.caption
    assert "Not drawn, as their cost there is 0 or unknown: 1 cell." in figure.caption
    dollars = {f"{float(row['cost']):.6g}" for row in found.frontier if row["cost"]}
    for panel in figure.strips[0].panels:
        drawn_ = json.dumps(specification(panel.chart))
        assert "US dollars at providers (log scale)" in drawn_
    assert all(row[1].startswith("$") for row in figure.rows)
    assert len(figure.rows) == len(dollars) >= 2
    page = compose(found)
    (column,) = (column for column in page.cells if column.head == "At providers")
    assert column.entries[-1] == "$0"
    assert all(entry.startswith("$0.000") for entry in column.entries[:-1])
    assert "Cost" in {column.head for column in page.cells}, "the cell that ran here has a price"
