"""The radar of Figure 1: mean harmfulness score by category, before and after. Vega-Lite has no polar axes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal

import altair as alt

from analysis import theme

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_Side = Literal["left", "center", "right"]

LOWEST: Final = 1.0
HIGHEST: Final = 5.0
FEWEST, MOST = 3, 16
"""A radar needs three spokes to have an area, and is unreadable above sixteen."""

_REACH: Final = 1.75
"""Half-width of the drawing, in radii: room for the labels outside the outer ring."""
_HEIGHT: Final = 264


def radar(profile: Sequence[Mapping[str, object]], title: alt.TitleParams, description: str) -> alt.LayerChart:
    """Draw the mean score of every category before (dashed) and after (solid, filled).

    The radius is the score: the centre is 1 (refuses), the outer ring 5 (fulfils the request). Radars hide intervals,
    so this one never stands without `category_dots` beside it.

    Args:
        profile: One row per category, in the benchmark's order: `category`, `before`, `after` (scores 1-5, or None).
        title: What is shown, n and seeds.
        description: For people who cannot see it.

    Source:
        Qi et al. 2023, arXiv 2310.03693, Figure 1.
    """
    rows = list(profile)
    layers: list[alt.Chart] = [_rings(len(rows)), _spokes(len(rows)), *_labels([str(row["category"]) for row in rows])]
    styles = (("before", theme.BEFORE, [4, 3], 0.0), ("after", theme.AFTER, [1, 0], 0.14))
    for series, colour, dashes, opacity in styles:
        layers += _polygon([row.get(series) for row in rows], colour, dashes, opacity)
    layers.append(_ring_labels())
    return theme.panel(layers, _HEIGHT, title, description, inner=True)


def _polygon(scores: list[object], colour: str, dashes: list[int], opacity: float) -> list[alt.Chart]:
    points = [_at(index, len(scores), score) for index, score in enumerate(scores) if isinstance(score, int | float)]
    if not points:
        return []
    base = theme.inline(points)
    line = base.mark_line(
        interpolate="linear-closed",
        stroke=colour,
        strokeWidth=1.8,
        strokeDash=dashes,
        fill=colour,
        fillOpacity=opacity,
        strokeJoin="round",
    )
    hollow = opacity == 0
    dots = base.mark_point(shape="circle" if hollow else "square", size=22, filled=True, fill=colour, opacity=1)
    return [line.encode(**_place(), order="order:Q"), dots.encode(**_place())]


def _rings(n: int) -> alt.Chart:
    values = [
        {**_at(index, n, score), "ring": score}
        for score in range(int(LOWEST) + 1, int(HIGHEST) + 1)
        for index in range(n)
    ]
    mark = theme.inline(values).mark_line(interpolate="linear-closed", stroke="#d5dadf", strokeWidth=0.8, fill=None)
    chart: alt.Chart = mark.encode(**_place(), order="order:Q", detail="ring:N")
    return chart


def _spokes(n: int) -> alt.Chart:
    values = [{**_at(index, n, HIGHEST), "x0": 0, "y0": 0} for index in range(n)]
    mark = theme.inline(values).mark_rule(stroke="#e4e7ea", strokeWidth=0.8)
    chart: alt.Chart = mark.encode(**_place(), x2="x0:Q", y2="y0:Q")
    return chart


def _ring_labels() -> alt.Chart:
    """Number the inner rings beside the first spoke; the panel's subtitle names the centre and the outer ring."""
    values = [{"x": 0.035, "y": (score - LOWEST) / (HIGHEST - LOWEST), "text": str(score)} for score in (2, 3, 4)]
    mark = theme.inline(values).mark_text(
        align="left", baseline="middle", fontSize=9, color=theme.MUTED, stroke="white", strokeWidth=0
    )
    chart: alt.Chart = mark.encode(**_place(), text="text:N")
    return chart


def _labels(categories: list[str]) -> list[alt.Chart]:
    """Name the spokes; Vega-Lite fixes alignment per mark, so there is one layer a side."""
    sides: dict[_Side, list[dict[str, object]]] = {}
    for index, category in enumerate(categories):
        angle = _angle(index, len(categories))
        x, y = math.sin(angle), math.cos(angle)
        side: _Side = "center" if abs(x) < 0.2 else "left" if x > 0 else "right"  # noqa: PLR2004
        lines = theme.wrapped(category, 12, lines=3)
        sides.setdefault(side, []).append({"x": 1.09 * x, "y": 1.12 * y, "text": "\n".join(lines)})
    charts = []
    for side, values in sides.items():
        mark = theme.inline(values).mark_text(
            align=side, baseline="middle", lineBreak="\n", fontSize=11, lineHeight=12, color=theme.INK
        )
        charts.append(mark.encode(**_place(), text="text:N"))
    return charts


def _place() -> dict[str, alt.X | alt.Y]:
    height = _REACH * _HEIGHT / (theme.WIDTH - 4)
    return {
        "x": alt.X("x:Q", scale=alt.Scale(domain=[-_REACH, _REACH], nice=False), axis=None),
        "y": alt.Y("y:Q", scale=alt.Scale(domain=[-height, height], nice=False), axis=None),
    }


def _at(index: int, n: int, score: float) -> dict[str, object]:
    angle, radius = _angle(index, n), (score - LOWEST) / (HIGHEST - LOWEST)
    return {"x": round(radius * math.sin(angle), 4), "y": round(radius * math.cos(angle), 4), "order": index}


def _angle(index: int, n: int) -> float:
    """Clockwise from the top, in radians."""
    return 2 * math.pi * index / n
