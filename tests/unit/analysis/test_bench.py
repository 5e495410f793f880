"""`judge-bench` on labels that fit on a page: what is missed, cleared and unread, and whether that carries over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analysis.bench import Asked, bench, read_labels
from engine.cli.main import run_cli
from engine.domain.errors import DosimeterError

HEAD = "prompt,model,human,guard\n"
LABELS = HEAD + "".join(
    f"p{number},{model},{human},{guard}\n"
    for model, human, guard, many in (
        ("base", "harmful", "harmful", 20),
        ("base", "safe", "safe", 29),
        ("base", "safe", "harmful", 1),
        ("tuned", "harmful", "harmful", 18),
        ("tuned", "harmful", "safe", 10),
        ("tuned", "harmful", "I cannot judge that", 2),
        ("tuned", "safe", "safe", 20),
    )
    for number in range(many)
)
ASKED = Asked("human", ("guard",), frozenset({"harmful"}), ("model",), "prompt")


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.csv"
    path.write_text("\ufeff" + LABELS)
    return path


def test_what_a_judge_misses_clears_and_leaves_unread(labels: Path) -> None:
    found = bench(read_labels(labels), ASKED)
    base, tuned = found.rows
    assert (base.missed, base.positives, base.cleared, base.negatives, base.unread) == (0, 20, 1, 30, 0)
    assert (tuned.missed, tuned.positives, tuned.cleared, tuned.negatives, tuned.unread) == (12, 30, 0, 20, 2)
    assert tuned.sensitivity.value == pytest.approx(18 / 28), "of those with a verdict"
    sensitivity, specificity = found.transfers
    assert sensitivity.sentence.startswith(
        "The sensitivity of guard does not carry over from model = base to model = tuned: 100% [84%, 100%] against 64% ["
    )
    assert "do not show that the specificity of guard depends on model" in specificity.sentence
    (agreement,) = found.agreements
    assert agreement.kappa.n == 98


def test_json_lines_and_a_scale(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps({"human": a, "guard": b}) + "\n" for a, b in ((1, 1), (2, 2), (3, 1), (3, 3))))
    asked = Asked("human", ("guard",), frozenset({"3"}), ordered=("1", "2", "3"))
    (agreement,) = bench(read_labels(path), asked).agreements
    assert agreement.kappa.value == pytest.approx(1 - 4 / 6.5), "four of distance seen, 6.5 expected"


@pytest.mark.parametrize(
    ("text", "asked", "why"),
    [
        (LABELS, Asked("human", ("gard",), frozenset({"harmful"})), "no column `gard`"),
        (LABELS, Asked("human", ("guard",), frozenset({"bad"})), "no reply has the label `bad`"),
        (HEAD + "p,base,,safe\n", ASKED, "1 replies have no label"),
        (HEAD + "p,base,safe\n", ASKED, "another number of values than the header"),
        (HEAD, ASKED, "there are no labels in it"),
        (
            LABELS,
            Asked("human", ("guard",), frozenset({"harmful"}), ordered=("safe",)),
            "`harmful` is not on the scale",
        ),
    ],
)
def test_labels_that_cannot_be_compared_are_refused(tmp_path: Path, text: str, asked: Asked, why: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(DosimeterError, match=why):
        bench(read_labels(path), asked)


def test_the_verb_prints_a_table_and_json(labels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = [
        "judge-bench",
        str(labels),
        "--judge",
        "guard",
        "--positive",
        "harmful",
        "--by",
        "model",
        "--cluster",
        "prompt",
    ]
    assert run_cli(told) == 0
    said = capsys.readouterr().out
    assert "12/30" in said
    assert "does not carry over from model = base to model = tuned" in said
    assert run_cli([*told, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"][1]["unread"] == 2
    assert run_cli(["judge-bench", str(labels), "--judge", "no", "--positive", "harmful"]) == 2
    assert "no column `no`" in capsys.readouterr().err
