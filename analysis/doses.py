"""Figure 2: how harm grows with each part of the dose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from analysis import theme
from analysis.charts import Dose, dose_response
from analysis.panels import (
    EPOCHS,
    EXAMPLES,
    MOST_ARMS,
    MULTIPLIER,
    RATE,
    STEPS,
    Figure,
    Panel,
    Strip,
    blocked,
    left_out,
    said,
    unseen,
)
from analysis.wording import count, percent, plain, score, span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from analysis.evidence import Arm, Evidence, Row

    Line = tuple[str, list[Row]]

MOST_LINES: Final = 4


def dose_figure(evidence: Evidence, found: Sequence[Arm]) -> Figure | None:
    """The harmfulness rate against examples, epochs and learning rate, one strip per arm."""
    strips = []
    for number, arm in enumerate(found[:MOST_ARMS], start=1):
        name = said(arm, found)
        panels = [panel for dose in _doses(arm) if (panel := _dose_panel(arm, dose, number, name)) is not None]
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
            *((("blocked", "blocked by the provider: no result"),) if any(arm.blocked for arm in found) else ()),
        ),
        strips=tuple(strips),
        caption=(
            "Harmfulness rate (share of prompts whose answer scores 5) against each part of the dose, averaged over "
            "seeds. A panel's title says what its lines are and what is held fixed: the strongest level, or where that "
            f"has a single dose, the one with the most. At most {MOST_LINES} lines are drawn; the table has all. Bars are "
            "95% intervals over prompts and seeds, never narrower than Wilson's for the prompts alone."
            + left_out(found)
            + unseen(evidence, found)
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
        rows=tuple(_dose_line(arm, row) for arm in found for row in _all(arm)),
    )


def _all(arm: Arm) -> list[Row]:
    return sorted([*arm.configs, *arm.blocked], key=lambda row: row["position"])


def _is_blocked(row: Row) -> bool:
    """Tell a configuration that a provider refused from one with a result; an arm has no others."""
    return row["mean_rate"] is None


def _dose_line(arm: Arm, row: Row) -> tuple[str, ...]:
    rate_of = "× " + plain(row["lr_multiplier"]) if row["lr_multiplier"] is not None else plain(row["lr"])
    dose = (
        plain(row["n_examples"]),
        plain(row["epochs"]),
        rate_of,
        plain(row["optimizer_steps"]),
        plain(row["n_seeds"]),
    )
    rate = "blocked" if _is_blocked(row) else percent(row["mean_rate"])
    interval = span(row["rate_lo"], row["rate_hi"])
    return (arm.name, *dose, rate, interval, score(row["mean_score"]), percent(row["mean_utility"]))


def _doses(arm: Arm) -> tuple[Dose, Dose, Dose]:
    """Return the parts of an arm's dose; a provider's learning rate is a multiple of one of its own."""
    is_multiplied = any(row["lr_multiplier"] is not None for row in _all(arm))
    is_in_steps = all(row["epochs"] is None for row in _all(arm))
    return EXAMPLES, STEPS if is_in_steps else EPOCHS, MULTIPLIER if is_multiplied else RATE


def _dose_panel(arm: Arm, dose: Dose, number: int, name: str) -> Panel | None:
    """Draw one dose; None when no line would have two doses, blocked ones among them."""
    first, second = (other for other in _doses(arm) if other is not dose)
    lined, held = (first, second) if len({row[first.field] for row in _all(arm)}) > 1 else (second, first)
    shown = [row for row in _all(arm) if row[dose.field] is not None]
    at, fixed = _held_level(shown, dose, held, arm.strongest[held.field])
    lines = _spread_lines([line for level in _levels(fixed, lined) if (line := _line(fixed, dose, lined, level))[1]])
    if not lines:
        return None
    words = _unset(held)[0] if at is None else f"{held.name} {plain(at)}"
    words += _shared_doses(lines, dose)
    note = f"lines: {lined.name}; {words}" if len(lines) > 1 else words
    title = theme.titled(f"By {dose.name}", "; ".join([note, *blocked(arm)]), arm=name)
    description = f"{arm.name}: harmfulness rate against {dose.name}, with 95% intervals"
    drawn = [(text, [row for row in rows if not _is_blocked(row)]) for text, rows in lines]
    crosses = {text: [row[dose.field] for row in rows if _is_blocked(row)] for text, rows in lines}
    chart = dose_response(drawn, dose, title, description, untuned=arm.untuned, blocked=crosses)
    return Panel(f"dose-{number}-{dose.field.replace('_', '-')}", chart)


def _line(rows: Sequence[Row], dose: Dose, lined: Dose, level: Any) -> Line:
    """Return a level's rows by rising dose; none unless there are two doses and a result."""
    own = sorted((row for row in rows if row[lined.field] == level), key=lambda row: row[dose.field])
    text = _unset(lined)[1] if level is None else f"{lined.short} {plain(level)}"
    return text, own if _n_doses(own, dose) > 1 else []


def _unset(dose: Dose) -> tuple[str, str]:
    """Return what is said of a dose that nobody set, in a sentence and beside a line."""
    is_rate = dose in (RATE, MULTIPLIER)
    return ("learning rate chosen by the provider", "lr auto") if is_rate else ("length in steps", "in steps")


def _levels(rows: Sequence[Row], factor: Dose) -> list[Any]:
    """Return a factor's levels, low to high; what a provider chose comes first."""
    return sorted({row[factor.field] for row in rows}, key=lambda level: (level is not None, level or 0))


def _n_doses(rows: Sequence[Row], dose: Dose) -> int:
    """Count the doses of some rows; 0 where all of them are blocked."""
    return len({row[dose.field] for row in rows}) if not all(map(_is_blocked, rows)) else 0


def _shared_doses(lines: Sequence[Line], dose: Dose) -> str:
    """Say so when a line has several configurations at one dose: all of them are drawn."""
    more = sum(len(rows) - len({row[dose.field] for row in rows}) for _, rows in lines)
    return f"; {count(more, 'dose')} drawn twice, as two configurations share it" if more else ""


def _held_level(rows: Sequence[Row], dose: Dose, held: Dose, strongest: Any) -> tuple[Any, list[Row]]:
    """Fix a factor at its strongest level; where that level has one dose only, at the highest level that has most."""
    by_level = {level: [row for row in rows if row[held.field] == level] for level in _levels(rows, held)}
    doses = {level: _n_doses(found, dose) for level, found in by_level.items()}
    if doses.get(strongest, 0) > 1 or not doses:
        return strongest, by_level.get(strongest, [])
    level = max(reversed(by_level), key=doses.__getitem__)
    return level, by_level[level]


def _spread_lines(lines: list[Line]) -> list[Line]:
    """Keep at most four lines, evenly spread, the lowest and the highest level among them."""
    if len(lines) <= MOST_LINES:
        return lines
    last = len(lines) - 1
    return [lines[round(step * last / (MOST_LINES - 1))] for step in range(MOST_LINES)]
