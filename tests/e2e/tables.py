"""The final tables of a run, without what may differ between two honest runs: times, hosts and money."""

from __future__ import annotations

from pathlib import Path

from engine.store.reader import open_results

SAME = {
    "v_cells": "SELECT * EXCLUDE (usd, device_seconds) FROM v_cells ORDER BY cell_id",
    "v_scores": "SELECT * FROM v_scores ORDER BY ALL",
    "v_responses": "SELECT * FROM v_responses ORDER BY ALL",
    "training": "SELECT * FROM v_training ORDER BY ALL",
}


def final_tables(run_dir: Path) -> dict[str, list[dict[str, object]]]:
    """Return the tables that must be equal, whatever happened on the way."""
    with open_results(run_dir, unseal=True) as results:
        return {name: results.table(sql).to_pylist() for name, sql in SAME.items()}
