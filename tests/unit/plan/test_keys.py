"""What is part of a key, and what is not: a change of one thing, and the kinds of stage that get another key by it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.domain.plan import Plan

from .plans import ACME, plan_of

pytestmark = pytest.mark.usefixtures("acme")

SPEC = ACME.replace("judges: [standin/rules]", "judges: [acme/guard]")


def changed(before: Plan, after: Plan) -> set[str]:
    """Return the kinds of the stages that only one of two plans has."""
    return {key.partition("-")[0] for key in before.stages.keys() ^ after.stages.keys()}


def with_tune(settings: str) -> Plan:
    return plan_of(SPEC.replace("use: acme/press, epochs: 1", f"use: acme/press, {settings}"))


TUNED = {"tune", "generate", "judge"}
"""The kinds that come to have another key when the training is another."""


@pytest.mark.parametrize(
    ("one", "other", "kinds"),
    [
        ("epochs: 1", "epochs: 2", TUNED),
        ("epochs: 1", "epochs: 1, force: 2", TUNED),
        ("epochs: 1", "epochs: 1, force: 1.0", set()),  # a default, written
        ("epochs: 5", "force: 1", set()),  # the engine's default length
        ("epochs: 1", "epochs: 1, notes: moved/notes.txt", set()),  # only a place
        ("epochs: 1, mould: whole", "epochs: 1, mould: whole, depth: 9", set()),  # no effect beside `mould: whole`
        ("epochs: 1", "epochs: 1, depth: 9", TUNED),
        ("epochs: 1", "epochs: 1, max_steps: 2", TUNED),
        ("steps: 3", "steps: 3, max_steps: 2", TUNED),
        ("steps: 3", "epochs: 1", TUNED),  # three steps in either case: who counts them is part of the key
    ],
)
def test_of_the_tune_stage_what_has_an_effect_is_part_of_the_key(one: str, other: str, kinds: set[str]) -> None:
    assert changed(with_tune(one), with_tune(other)) == kinds


def test_of_the_answers_decoding_is_part_of_the_key_and_an_account_is_not() -> None:
    plain = plan_of(SPEC)
    for more in ("temperature: 0.5", "max_new_tokens: 9", "system: hello"):
        assert changed(plain, plan_of(SPEC.replace("max_new_tokens: 8", more))) == {"generate", "judge"}
    hosted = (
        SPEC.replace("acme/clay", "acme/cloud:m")
        .replace("acme/press", "acme/cloud")
        .replace("acme/voice", "acme/cloud")
    )
    named = hosted.replace("acme/cloud:m", "acme/cloud@lab:m")
    assert changed(plan_of(hosted), plan_of(named)) == set()
    assert changed(plan_of(hosted), plan_of(hosted.replace(":m", ":other"))) == TUNED


def write_rows(path: Path, *answers: str) -> Path:
    turns = ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": b}]} for b in answers)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in turns))
    return path


def test_a_file_is_its_content_wherever_it_lies(tmp_path: Path) -> None:
    one, moved = write_rows(tmp_path / "one.jsonl", "b"), write_rows(tmp_path / "moved.jsonl", "b")
    other = write_rows(tmp_path / "other.jsonl", "c")
    plans = [plan_of(SPEC.replace("standin/explicit, n: 6", f"'file:{path}', n: 1")) for path in (one, moved, other)]
    assert changed(plans[0], plans[1]) == set()
    assert changed(plans[0], plans[2]) == {"sample", *TUNED}


def test_a_data_source_in_the_settings_of_a_mitigation_is_its_content_too(tmp_path: Path) -> None:
    one, moved = write_rows(tmp_path / "one.jsonl", "b"), write_rows(tmp_path / "moved.jsonl", "b")
    other = write_rows(tmp_path / "other.jsonl", "c")

    def labelled(path: Path, mark: str = "*") -> Plan:
        use = f"{{use: acme/label, first: 'file:{path}', last: standin/refusals, mark: '{mark}'}}"
        return plan_of(f"{SPEC}  mitigations: [{use}]\nbaselines: false\n")

    plain = labelled(one)
    (rows,) = [stage for stage in plain.stages.values() if stage.kind.value == "rows"]
    assert {name for name, _ in rows.inputs} == {"rows", "first", "last"}
    assert str(tmp_path) not in rows.payload
    assert changed(plain, labelled(moved)) == set()
    assert changed(plain, labelled(other)) == {"sample", "rows", *TUNED}
    assert changed(plain, labelled(one, "#")) == {"rows", *TUNED}


def test_what_a_judge_reads_is_part_of_its_key_and_where_it_lies_is_not(tmp_path: Path) -> None:
    for name, content in (("one", "a"), ("moved", "a"), ("other", "b")):
        (tmp_path / name).write_text(content)

    def judged(name: str, word: str = "pressed") -> Plan:
        return plan_of(SPEC.replace("acme/guard", f"{{use: acme/guard, word: {word}, folder: {tmp_path / name}}}"))

    assert changed(judged("one"), judged("moved")) == set()
    assert changed(judged("one"), judged("other")) == {"judge"}
    assert changed(judged("one"), judged("one", "sanded")) == {"judge"}

    def screened(name: str) -> Plan:
        guard = f"{{use: acme/guard, folder: {tmp_path / name}}}"
        return plan_of(f"{SPEC}  mitigations: [{{use: acme/stamp, text: no, guard: {guard}}}]\nbaselines: false\n")

    assert changed(screened("one"), screened("moved")) == set()
    assert changed(screened("one"), screened("other")) == {"judge", "screen"}


def test_the_short_form_of_an_adapter_and_the_long_one_are_the_same() -> None:
    short = plan_of(SPEC.replace("acme/guard", "'acme/guard:sanded'"))
    assert changed(short, plan_of(SPEC.replace("acme/guard", "{use: acme/guard, word: sanded}"))) == set()


@pytest.mark.parametrize(
    ("axes", "tuned", "merged"),
    [
        ("{tune.notes: [one, other]}", 1, 1),
        ("{tune.mould: [part, whole], tune.depth: [4, 8]}", 3, 1),
        ("{tune.force: [1.0, 2.0]}", 2, 0),
    ],
)
def test_cells_that_do_the_same_work_are_one(axes: str, tuned: int, merged: int) -> None:
    counts = plan_of(f"{SPEC}axes: {axes}\n").counts
    assert (counts.tuned, counts.merged) == (tuned, merged)
