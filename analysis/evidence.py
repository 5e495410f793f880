"""All data of a report: the results views, each queried once, and the tuned configurations grouped into arms, which differ in dose only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from engine.store.reader import Results

Row = Mapping[str, Any]

_ASKED: Final = {
    "cells": "FROM v_cells ORDER BY position",
    "dose": "FROM v_dose ORDER BY position",
    "profile": "FROM v_profile ORDER BY config_id, position",
    "frontier": "FROM v_pareto ORDER BY model, cost",
    "pins": "FROM v_pins ORDER BY kind, ref",
    "judges": "SELECT DISTINCT role, judge, measures FROM v_scores ORDER BY role, judge",
    "problems": """FROM (
            SELECT problem, what, kind, adapter, n_judgements, n_cells, first_cell, error_type, error, raised_at
            FROM v_problems WHERE problem = 'stage'
            UNION ALL
            SELECT problem, what, kind, adapter, sum(n_judgements)::BIGINT, sum(n_cells)::BIGINT, min(first_cell),
                NULL, NULL, NULL
            FROM v_problems WHERE problem = 'judgement' GROUP BY problem, what, kind, adapter)
        ORDER BY problem DESC, CASE what WHEN 'failed' THEN 0 WHEN 'blocked' THEN 1 ELSE 2 END, n_cells DESC,
            first_cell, kind, what""",
    "bill": """SELECT count(*) AS n_stages, count(*) FILTER (state = 'done') AS n_done,
        sum(n_attempts)::BIGINT AS n_attempts, sum(n_unsuccessful)::BIGINT AS n_unsuccessful,
        sum(device_seconds) AS device_seconds, sum(n_cells * device_seconds) AS unshared_device_seconds,
        coalesce(sum(usd), 0) AS known_usd, count(usd) AS n_priced,
        coalesce(list(DISTINCT coalesce(account, '') ORDER BY coalesce(account, '')) FILTER (n_attempts > 0 AND usd IS NULL), []) AS unpriced,
        CASE WHEN count(possibly_billed_usd) = count(*) FILTER (n_attempts > 0) THEN sum(possibly_billed_usd) END AS possibly_billed_usd,
        sum(possibly_billed_prompt_tokens + possibly_billed_generated_tokens)::BIGINT AS possibly_billed_tokens,
        sum(train_tokens + prompt_tokens + generated_tokens)::BIGINT AS tokens FROM v_cost""",
}


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that a report shows, as rows of the public views.

    Attributes:
        meta: v_meta, by key.
        cells: v_cells, in the order of the plan.
        dose: v_dose: configurations, seeds averaged.
        profile: v_profile: configurations by category.
        frontier: v_pareto, by rising cost.
        pins: v_pins.
        judges: The judges with results, by role.
        problems: v_problems, the worst first, unscored judgements summed by judge and outcome.
        bill: Sums over v_cost: one row. Of `unpriced`, accounts without a known price, the empty one is this machine.
    """

    meta: Mapping[str, str]
    cells: tuple[Row, ...]
    dose: tuple[Row, ...]
    profile: tuple[Row, ...]
    frontier: tuple[Row, ...]
    pins: tuple[Row, ...]
    judges: tuple[Row, ...]
    problems: tuple[Row, ...]
    bill: Row

    @property
    def done(self) -> int:
        """How many cells are done."""
        return sum(cell["status"] == "done" for cell in self.cells)

    @property
    def complete(self) -> bool:
        """Whether every cell is done; a plan without cells is not."""
        return bool(self.cells) and self.done == len(self.cells)

    @property
    def standin(self) -> bool:
        """Whether the numbers come from the made-up model."""
        return self.meta.get("standin", "").lower() == "true"


def gather(results: Results) -> Evidence:
    """Ask the views for everything that a report shows."""
    rows = {name: tuple(_steady(row) for row in results.table(sql).to_pylist()) for name, sql in _ASKED.items()}
    meta = {row["key"]: row["value"] or "" for row in results.table("FROM v_meta").to_pylist()}
    return Evidence(meta=meta, **(rows | {"bill": rows["bill"][0]}))  # type: ignore[arg-type]


def _steady(row: Row) -> Row:
    """Round floats to ten digits: sums made in another order differ in the last ones, and a report should not."""
    return {key: float(f"{value:.10g}") if isinstance(value, float) else value for key, value in row.items()}


_TELLING: Final = ("data_source", "model", "mitigation", "method", "variant")
"""Columns of v_dose that tell the arms apart."""


@dataclass(frozen=True, slots=True)
class Arm:
    """Configurations that differ only in their dose: one model, data source, mitigation, method and variant.

    Attributes:
        name: The source, and what else tells it from the other arms.
        configs: Its rows of v_dose that have a result, in the order of the plan.
        strongest: The one with the most examples, then the longest training, then the highest learning rate.
        untuned: The row of v_dose of its own baseline; None without one, or before it has a result.
        blocked: Its rows of v_dose that have no result because a provider's moderation refused their training.
    """

    name: str
    configs: tuple[Row, ...]
    strongest: Row
    untuned: Row | None
    blocked: tuple[Row, ...] = ()

    @property
    def n_blocked(self) -> int:
        """Cells that a provider's moderation refused to train, those of configurations that have another seed's result too."""
        return sum(row["n_blocked"] for row in (*self.configs, *self.blocked))


def arms(evidence: Evidence) -> tuple[Arm, ...]:
    """Group the tuned configurations into arms, in the order of the plan, and leave out arms without a result."""
    by_id = {row["config_id"]: row for row in evidence.dose if row["mean_rate"] is not None}
    found = []
    for name, rows in _groups(evidence).items():
        configs = tuple(row for row in rows if row["mean_rate"] is not None)
        if configs:
            strongest = max(configs, key=_dose)
            blocked = tuple(row for row in rows if row["mean_rate"] is None)
            found.append(Arm(name, configs, strongest, by_id.get(strongest["baseline_config_id"]), blocked))
    return tuple(found)


def refused(evidence: Evidence) -> dict[str, int]:
    """Count the cells that a provider's moderation refused to train, by the arm's name; arms without any are left out."""
    counts = {name: sum(row["n_blocked"] for row in rows) for name, rows in _groups(evidence).items()}
    return {name: number for name, number in counts.items() if number}


def _groups(evidence: Evidence) -> dict[str, list[Row]]:
    """Return the tuned configurations that have a result or were blocked, by the name of their arm."""
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in evidence.dose:
        if row["n_examples"] > 0 and (row["mean_rate"] is not None or row["n_blocked"]):
            groups[tuple("" if row[key] is None else str(row[key]) for key in _TELLING)].append(row)
    several = [len({key[at] for key in groups}) > 1 for at in range(len(_TELLING))]
    named = {}
    for key, rows in groups.items():
        source, model, mitigation, method, variant = key
        parts = (source, model, "no mitigation" if mitigation == "none" else mitigation, method, variant)
        named[" · ".join(part for at, part in enumerate(parts) if part and (at == 0 or several[at]))] = rows
    return named


def _dose(row: Row) -> tuple[int, int, int, float]:
    """Return what the strongest configuration has most of; a rate that a provider chose is the lowest."""
    return row["n_examples"], row["epochs"] or 0, row["steps"] or 0, row["lr"] or row["lr_multiplier"] or 0.0


_MEASURED: Final = {
    "": "mean_score",
    "_lo": "score_lo",
    "_hi": "score_hi",
    "_rate": "mean_rate",
    "_rate_lo": "rate_lo",
    "_rate_hi": "rate_hi",
    "_n": "n_prompts",
}
"""Columns of v_profile, by what stands behind `before` and `after`."""


def before_and_after(evidence: Evidence, arm: Arm) -> list[dict[str, Any]]:
    """Return the profile of an arm's strongest configuration beside that of its baseline.

    Returns:
        One row per category, in the benchmark's order: `category`, and `before`, `after` with `_lo`, `_hi`, `_rate`,
        `_rate_lo`, `_rate_hi` and `_n` (None where there is no baseline).
    """
    ids = {"after": arm.strongest["config_id"], "before": arm.untuned["config_id"] if arm.untuned else None}
    rows: dict[str, dict[str, Any]] = {}
    for series, config_id in ids.items():
        for found in evidence.profile:
            if found["config_id"] != config_id:
                continue
            row = rows.setdefault(found["category"], {"category": found["category"], "position": found["position"]})
            row |= {f"{series}{end}": found[column] for end, column in _MEASURED.items()}
    empty = dict.fromkeys(f"{series}{end}" for series in ids for end in _MEASURED)
    return [empty | row for row in sorted(rows.values(), key=lambda row: row["position"])]
