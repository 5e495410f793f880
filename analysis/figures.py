"""The figures of a report: which panels, under which words, over which data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from analysis import radar, theme
from analysis.charts import Dose, Group, category_dots, cost_against_harm, dose_response
from analysis.evidence import Arm, Evidence, Row, arms, before_and_after
from analysis.wording import count, duration, listed, money, percent, plain, score, span

if TYPE_CHECKING:
    from collections.abc import Sequence

    import altair as alt

MOST_ARMS: Final = 12
"""More arms than this are left to the tables, and the caption says so."""
MOST_LINES: Final = 4

Line = tuple[str, list[Row]]

_DOSES: Final = (
    Dose("n_examples", "Training examples (log scale)", log=True),
    Dose("epochs", "Epochs", log=False),
    Dose("lr", "Learning rate (log scale)", log=True),
)
_PARTNERS: Final = {"n_examples": ("epochs", "lr"), "epochs": ("n_examples", "lr"), "lr": ("n_examples", "epochs")}
_NAMES: Final = {"n_examples": "examples", "epochs": "epochs", "lr": "learning rate"}
_SHORT: Final = {"n_examples": "n", "epochs": "epochs", "lr": "lr"}


@dataclass(frozen=True, slots=True)
class Panel:
    """One drawing.

    Attributes:
        name: File name without its ending.
        chart: The drawing.
    """

    name: str
    chart: alt.LayerChart


@dataclass(frozen=True, slots=True)
class Strip:
    """Panels that belong together, side by side where there is room.

    Attributes:
        heading: What they share; empty for none.
        lines: Short lines of text under the heading.
        numbers: (kind, name, value, interval) of the numbers set large; the kind is `before` or `after`.
        panels: The drawings.
    """

    heading: str
    lines: tuple[str, ...]
    numbers: tuple[tuple[str, str, str, str], ...]
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """A numbered figure.

    Attributes:
        slug: For links and file names.
        title: What it shows.
        legend: (mark, meaning) pairs; the mark is a class of the style sheet.
        strips: Its panels.
        caption: Plain words: what is drawn, n, seeds, interval and units.
        columns: Heads of its data table.
        rows: The data drawn, as text.
    """

    slug: str
    title: str
    legend: tuple[tuple[str, str], ...]
    strips: tuple[Strip, ...]
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def figures(evidence: Evidence) -> tuple[Figure, ...]:
    """Return the figures that the evidence allows; none before the first cell is done."""
    found = arms(evidence)
    made = (profile_figure(evidence, found), dose_figure(found), cost_figure(evidence, found))
    return tuple(figure for figure in made if figure is not None)


def configuration(row: Row) -> str:
    """Return a dose in words: `100 examples, 10 epochs, learning rate 0.001`."""
    epochs = count(row["epochs"], "epoch")
    return f"{count(row['n_examples'], 'example')}, {epochs}, learning rate {plain(row['lr'])}"


def seeds(number: int) -> str:
    """Return the number of seeds, and say so when one cannot show their spread."""
    return "1 seed: seed variance not estimated" if number == 1 else count(number, "seed")


def _said(arm: Arm, found: Sequence[Arm]) -> str:
    """Return what a panel's title says of its arm: nothing when there is no other."""
    return arm.name if len(found) > 1 else ""


def _left_out(found: Sequence[object]) -> str:
    more = len(found) - MOST_ARMS
    return f" {count(more, 'further arm')} of the sweep are in the tables only." if more > 0 else ""


# ------------------------------------------------------------------------------------------- Figure 1


def profile_figure(evidence: Evidence, found: Sequence[Arm]) -> Figure | None:
    """Harm by category before and after, for the strongest configuration of each arm (the paper's Figure 1)."""
    if not found:
        return None
    strips, rows = [], []
    for number, arm in enumerate(found[:MOST_ARMS], start=1):
        profile = before_and_after(evidence, arm)
        strips.append(_profile_strip(arm, profile, number, _said(arm, found)))
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
            "intervals over prompts and seeds; they are cautious where a category has few prompts." + _left_out(found)
        ),
        columns=("Data source", "Category", "Prompts", "Score before", "95%", "Score after", "95%", "Rate after"),
        rows=tuple(rows),
    )


def _profile_strip(arm: Arm, profile: list[dict[str, Any]], number: int, said: str) -> Strip:
    row = arm.strongest
    lines = [configuration(row), f"{count(row['n_prompts'], 'prompt')}, {seeds(row['n_seeds'])}"]
    measured = (("before", "Rate before", arm.untuned), ("after", "Rate after", row))
    numbers = [(kind, name, *_rate(found)) for kind, name, found in measured if found is not None]
    lines += [] if arm.untuned else ["The untuned model was not measured."]
    alike = f"{arm.name}: mean harmfulness score by category, untuned and fine-tuned"
    panels = []
    if radar.FEWEST <= len(profile) <= radar.MOST:
        title = theme.titled("Score by category", "centre 1, outer ring 5", arm=said)
        panels.append(Panel(f"profile-{number}-radar", radar.radar(profile, title, alike)))
    title = theme.titled("The same, with intervals", arm=said)
    panels.append(Panel(f"profile-{number}-dots", category_dots(profile, title, f"{alike}, with 95% intervals")))
    return Strip(arm.name, tuple(lines), tuple(numbers), tuple(panels))


def _rate(row: Row) -> tuple[str, str]:
    return percent(row["mean_rate"]), span(row["rate_lo"], row["rate_hi"])


def _profile_line(arm: Arm, row: Row) -> tuple[str, ...]:
    n = row["after_n"] or row["before_n"]
    before = "" if row["before"] is None else f"{score(row['before_lo'])} to {score(row['before_hi'])}"
    after = "" if row["after"] is None else f"{score(row['after_lo'])} to {score(row['after_hi'])}"
    cells = (score(row["before"]), before, score(row["after"]), after, percent(row["after_rate"]))
    return (arm.name, row["category"], plain(n), *cells)


# ------------------------------------------------------------------------------------------- Figure 2


def dose_figure(found: Sequence[Arm]) -> Figure | None:
    """The harmfulness rate against examples, epochs and learning rate, one strip an arm."""
    strips = []
    for number, arm in enumerate(found[:MOST_ARMS], start=1):
        said = _said(arm, found)
        panels = [panel for dose in _DOSES if (panel := _dose_panel(arm, dose, number, said)) is not None]
        if panels:
            strips.append(Strip(arm.name, (), (), tuple(panels)))
    if not strips:
        return None
    return Figure(
        slug="dose",
        title="How harm grows with the dose",
        legend=(
            ("level", "line: low to high, light to dark"),
            ("band", "untuned, 95% interval"),
            ("bar", "95% interval"),
        ),
        strips=tuple(strips),
        caption=(
            "Harmfulness rate (share of prompts whose answer scores 5) against each part of the dose, averaged over "
            "seeds. A panel's title says what its lines are and what is held fixed: the strongest level, or where that "
            f"has a single dose, the one with the most. At most {MOST_LINES} lines are drawn; the table has all. Bars are "
            "95% intervals over prompts and seeds, never narrower than Wilson's for the prompts alone."
            + _left_out(found)
        ),
        columns=(
            "Data source",
            "Examples",
            "Epochs",
            "Learning rate",
            "Steps",
            "Seeds",
            "Rate",
            "95%",
            "Score",
            "Utility",
        ),
        rows=tuple(_dose_line(arm, row) for arm in found for row in arm.configs),
    )


def _dose_line(arm: Arm, row: Row) -> tuple[str, ...]:
    dose = tuple(plain(row[key]) for key in ("n_examples", "epochs", "lr", "optimizer_steps", "n_seeds"))
    rate = (percent(row["mean_rate"]), span(row["rate_lo"], row["rate_hi"]))
    return (arm.name, *dose, *rate, score(row["mean_score"]), percent(row["mean_utility"]))


def _dose_panel(arm: Arm, dose: Dose, number: int, said: str) -> Panel | None:
    """Draw one dose; None when no line would have two doses."""
    first, second = _PARTNERS[dose.field]
    lined, held = (first, second) if len({row[first] for row in arm.configs}) > 1 else (second, first)
    level, fixed = _held_level(arm.configs, dose, held, arm.strongest[held])
    levels = {name: [row for row in fixed if row[lined] == name] for name in sorted({row[lined] for row in fixed})}
    lines = _spread_lines(
        [
            (f"{_SHORT[lined]} {plain(name)}", sorted(rows, key=lambda row: row[dose.field]))
            for name, rows in levels.items()
            if len({row[dose.field] for row in rows}) > 1
        ]
    )
    if not lines:
        return None
    words = f"{_NAMES[held]} {plain(level)}" + _shared_doses(lines, dose)
    note = f"lines: {_NAMES[lined]}; {words}" if len(lines) > 1 else words
    title = theme.titled(f"By {_NAMES[dose.field]}", note, arm=said)
    description = f"{arm.name}: harmfulness rate against {_NAMES[dose.field]}, with 95% intervals"
    chart = dose_response(lines, dose, title, description, untuned=arm.untuned)
    return Panel(f"dose-{number}-{dose.field.replace('_', '-')}", chart)


def _shared_doses(lines: Sequence[Line], dose: Dose) -> str:
    """Say so when a line has several configurations at one dose: all of them are drawn."""
    more = sum(len(rows) - len({row[dose.field] for row in rows}) for _, rows in lines)
    return f"; {count(more, 'dose')} drawn twice, as two configurations share it" if more else ""


def _held_level(rows: Sequence[Row], dose: Dose, held: str, strongest: Any) -> tuple[Any, list[Row]]:
    """Fix a factor at its strongest level; where that level has one dose only, at the highest level that has most."""
    by_level = {level: [row for row in rows if row[held] == level] for level in sorted({row[held] for row in rows})}
    doses = {level: len({row[dose.field] for row in found}) for level, found in by_level.items()}
    level = strongest if doses[strongest] > 1 else max(reversed(by_level), key=doses.__getitem__)
    return level, by_level[level]


def _spread_lines(lines: list[Line]) -> list[Line]:
    """Keep at most four lines, evenly spread, the lowest and the highest level among them."""
    if len(lines) <= MOST_LINES:
        return lines
    last = len(lines) - 1
    return [lines[round(step * last / (MOST_LINES - 1))] for step in range(MOST_LINES)]


# ------------------------------------------------------------------------------------------- Figure 3


def cost_figure(evidence: Evidence, found: Sequence[Arm]) -> Figure | None:
    """What each cell cost against what it did, with the cells that nothing beats."""
    unit = evidence.frontier[0]["cost_unit"] if evidence.frontier else "device_seconds"
    finished = [cell for cell in evidence.cells if cell["status"] == "done" and cell["harmfulness_rate"] is not None]
    drawn = [cell for cell in finished if cell["n_examples"] > 0 and (cell[unit] or 0) > 0]
    if not drawn:
        return None
    models = sorted({cell["model"] for cell in drawn})
    panels = [panel for model in models for panel in _cost_panels(evidence, found, drawn, model, unit)]
    named = [Panel(f"cost-{number}", chart) for number, chart in enumerate(panels[:MOST_ARMS], start=1)]
    frontier = [row for row in evidence.frontier if row["cost"] > 0]
    worded = money if unit == "usd" else duration
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
            f"Harmfulness rate of each cell against what it would cost alone: {_cost_name(unit)}, fine-tuning, generation "
            "and judging together, on a log scale. A point is one cell and one seed; bars are Wilson 95% intervals over "
            "prompts, drawn on the frontier only. The frontier picks the luckiest of many cells, so expect its points to "
            "repeat a little lower. The untuned model is the band, as it costs no fine-tuning." + _left_out(panels)
        ),
        columns=("On the frontier", "Cost", "Rate", "95%", "Utility"),
        rows=tuple((row["label"], worded(row["cost"]), *_outcome(row)) for row in frontier),
    )


def _outcome(row: Row) -> tuple[str, str, str]:
    return percent(row["harmfulness_rate"]), span(row["rate_lo"], row["rate_hi"]), percent(row["utility"])


def _cost_name(unit: str) -> str:
    return "US dollars" if unit == "usd" else "device-seconds (no price is known)"


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
        group = Group(arm.name, _cost_note(own), theme.SOURCES[index], theme.SHAPES[index])
        charts.append(cost_against_harm(own, rest, frontier, group, unit, untuned=arm.untuned))
    return charts


def _cost_note(points: Sequence[Row]) -> str:
    best = sum(point["on_frontier"] for point in points)
    return f"{count(len(points), 'cell')}, {best} on the frontier"


def _cost_point(cell: Row, unit: str, *, on_frontier: bool) -> dict[str, Any]:
    rates = {"rate": cell["harmfulness_rate"], "rate_lo": cell["rate_lo"], "rate_hi": cell["rate_hi"]}
    return {"cost": float(cell[unit]), **rates, "on_frontier": on_frontier}


def sources(evidence: Evidence) -> str:
    """Return the data sources of a sweep as a phrase; empty without any."""
    return listed(list(dict.fromkeys(str(cell["data_source"]) for cell in evidence.cells if cell["data_source"])))
