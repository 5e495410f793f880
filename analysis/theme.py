"""The look of every chart: one registered theme, one palette, one size. Colour never carries a meaning alone."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

import altair as alt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WIDTH: Final = 340
"""Width of a panel in px: it fits a phone of 390 px unshrunk, and three stand side by side on a desk."""

INK: Final = "#1c1f23"
MUTED: Final = "#5c6570"
FAINT: Final = "#e4e7ea"
BEFORE: Final = "#5c6570"
"""The untuned model, everywhere; drawn dashed and hollow."""
AFTER: Final = "#c2410c"
"""The tuned model in before-and-after charts; drawn solid and filled."""

FONT: Final = "Helvetica Neue, Helvetica, Arial, Liberation Sans, sans-serif"

SOURCES: Final = ("#0072b2", "#c2410c", "#00795a", "#8a4f9e", "#946300", "#3a3f45")
"""Unordered groups: Okabe & Ito's hues, darkened to a contrast of 4.5 on white."""
LEVELS: Final = ("#7aa7cf", "#4585bd", "#1d5a96", "#0b2c55")
"""Ordered levels, low to high: they differ in lightness, so a grey print keeps the order."""
LEVEL_TEXT: Final = ("#4f7799", "#35719f", "#1d5a96", "#0b2c55")
"""The same for words, which need more contrast."""
SHAPES: Final = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
DASHES: Final = ((2, 2), (5, 3), (9, 3), (1, 0))


_LINES: Final = 4
"""As many lines may a name take: cut earlier, two arms could read alike."""


@alt.theme.register("dosimeter", enable=True)
def dosimeter_theme() -> alt.theme.ThemeConfig:
    """Return the theme: white paper, thin rules, dark text of 11 px and more."""
    return {
        "config": {
            "background": "white",
            "font": FONT,
            "padding": {"left": 2, "right": 2, "top": 2, "bottom": 2},
            "view": {"stroke": None},
            "axis": {
                "domain": False,
                "grid": True,
                "gridColor": FAINT,
                "labelColor": MUTED,
                "labelFontSize": 11,
                "labelPadding": 6,
                "ticks": False,
                "titleColor": INK,
                "titleFontSize": 11,
                "titleFontWeight": 400,
                "titlePadding": 8,
            },
            "title": {
                "anchor": "start",
                "color": INK,
                "fontSize": 12,
                "fontWeight": 600,
                "frame": "group",
                "offset": 10,
                "subtitleColor": MUTED,
                "subtitleFontSize": 11,
                "subtitlePadding": 4,
            },
            "text": {"color": INK, "fontSize": 11},
        }
    }


def inline(rows: Sequence[Mapping[str, object]]) -> alt.Chart:
    """Start a chart on rows that travel inside it."""
    return alt.Chart(alt.InlineData(values=[dict(row) for row in rows]))


def panel(
    layers: Sequence[alt.Chart], height: int, title: alt.TitleParams, description: str, *, inner: bool = False
) -> alt.LayerChart:
    """Stack layers into one panel, `WIDTH` px wide in all, axes and labels included.

    Args:
        layers: From the back to the front.
        height: In px, title included.
        title: What is shown.
        description: For people who cannot see it; becomes the drawing's accessible name.
        inner: Whether the width and height are those of the drawing alone, without its title.
    """
    chart: alt.LayerChart = alt.LayerChart(
        layer=list(layers),
        width=WIDTH - 4 if inner else WIDTH,
        height=height,
        title=title,
        description=description,
        autosize=alt.AutoSizeParams(type="pad" if inner else "fit", contains="padding"),
    )
    return chart


def level_look(level: int, n_levels: int) -> tuple[str, str, tuple[int, int]]:
    """Return how an ordered level is drawn, 0 being the lowest: the colours of its marks and of its name, and its dash.

    The highest is always the darkest, and solid.
    """
    at = max(0, len(LEVELS) - n_levels + level)
    return LEVELS[at], LEVEL_TEXT[at], DASHES[at]


def wrapped(text: str, width: int, lines: int = 2) -> list[str]:
    """Break a label over at most `lines` lines of `width` characters; what does not fit ends in an ellipsis.

    It breaks at spaces and after slashes, so that paths and pairs of words stay readable.

    >>> wrapped("Tailored Financial Advice", 12)
    ['Tailored', 'Financial…']
    >>> wrapped("Fraud/Deception", 12)
    ['Fraud/', 'Deception']
    """
    parts = textwrap.wrap(" ".join(text.replace("/", "/ ").split()), width, break_long_words=True) or [""]
    parts = [part.replace("/ ", "/") for part in parts]
    if len(parts) > lines:
        last = textwrap.shorten(parts[lines - 1], width - 1, placeholder="")[: width - 1]
        parts = [*parts[: lines - 1], f"{last}…"]
    return parts


def titled(title: str, subtitle: str = "", width: int = 52, *, arm: str = "") -> alt.TitleParams:
    """Return a panel's title, bold, and lighter lines below it.

    Args:
        title: What is shown.
        subtitle: n, seeds and what is held fixed.
        width: Of the lighter lines, in characters.
        arm: What tells the panel from those of the other arms; stands above the subtitle.
    """
    below = [line for text in (arm, subtitle) if text for line in wrapped(text, width, _LINES if text == arm else 3)]
    return alt.TitleParams(text=wrapped(title, width - 6, _LINES), subtitle=below)
