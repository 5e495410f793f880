"""Panels: rows in, `altair` charts out. Pure; no file, no query, no response text.

Every panel is small and stands alone, so that a page can wrap them on a phone without shrinking their text. Groups are
told apart by colour, shape and dash together, and every estimate carries its 95% interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import altair as alt

from analysis import theme

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Row = Mapping[str, object]

_PERCENT: Final = alt.Axis(format=".0%", values=[0, 0.25, 0.5, 0.75, 1], title="Harmfulness rate")
_SCORES: Final = alt.Axis(
    values=[1, 2, 3, 4, 5],
    format="d",
    title="Mean score (1 to 5), 95% interval",
    titleAnchor="end",
    labelFlush=False,
)
COSTS: Final = {
    "usd": ("Cost in US dollars (log scale)", "$"),
    "hosted_usd": ("US dollars at providers (log scale)", "$"),
    "device_seconds": ("Device-seconds (log scale)", ""),
}
"""By the unit of a cost (`v_pareto.cost_unit`), what its axis says and what stands before its numbers."""
_BELOW: Final = -0.045
"""Where crosses stand on an axis of rates that begins at 0."""
_NUMBER: Final = "datum.value < 0.0001 ? format(datum.value, '~e') : '' + datum.value"
"""A Vega expression that writes a number as `wording.plain` does."""


@dataclass(frozen=True, slots=True)
class Dose:
    """The x axis of a dose-response panel.

    Attributes:
        field: Column of the rows that holds the dose.
        title: Its name and unit.
        log: Whether doses are spread over a log scale.
        name: What it is called in a sentence.
        short: What it is called beside a line.
    """

    field: str
    title: str
    log: bool
    name: str
    short: str


def category_dots(profile: Sequence[Row], title: alt.TitleParams, description: str) -> alt.LayerChart:
    """Draw the mean score by category with its 95% interval, before and after.

    Args:
        profile: One row per category, in the benchmark's order: `category`, and for each of `before` and `after` the mean
            score (1-5) under that name and its interval under `_lo` and `_hi`; None where there is none.
        title: What is shown, n and seeds.
        description: For people who cannot see it.
    """
    order = [str(row["category"]) for row in profile]
    layers: list[alt.Chart] = []
    for series, colour, fill, shape in (
        ("before", theme.BEFORE, "white", "circle"),
        ("after", theme.AFTER, theme.AFTER, "square"),
    ):
        values = [
            {"category": row["category"], "series": series, "score": row[series]}
            | {end: row[f"{series}_{end}"] for end in ("lo", "hi")}
            for row in profile
            if row.get(series) is not None
        ]
        y = alt.Y(
            "category:N",
            sort=order,
            scale=alt.Scale(domain=order),
            axis=alt.Axis(title=None, grid=False, labelColor=theme.INK, labelLimit=130, labelPadding=10),
        )
        beside = alt.YOffset("series:N", scale=alt.Scale(domain=["before", "after"], paddingOuter=0.7))
        base = theme.inline(values).encode(y=y, yOffset=beside)
        x = alt.X(
            "lo:Q",
            scale=alt.Scale(domain=[1, 5], nice=False),
            axis=_SCORES,
        )
        layers.append(base.mark_rule(stroke=colour, strokeWidth=1.6, opacity=0.75).encode(x=x, x2="hi:Q"))
        dots = base.mark_point(shape=shape, size=34, filled=True, fill=fill, stroke=colour, strokeWidth=1.4, opacity=1)
        layers.append(dots.encode(x=alt.X("score:Q")))
    return theme.panel(layers, max(150, 22 * len(order) + 58), title, description)


def dose_response(
    lines: Sequence[tuple[str, Sequence[Row]]],
    dose: Dose,
    title: alt.TitleParams,
    description: str,
    *,
    untuned: Row | None = None,
    blocked: Mapping[str, Sequence[float]] | None = None,
) -> alt.LayerChart:
    """Draw the harmfulness rate against one dose: a line a level, low (light, dotted) to high (dark, solid).

    Args:
        lines: (name of the level, its rows) in rising order, at most four; rows have the dose, `mean_rate`, `rate_lo`
            and `rate_hi` (shares).
        dose: The x axis.
        title: What is shown and what is held fixed.
        description: For people who cannot see it.
        untuned: `mean_rate`, `rate_lo` and `rate_hi` of the untuned model, drawn as a band across; None for none.
        blocked: By the name of a line, the doses at which it has no result because a provider refused: crosses below 0%.
    """
    crosses = blocked or {}
    refused = {at for ats in crosses.values() for at in ats}
    doses = sorted({float(str(row[dose.field])) for _, rows in lines for row in rows} | refused)
    layers = [] if untuned is None else [_untuned_band(untuned)]
    for level, (name, rows) in enumerate(lines):
        layers += _dose_line(rows, dose, doses, level, len(lines))
        if crosses.get(name):
            layers.append(_crosses(crosses[name], dose, doses, level, len(lines)))
    layers.append(_end_labels(lines, dose, doses))
    return theme.panel(layers, 230, title, description)


def _dose_line(rows: Sequence[Row], dose: Dose, doses: list[float], level: int, n_levels: int) -> list[alt.Chart]:
    colour, _, dash = theme.level_look(level, n_levels)
    values = [
        {"dose": row[dose.field], "rate": row["mean_rate"], "lo": row["rate_lo"], "hi": row["rate_hi"]} for row in rows
    ]
    base = theme.inline(values).encode(x=_dose_axis(dose, doses))
    shape = theme.SHAPES[level % len(theme.SHAPES)]
    shift = alt.value(_shift(level, n_levels))
    y = alt.Y("rate:Q", scale=alt.Scale(domain=[0, 1], nice=False), axis=_PERCENT)
    return [
        base.mark_line(stroke=colour, strokeWidth=1.8, strokeDash=list(dash)).encode(y=y, xOffset=shift),
        base.mark_rule(stroke=colour, strokeWidth=1.4, opacity=0.7).encode(y=alt.Y("lo:Q"), y2="hi:Q", xOffset=shift),
        base.mark_point(
            shape=shape, size=42, filled=True, fill=colour, stroke="white", strokeWidth=0.8, opacity=1
        ).encode(y=alt.Y("rate:Q"), xOffset=shift),
    ]


def _shift(level: int, n_levels: int) -> float:
    """Return how far, in px, a level stands from its dose, so that levels do not hide each other."""
    return (level - (n_levels - 1) / 2) * 3


def _crosses(ats: Sequence[float], dose: Dose, doses: list[float], level: int, n_levels: int) -> alt.Chart:
    """Draw a cross at each dose, below the axis of rates: it has none."""
    mark = theme.inline([{"dose": at, "rate": _BELOW} for at in ats]).mark_text(
        text="×", fontSize=16, fontWeight="bold", baseline="middle", color=theme.level_look(level, n_levels)[1]
    )
    y = alt.Y("rate:Q", scale=alt.Scale(domain=[2 * _BELOW, 1], nice=False), axis=_PERCENT)
    chart: alt.Chart = mark.encode(x=_dose_axis(dose, doses), y=y, xOffset=alt.value(_shift(level, n_levels)))
    return chart


def _dose_axis(dose: Dose, doses: list[float], field: str = "dose") -> alt.X:
    low, high = _domain(doses, log=dose.log)
    return alt.X(
        f"{field}:Q",
        scale=alt.Scale(type="log" if dose.log else "linear", domain=[low, high], nice=False),
        axis=alt.Axis(values=doses, labelExpr=_NUMBER, title=dose.title, grid=False, labelOverlap="greedy"),
    )


def _domain(doses: list[float], *, log: bool) -> tuple[float, float]:
    """Leave room at the left for the first interval and at the right for the lines' names."""
    low, high = doses[0], doses[-1]
    if log:
        span = max(high / low, 1.5)
        return low / span**0.08, high * span**0.34
    span = max(high - low, 1.0)
    return low - 0.08 * span, high + 0.34 * span


def _end_labels(lines: Sequence[tuple[str, Sequence[Row]]], dose: Dose, doses: list[float]) -> alt.Chart:
    ends = [(name, float(str(rows[-1]["mean_rate"]))) for name, rows in lines]
    n = len(ends)
    values = [
        {"x": doses[-1], "y": height, "text": name, "colour": theme.level_look(level, n)[1]}
        for level, ((name, _), height) in enumerate(zip(ends, spaced([rate for _, rate in ends], 0.085), strict=True))
    ]
    mark = theme.inline(values).mark_text(align="left", dx=12, baseline="middle", fontSize=11)
    chart: alt.Chart = mark.encode(
        x=_dose_axis(dose, doses, "x"),
        y=alt.Y("y:Q"),
        text="text:N",
        color=alt.Color("colour:N", scale=None),
    )
    return chart


def spaced(heights: Sequence[float], gap: float, low: float = 0.0, high: float = 1.0) -> list[float]:
    """Move labels apart so that no two are closer than `gap`, keeping their order and staying within the axis.

    >>> spaced([1.0, 1.0, 0.2], 0.1)
    [0.9, 1.0, 0.2]
    """
    order = sorted(range(len(heights)), key=lambda index: (heights[index], index))
    placed = list(heights)
    floor = low - gap
    for index in order:
        placed[index] = floor = max(placed[index], floor + gap)
    ceiling = high + gap
    for index in reversed(order):
        placed[index] = ceiling = min(placed[index], ceiling - gap)
    return [round(value, 4) for value in placed]


def _untuned_band(untuned: Row) -> alt.Chart:
    """Draw the untuned model's interval across the whole panel."""
    mark = theme.inline([untuned]).mark_rect(color=theme.BEFORE, opacity=0.16)
    y = alt.Y("rate_lo:Q", scale=alt.Scale(domain=[0, 1], nice=False), axis=_PERCENT)
    chart: alt.Chart = mark.encode(y=y, y2="rate_hi:Q")
    return chart


@dataclass(frozen=True, slots=True)
class Group:
    """An arm in the cost chart.

    Attributes:
        name: Its name.
        note: What its points are, with their number.
        colour: Its colour.
        shape: Its shape.
    """

    name: str
    note: str
    colour: str
    shape: str


def cost_against_harm(
    cells: Sequence[Row],
    others: Sequence[Row],
    frontier: Sequence[Row],
    group: Group,
    unit: str,
    *,
    untuned: Row | None = None,
) -> alt.LayerChart:
    """Draw one arm's cells over the rest, in grey, with the frontier of all as a staircase.

    Args:
        cells: The group's cells: `cost` (> 0), `rate`, `rate_lo`, `rate_hi`, `on_frontier`.
        others: The other cells, for context.
        frontier: The non-dominated cells of all groups, by rising cost: `cost`, `rate`.
        group: How the group is named and drawn.
        unit: A key of `COSTS`.
        untuned: `rate_lo` and `rate_hi` of the untuned model, drawn as a band across; None for none.
    """
    costs = [float(str(row["cost"])) for row in [*cells, *others]]
    low, high = min(costs) / 1.25, max(costs) * 1.25
    name, sign = COSTS[unit]
    axis = alt.Axis(
        values=log_ticks(low, high),
        labelExpr=f"'{sign}' + ({_NUMBER})",
        title=name,
        grid=False,
        labelOverlap="greedy",
    )
    x = alt.X("cost:Q", scale=alt.Scale(type="log", domain=[low, high], nice=False), axis=axis)
    y = alt.Y("rate:Q", scale=alt.Scale(domain=[0, 1], nice=False), axis=_PERCENT)
    stairs = [*frontier, {"cost": high, "rate": frontier[-1]["rate"]}] if frontier else []
    grey = theme.inline(others).mark_point(shape="circle", size=12, filled=True, fill="#cfd5da", opacity=1)
    step = theme.inline(stairs).mark_line(interpolate="step-after", stroke=theme.INK, strokeWidth=1)
    own = theme.inline(cells)
    bars = theme.inline([row for row in cells if row["on_frontier"]]).mark_rule(stroke=group.colour, strokeWidth=1.6)
    dots = own.mark_point(shape=group.shape, size=30, filled=True, fill=group.colour, stroke="white", strokeWidth=0.5)
    band = [] if untuned is None else [_untuned_band(untuned)]
    layers = [
        *band,
        grey.encode(x=x, y=y),
        step.encode(x=x, y=y),
        bars.encode(x=x, y=alt.Y("rate_lo:Q"), y2="rate_hi:Q"),
        dots.encode(x=x, y=y, opacity=alt.value(0.9)),
    ]
    title = theme.titled(group.name, group.note)
    return theme.panel(layers, 240, title, f"{group.name}: cost against harmfulness rate, with the frontier")


def log_ticks(low: float, high: float) -> list[float]:
    """Return round ticks (1, 2, 5 times powers of ten) within a range; fewer when it spans many decades.

    >>> log_ticks(0.8, 30)
    [1.0, 2.0, 5.0, 10.0, 20.0]
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if last - first <= 3 else (1,)  # noqa: PLR2004
    ticks = [float(f"{step}e{power}") for power in range(first, last + 1) for step in steps]
    return [tick for tick in ticks if low <= tick <= high]
