"""Which rows a plan draws: all of a source, by a seed of their own, and in proportion to their categories."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.domain.errors import SpecError
from engine.domain.stage import SampleWork, StageKind
from engine.plan.catalogue import Catalogue
from engine.plan.check import check
from engine.spec.expand import expand
from engine.spec.load import read_sweep
from engine.store.rows import cell_rows

from .plans import ACME, count, of_kind, plan_of

pytestmark = pytest.mark.usefixtures("acme")

REFUSALS = 110
LEVELS = "axes: {data.n: [10, all, 220]}\n"


def with_data(data: str) -> str:
    return ACME.replace("{source: standin/explicit, n: 6}", data)


def payloads(text: str) -> list[dict[str, object]]:
    plan = plan_of(text)
    return [json.loads(plan.stages[key].payload)["settings"] for key in of_kind(plan, StageKind.SAMPLE)]


@pytest.mark.parametrize(
    ("word", "number"),
    [
        ("{source: standin/refusals, n: all}", f"{{source: standin/refusals, n: {REFUSALS}}}"),
        (
            "{source: standin/explicit, n: 6, mix: {source: standin/refusals, n: all}}",
            f"{{source: standin/explicit, n: 6, mix: {{source: standin/refusals, n: {REFUSALS}}}}}",
        ),
    ],
)
def test_all_rows_are_the_same_work_as_their_number(word: str, number: str) -> None:
    worded, numbered = plan_of(with_data(word)), plan_of(with_data(number))
    assert list(worded.stages) == list(numbered.stages)
    assert cell_rows(worded) == cell_rows(numbered), "the store has the number, and one configuration"


@pytest.mark.parametrize("name", ["mix", "realign", "harden"])
def test_a_mitigation_that_takes_all_rows_is_that_of_their_number(name: str) -> None:
    plans = [plan_of(f"{ACME}  mitigations: ['{name}:standin/refusals@{n}']\n") for n in ("all", REFUSALS)]
    assert list(plans[0].stages) == list(plans[1].stages)
    assert [cell.cell_id for cell in plans[0].cells] == [cell.cell_id for cell in plans[1].cells]


def test_cells_with_all_rows_and_with_their_number_are_one_cell() -> None:
    plan = plan_of(ACME + LEVELS)
    assert (plan.counts.tuned, plan.counts.merged) == (2, 1)
    assert [row["n_examples"] for row in cell_rows(plan)[0]] == [10, 220, 0]
    assert plan.cells[1].label == "n=all"


def test_a_seed_of_the_sample_is_part_of_the_sample_alone() -> None:
    seeds = "axes: {seed: [0, 1, 2]}\n"
    own, shared = plan_of(ACME + seeds), plan_of(with_data("{source: standin/explicit, n: 6, seed: 1}") + seeds)
    assert count(own) | {"sample": 1} == count(shared), "each seed trains, on the same rows"
    assert set(of_kind(shared, StageKind.SAMPLE)) < set(of_kind(own, StageKind.SAMPLE))
    (same,) = set(of_kind(own, StageKind.TUNE)) & set(of_kind(shared, StageKind.TUNE))
    assert shared.cells[1].tune == same, "where the two seeds are equal, nothing is new"


def test_rows_of_a_mitigation_follow_the_seed_of_the_sample() -> None:
    chain = "  mitigations: ['mix:standin/refusals@5']\naxes: {seed: [0, 1]}\nbaselines: false\n"
    plan = plan_of(with_data("{source: standin/explicit, n: 6, seed: 7}") + chain)
    works = [plan.stages[key].work for key in of_kind(plan, StageKind.SAMPLE)]
    assert [work.draw.seed for work in works if isinstance(work, SampleWork)] == [7, 7], "two sources, not two seeds"


def test_what_is_not_asked_for_is_in_no_payload(tmp_path: Path) -> None:
    assert [sorted(payload) for payload in payloads(ACME)] == [["n", "seed", "source"]]
    source = categorised(tmp_path, "aab")
    stratified = payloads(with_data(f"{{source: {source}, n: 2, stratify: true}}"))
    assert stratified == [payloads(with_data(f"{{source: {source}, n: 2}}"))[0] | {"stratify": True}]


def categorised(folder: Path, kinds: str) -> str:
    """Write a file of rows of some kinds, a space being none; return it as a source."""
    path = folder / "rows.jsonl"
    lines = [{"prompt": f"{at}?", "completion": "x", "kind": kind.strip() or None} for at, kind in enumerate(kinds)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return f"{{use: file, path: {path}, columns: {{category: kind}}}}"


def problem(text: str) -> tuple[str, str, str]:
    loaded = read_sweep(text.encode(), "x.yaml")
    with pytest.raises(SpecError) as caught:
        check(loaded, expand(loaded.sweep, loaded.positions), Catalogue())
    (found,) = caught.value.problems
    return found.path, found.code, f"{found.what}; {found.hint}"


def test_a_source_without_categories_is_not_drawn_by_them(tmp_path: Path) -> None:
    axes = "axes: {data.stratify: [false, true]}\n"
    path, code, words = problem(ACME + axes)
    assert (path, code) == ("axes.data.stratify[1]", "no_category")
    assert words == (
        "220 of the 220 rows of `standin/explicit` have no category to draw by; say which column has it, such as"
        " `columns: {category: topic}`, or leave `data.stratify` out"
    )
    some = with_data(f"{{source: {categorised(tmp_path, 'ab a ')}, n: 2, stratify: true}}")
    assert "2 of the 5 rows of `file:" in problem(some)[2]


def test_all_rows_of_a_source_that_cannot_be_read_are_refused_as_ever() -> None:
    assert problem(with_data("{source: 'file:gone', n: all}"))[:2] == ("recipe.data.source", "unreadable")
    path, code, words = problem(f"{ACME}  mitigations: ['mix:file:gone@all']\n")
    assert (path, code) == ("recipe.mitigations", "refused_mitigation")
    assert "no such file or directory: gone" in words


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("al", "expected a whole number or `all`, got the string 'al'"),
        ("1.0", "expected a whole number or `all`, got the number 1.0; write 1"),
        ("0", "must be at least 1 (got 0)"),
        ("null", "expected a whole number or `all`, got nothing"),
    ],
)
def test_a_number_that_is_neither_says_both(written: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_sweep(f"{ACME}axes: {{data.n: [{written}]}}\n".encode(), "x.yaml")
    (found,) = caught.value.problems
    assert words == f"{found.what}; {found.hint}".removesuffix("; ")
