"""Small drawings that the page makes itself: the legend's marks, and the interval in each row of the table of cells."""

from __future__ import annotations

from typing import Final

from markupsafe import Markup

from analysis import theme

_TRACK: Final = 120


def track(rate: float | None, low: float | None, high: float | None) -> Markup:
    """Draw a rate and its interval on a line from 0% to 100%; nothing without a rate.

    Args:
        rate: In [0, 1], or None.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """
    if rate is None or low is None or high is None:
        return Markup("")
    at, left, right = (round(3 + (_TRACK - 6) * float(share), 1) for share in (rate, low, high))
    return Markup(
        '<svg width="{w}" height="16" viewBox="0 0 {w} 16" aria-hidden="true">'
        '<path d="M3 8H{end}" stroke="#e4e7ea"/><path d="M{left} 8H{right}" stroke="{ink}" stroke-width="2"/>'
        '<circle cx="{at}" cy="8" r="3" fill="{ink}"/></svg>'
    ).format(w=_TRACK, end=_TRACK - 3, left=left, right=right, at=at, ink=theme.AFTER)


def _mark(body: str, width: int = 22) -> Markup:
    opening = f'<svg width="{width}" height="12" viewBox="0 0 {width} 12" aria-hidden="true">'
    return Markup(opening + body + "</svg>")  # noqa: S704  # constants of this module


LEGEND: Final = {
    "before": _mark(
        f'<path d="M0 6H22" stroke="{theme.BEFORE}" stroke-width="1.8" stroke-dasharray="4 3"/>'
        f'<circle cx="11" cy="6" r="3" fill="#fff" stroke="{theme.BEFORE}" stroke-width="1.4"/>'
    ),
    "after": _mark(
        f'<path d="M0 6H22" stroke="{theme.AFTER}" stroke-width="1.8"/>'
        f'<rect x="8" y="3" width="6" height="6" fill="{theme.AFTER}"/>'
    ),
    "bar": _mark(f'<path d="M0 6H22" stroke="{theme.INK}" stroke-width="1.6" opacity=".75"/>'),
    "level": _mark(
        "".join(f'<rect x="{6 * at}" y="3" width="5" height="6" fill="{hue}"/>' for at, hue in enumerate(theme.LEVELS)),
        24,
    ),
    "band": _mark(f'<rect y="2" width="22" height="8" fill="{theme.BEFORE}" opacity=".16"/>'),
    "cell": _mark(
        f'<circle cx="6" cy="6" r="3.2" fill="{theme.SOURCES[0]}"/>'
        f'<rect x="13" y="3" width="6" height="6" fill="{theme.SOURCES[1]}"/>'
    ),
    "other": _mark('<circle cx="11" cy="6" r="2.4" fill="#cfd5da"/>'),
    "blocked": _mark(f'<path d="M8 3L14 9M14 3L8 9" stroke="{theme.INK}" stroke-width="1.8"/>'),
    "frontier": _mark(f'<path d="M0 10H8V2H22" fill="none" stroke="{theme.INK}"/>'),
}
"""What each mark of a figure looks like, by name."""
