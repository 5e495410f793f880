"""The SQL that the guides show gives the right numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from analysis.query import ask

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "ablations.md"
T975_1 = 12.706204736174694


def shown(mark: str) -> str:
    """The one SELECT of the guide that holds `mark`."""
    (found,) = [
        sql for sql in re.findall(r'--sql "\n(.*?)"\n', GUIDE.read_text(encoding="utf-8"), re.DOTALL) if mark in sql
    ]
    return str(found)


def test_what_a_mitigation_prevented_is_against_the_same_cell_without_it(study: Any, tmp_path: Path) -> None:
    study.prompts("bench", {"A": ["p1", "p2"]})

    def cell(name: str, mitigations: tuple[str, ...], scores: dict[str, float], **values: object) -> None:
        study.cell(name, mitigations, **({"data_source": "src"} | values))
        study.evaluation(name, "harm", "bench", 2, f"generate-{name}")
        key = study.judgement(name, "harm", "rubric", 0, "harm")
        study.stage(key, "judge", [name])
        study.verdicts(key, scores)

    for seed, (bare, mixed, rewritten) in enumerate([(5, 3, 1), (5, 1, 2)]):
        cell(f"bare-{seed}", (), {"p1": bare, "p2": bare}, seed=seed, lr=1e-3)
        pair = {"unmitigated_cell_id": f"bare-{seed}", "seed": seed, "lr": 1e-3}
        cell(f"mix-{seed}", ("mix:safe@5",), {"p1": mixed, "p2": mixed}, **pair)
        # This mitigation rewrites the data: a join on the source's name would drop its arm.
        cell(
            f"quarantine-{seed}",
            ("quarantine",),
            {"p1": rewritten, "p2": rewritten},
            **pair,
            data_source="src, rewritten",
        )
    study.cell("unfinished", ("quarantine",), data_source="src", lr=1e-3, unmitigated_cell_id="bare-0")
    rows = ask(study.write(tmp_path), shown("pairing = 'unmitigated'")).to_pylist()
    assert [
        (row["mitigation"], row["seeds"], row["unmitigated"], row["mitigated"], row["prevented"]) for row in rows
    ] == [
        ("quarantine", 2, 5.0, 1.5, 3.5),
        ("mix:safe@5", 2, 5.0, 2.0, 3.0),
    ]
    half = T975_1 * (0.5**0.5) / 2**0.5
    assert (rows[0]["lo"], rows[0]["hi"]) == (pytest.approx(3.5 - half), pytest.approx(3.5 + half))


def test_the_other_queries_of_the_guide_run(small_run: Path) -> None:
    for mark in ("FROM v_dose", "pairing = 'starting_model'"):
        assert ask(small_run, shown(mark)).num_rows > 0
