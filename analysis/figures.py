"""The figures of a report: which panels, under which words, over which data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from analysis import radar, theme
from analysis.charts import Group, category_dots, cost_against_harm
from analysis.doses import dose_figure
from analysis.evidence import Arm, Evidence, Row, arms, before_and_after
from analysis.panels import (
    MOST_ARMS,
    Figure,
    Panel,
    Strip,
    blocked,
    configuration,
    left_out,
    said,
    seeds,
    unseen,
)
from analysis.wording import count, duration, money, percent, plain, score, span

if TYPE_CHECKING:
    from collections.abc import Sequence

    import altair as alt


def figures(evidence: Evidence) -> tuple[Figure, ...]:
    """Return the figures that the evidence allows; none before the first cell is done."""
    found = arms(evidence)
    made = (profile_figure(evidence, found), dose_figure(evidence, found), cost_figure(evidence, found))
    return tuple(figure for figure in made if figure is not None)


def profile_figure(evidence: Evidence, found: Sequence[Arm]) -> Figure | None:
    """Harm by category before and after, for the strongest configuration of each arm (the paper's Figure 1)."""
    if not found:
        return None
    strips, rows = [], []
    for number, arm in enumerate(found[:MOST_ARMS], start=1):
        profile = before_and_after(evidence, arm)
        strips.append(_profile_strip(arm, profile, number, said(arm, found)))
        rows += [_profile_line(arm, row) for row in profile]
    return Figure(
        slug="profile",
        title="Harm by category, before and after fine-tuning",
        legend=(("before", "untuned"), ("after", "fine-tuned"), ("bar", "95% interval")),
        strips=tuple(strips),
        caption=(
            "Mean score of the judge by category of the benchmark, from 1 (refuses) to 5 (does what was asked), for the "
            "strongest fine-tuning of each arm: the most examples, then the most epochs, then the highest "
            "learning rate, averaged over its seeds. The radar and the dots show the same numbers. Bars are 95% "
            "intervals over prompts and seeds; they are cautious where a category has few prompts."
            + left_out(found)
            + unseen(evidence, found)
        ),
        columns=("Data source", "Category", "Prompts", "Score before", "95%", "Score after", "95%", "Rate after"),
        rows=tuple(rows),
    )


def _profile_strip(arm: Arm, profile: list[dict[str, Any]], number: int, name: str) -> Strip:
    row = arm.strongest
    lines = [configuration(row), f"{count(row['n_prompts'], 'prompt')}, {seeds(row['n_seeds'])}"]
    measured = (("before", "Rate before", arm.untuned), ("after", "Rate after", row))
    numbers = [
        (kind, name, percent(found["mean_rate"]), span(found["rate_lo"], found["rate_hi"]))
        for kind, name, found in measured
        if found is not None
    ]
    lines += [] if arm.untuned else ["The untuned model was not measured."]
    lines += [f"{text}, and so not drawn" for text in blocked(arm)]
    alike = f"{arm.name}: mean harmfulness score by category, untuned and fine-tuned"
    panels = []
    if radar.FEWEST <= len(profile) <= radar.MOST:
        title = theme.titled("Score by category", "; ".join(["centre 1, outer ring 5", *blocked(arm)]), arm=name)
        panels.append(Panel(f"profile-{number}-radar", radar.radar(profile, title, alike)))
    title = theme.titled("The same, with intervals", "".join(blocked(arm)), arm=name)
    panels.append(Panel(f"profile-{number}-dots", category_dots(profile, title, f"{alike}, with 95% intervals")))
    return Strip(arm.name, tuple(lines), tuple(numbers), tuple(panels))


def _profile_line(arm: Arm, row: Row) -> tuple[str, ...]:
    n = row["after_n"] or row["before_n"]
    before = "" if row["before"] is None else f"{score(row['before_lo'])} to {score(row['before_hi'])}"
    after = "" if row["after"] is None else f"{score(row['after_lo'])} to {score(row['after_hi'])}"
    cells = (score(row["before"]), before, score(row["after"]), after, percent(row["after_rate"]))
    return (arm.name, row["category"], plain(n), *cells)


def cost_figure(evidence: Evidence, found: Sequence[Arm]) -> Figure | None:
    """What each cell cost against what it did, with the cells that nothing beats."""
    if not evidence.frontier:
        return None
    unit = evidence.frontier[0]["cost_unit"]
    finished = [cell for cell in evidence.cells if cell["status"] == "done" and cell["harmfulness_rate"] is not None]
    drawn = [cell for cell in finished if cell["n_examples"] > 0 and (cell[unit] or 0) > 0]
    if not drawn:
        return None
    models = sorted({cell["model"] for cell in drawn})
    panels = [panel for model in models for panel in _cost_panels(evidence, found, drawn, model, unit)]
    named = [Panel(f"cost-{number}", chart) for number, chart in enumerate(panels[:MOST_ARMS], start=1)]
    frontier = [row for row in evidence.frontier if row["cost"] > 0]
    worded = duration if unit == "device_seconds" else money
    return Figure(
        slug="cost",
        title="What harm costs",
        legend=(
            ("cell", "a fine-tuned cell"),
            ("other", "the model's other cells"),
            ("frontier", "frontier: no cell is cheaper and more harmful"),
            ("band", "untuned, 95% interval"),
        ),
        strips=(Strip("", (), (), tuple(named)),),
        caption=(
            f"Harmfulness rate of each cell against what it would cost alone: {_COST_NAMES[unit]}, fine-tuning, generation "
            "and judging together, on a log scale. A point is one cell and one seed; bars are Wilson 95% intervals over "
            "prompts, drawn on the frontier only. The frontier picks the luckiest of many cells, so expect its points to "
            "repeat a little lower. The untuned model is the band, as it costs no fine-tuning."
            + _free(finished, unit)
            + left_out(panels)
            + unseen(evidence, found)
        ),
        columns=("On the frontier", "Cost", "Rate", "95%", "Utility"),
        rows=tuple(
            (
                row["label"],
                worded(row["cost"]),
                percent(row["harmfulness_rate"]),
                span(row["rate_lo"], row["rate_hi"]),
                percent(row["utility"]),
            )
            for row in frontier
        ),
    )


def _free(cells: Sequence[Row], unit: str) -> str:
    """Say how many fine-tuned cells stand on no log scale, as they bought nothing or nobody knows for how much."""
    number = sum(cell["n_examples"] > 0 and not cell[unit] for cell in cells)
    return f" Not drawn, as their cost there is 0 or unknown: {count(number, 'cell')}." if number else ""


_COST_NAMES: Final = {
    "usd": "US dollars",
    "hosted_usd": "US dollars at providers (what ran on this machine is not in it)",
    "device_seconds": "device-seconds (no price is known)",
}


def _cost_panels(
    evidence: Evidence, found: Sequence[Arm], drawn: Sequence[Row], model: str, unit: str
) -> list[alt.LayerChart]:
    """Draw the cells of each of a model's arms over the model's other cells, with the band of the arm's own baseline."""
    cells = [cell for cell in drawn if cell["model"] == model]
    best = {row["cell_id"] for row in evidence.frontier if row["model"] == model}
    points = {cell["cell_id"]: _cost_point(cell, unit, on_frontier=cell["cell_id"] in best) for cell in cells}
    frontier = sorted((points[key] for key in best if key in points), key=lambda point: point["cost"])
    charts: list[alt.LayerChart] = []
    for arm in found:
        members = {row["config_id"] for row in arm.configs}
        own = [points[cell["cell_id"]] for cell in cells if cell["config_id"] in members]
        if not own:
            continue
        rest = [points[cell["cell_id"]] for cell in cells if cell["config_id"] not in members]
        index = len(charts) % len(theme.SOURCES)
        note = f"{count(len(own), 'cell')}, {sum(point['on_frontier'] for point in own)} on the frontier"
        group = Group(arm.name, ", ".join([note, *blocked(arm)]), theme.SOURCES[index], theme.SHAPES[index])
        charts.append(cost_against_harm(own, rest, frontier, group, unit, untuned=arm.untuned))
    return charts


def _cost_point(cell: Row, unit: str, *, on_frontier: bool) -> dict[str, Any]:
    rates = {"rate": cell["harmfulness_rate"], "rate_lo": cell["rate_lo"], "rate_hi": cell["rate_hi"]}
    return {"cost": float(cell[unit]), **rates, "on_frontier": on_frontier}
