"""What figures are made of, and the words that they share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from analysis.charts import Dose
from analysis.evidence import Arm, Evidence, Row, refused
from analysis.wording import count, listed, plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    import altair as alt

MOST_ARMS: Final = 12
"""More arms than this are left to the tables, and the caption says so."""

EXAMPLES: Final = Dose("n_examples", "Training examples (log scale)", log=True, name="examples", short="n")
EPOCHS: Final = Dose("epochs", "Epochs", log=False, name="epochs", short="epochs")
STEPS: Final = Dose("steps", "Optimizer steps (log scale)", log=True, name="steps", short="steps")
RATE: Final = Dose("lr", "Learning rate (log scale)", log=True, name="learning rate", short="lr")
MULTIPLIER: Final = Dose(
    "lr_multiplier",
    "Multiplier of the learning rate (log scale)",
    log=True,
    name="learning-rate multiplier",
    short="lr ×",
)


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


def configuration(row: Row) -> str:
    """Return a dose in words: `100 examples, 10 epochs, learning rate 0.001`."""
    length = count(row["steps"], "step") if row["epochs"] is None else count(row["epochs"], "epoch")
    parts = [count(row["n_examples"], "example"), length]
    parts += [f"{rate.name} {plain(row[rate.field])}" for rate in (RATE, MULTIPLIER) if row[rate.field] is not None]
    return ", ".join(parts)


def seeds(number: int) -> str:
    """Return the number of seeds, and say so when one cannot show their spread."""
    return "1 seed: seed variance not estimated" if number == 1 else count(number, "seed")


def said(arm: Arm, found: Sequence[Arm]) -> str:
    """Return what a panel's title says of its arm: nothing when there is no other."""
    return arm.name if len(found) > 1 else ""


def left_out(found: Sequence[object]) -> str:
    """Say how many arms are not drawn, as there are too many; nothing otherwise."""
    more = len(found) - MOST_ARMS
    return f" {count(more, 'further arm')} of the sweep are in the tables only." if more > 0 else ""


def unseen(evidence: Evidence, found: Sequence[Arm]) -> str:
    """Name the arms that cannot be drawn, as a provider's moderation refused all of their cells that have ended."""
    names = sorted(refused(evidence).keys() - {arm.name for arm in found})
    return f" Not drawn, because the provider's moderation refused to train on it: {listed(names)}." if names else ""


def blocked(arm: Arm) -> list[str]:
    """Say how many cells of an arm have no result because a provider refused; nothing without any."""
    return [f"{count(arm.n_blocked, 'cell')} blocked by the provider"] if arm.n_blocked else []
