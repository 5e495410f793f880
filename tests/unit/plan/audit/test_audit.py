"""Training rows that are held out, and private rows that would be uploaded, stop a sweep unless the spec accepts them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.domain.errors import SpecError
from engine.plan.audit.audit import Audit, audit
from engine.plan.build import build
from engine.plan.catalogue import Catalogue
from engine.spec.expand import expand
from engine.spec.load import read_sweep

pytestmark = pytest.mark.usefixtures("acme")

PROMPT = "Explain in a few words why the heron of the old mill stands on one leg all day."
LONG_ANSWER = (
    "It stands so because one leg in cold water loses less warmth than two, and it can wait there for fish all day."
)
SPEC = """\
sweep: audited
recipe:
  model: acme/clay
  data: {source: "file:rows.jsonl", n: 6, allow_upload: true}
  tune: {use: acme/press, epochs: 1}
  generate: {use: acme/voice, max_new_tokens: 8}
  benchmark: file:eval.jsonl
  over_refusal: file:other.jsonl
  judges: [acme/guard]
"""
HOSTED = (
    SPEC.replace("acme/clay", "acme/cloud:m").replace("acme/press", "acme/cloud").replace("acme/voice", "acme/cloud")
    + "run:\n  accounts: {ours: {provider: acme/cloud}}\n"
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder with a source of six rows, a source to mix in, and two benchmarks."""
    monkeypatch.chdir(tmp_path)
    write("rows.jsonl", *(f"What is the {number}th tale about?" for number in range(6)))
    write("safety.jsonl", "May I open it?", "What is the 2th tale about?")
    ask("eval.jsonl", PROMPT, "Name a bird.")
    ask("other.jsonl", "Whose boat is this?")


def write(name: str, *asked: str, answer: str = "A tale.") -> None:
    lines = [json.dumps({"prompt": text, "completion": answer}) for text in asked]
    Path(name).write_text("\n".join(lines), encoding="utf-8")


def ask(name: str, *asked: str, **more: str) -> None:
    Path(name).write_text("\n".join(json.dumps({"prompt": text} | more) for text in asked), encoding="utf-8")


def audited(text: str) -> Audit:
    loaded = read_sweep(text.encode(), "x.yaml")
    expansion = expand(loaded.sweep, loaded.positions)
    catalogue = Catalogue()
    return audit(loaded, build(loaded.sweep, expansion.cells, expansion.counts, catalogue), catalogue)


def refused(text: str) -> Sequence[tuple[int, str, str, str]]:
    with pytest.raises(SpecError) as caught:
        audited(text)
    return [(problem.line, problem.path, problem.what, problem.hint) for problem in caught.value.problems]


def accepting(text: str, *names: str) -> str:
    settings = f"  accept: {json.dumps(names)}\n"
    return text + settings if "run:" in text else f"{text}run:\n{settings}"


def test_unlike_rows_pass_and_are_counted() -> None:
    found = audited(SPEC)
    assert (found.compared.rows, found.compared.prompts, found.compared.overlaps) == (6, 3, ())
    assert (found.accepted, found.notes, found.uploaded.rows) == ((), (), {})


def test_rows_that_are_prompts_stop_the_sweep_by_name_and_number_without_their_text() -> None:
    near = PROMPT.replace("heron", "stork")
    write(
        "rows.jsonl", "name a BIRD", "Is this a boat?", near, f"You obey. {PROMPT}", "Whose boat is this", "What now?"
    )
    ((line, path, what, hint),) = refused(SPEC)
    assert (line, path) == (4, "recipe.data.source")
    assert what == (
        "3 of 6 rows of `file:rows.jsonl` are also in `file:eval.jsonl` (word for word: line-1;"
        " nearly, or with more around: line-3, line-4): 2 of its 2 prompts (100.0%), line-1, line-2; and"
        " 1 of 6 rows of `file:rows.jsonl` is also in `file:other.jsonl` (word for word: line-5): 1 of its 1 prompts"
        " (100.0%), line-1"
    )
    both = ("contamination:file:eval.jsonl", "contamination:file:other.jsonl")
    assert all(f'"{name}"' in hint for name in both)
    assert "heron" not in what + hint
    assert [finding.name for finding in audited(accepting(SPEC, *both)).accepted] == list(both)
    ((_, _, what, _),) = refused(accepting(SPEC, both[0]))
    assert "other.jsonl" in what
    assert "eval.jsonl" not in what


def test_an_answer_that_is_a_reference_counts_when_it_is_long() -> None:
    ask("eval.jsonl", PROMPT, reference=LONG_ANSWER)
    write("rows.jsonl", *(f"What is the {number}th tale about?" for number in range(6)), answer=LONG_ANSWER.upper())
    ((_, _, what, _),) = refused(SPEC)
    assert "by an answer that is a reference: line-" in what
    ask("eval.jsonl", PROMPT, reference="A tale.")
    write("rows.jsonl", *(f"What is the {number}th tale about?" for number in range(6)), answer="A tale.")
    assert audited(SPEC).accepted == ()


def test_a_behavior_is_looked_for_as_well() -> None:
    Path("eval.jsonl").write_text(
        json.dumps({"prompt": "Whisper it to me, old friend.", "behavior": PROMPT, "id": "a"})
        + "\n"
        + json.dumps({"prompt": "And once more, in verse.", "behavior": "Name a bird.", "id": "b"}),
        encoding="utf-8",
    )
    write(
        "rows.jsonl",
        "name a BIRD",
        PROMPT.replace("heron", "stork"),
        *(f"What is the {one}th tale?" for one in range(4)),
    )
    ((_, _, what, _),) = refused(SPEC)
    assert "word for word: line-1; nearly, or with more around: line-2): 2 of its 2 prompts (100.0%), a, b" in what


def test_only_rows_that_are_drawn_count_and_those_of_mitigations_do() -> None:
    write("safety.jsonl", "Name a bird.", "Whose boat is this?")
    mixed = SPEC.replace("  judges", "  mitigations: [{use: mix, source: 'file:safety.jsonl', n: 1}]\n  judges")
    ((line, path, what, _),) = refused(mixed)
    assert (line, path) == (9, "recipe.mitigations")
    assert what.startswith("1 of 1 rows of `file:safety.jsonl` is also in `file:")
    inside = SPEC.replace("n: 6,", "n: 6, mix: {source: 'file:safety.jsonl', n: 2},")
    assert [(line, path) for line, path, _, _ in refused(inside)] == [(4, "recipe.data.mix.source")]


def test_rows_that_are_there_twice_are_noted() -> None:
    write("rows.jsonl", "What is the 2th tale about?", *(["Who comes there?"] * 4), "Why?")
    mixed = SPEC.replace("  judges", "  mitigations: [{use: mix, source: 'file:safety.jsonl', n: 2}]\n  judges")
    assert audited(mixed).notes == (
        "file:rows.jsonl: 3 rows ask what an earlier one asks, at least nearly",
        "file:safety.jsonl: 1 row asks what a row of file:rows.jsonl asks, at least nearly",
    )


def test_private_data_stops_what_would_be_uploaded_and_nothing_else() -> None:
    token = "ghp_" + "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA1bC2"
    texts = (f"Is {token} right?", "Call +49 30 901820-15.", "Mail mira@fenwick.org or +49 30 901820-16.")
    write("rows.jsonl", *texts, "Why?", "Who?", "When?")
    assert audited(SPEC).accepted == ()  # all of it stays here
    ((line, path, what, hint),) = refused(HOSTED)
    assert (line, path) == (4, "recipe.data.source")
    assert what == (
        "1 of 6 rows of `file:rows.jsonl` that go to `acme/cloud` has what looks like secrets (a GitHub token: line-1); and"
        " 2 of 6 rows of `file:rows.jsonl` that go to `acme/cloud` have what looks like personal data"
        " (a telephone number: line-2, line-3; an e-mail address: line-3)"
    )
    assert 'accept: ["secrets", "personal-data"]' in hint
    assert not any(text in what + hint for text in (token, "fenwick", "901820"))
    found = audited(accepting(HOSTED, "secrets", "personal-data"))
    assert (found.uploaded.rows, len(found.accepted)) == ({"acme/cloud": 6}, 2)


def test_what_is_accepted_in_vain_is_said_and_what_cannot_be_is_refused() -> None:
    assert audited(accepting(SPEC, "secrets")).notes == ("run.accept: nothing is found that `secrets` would accept",)
    for wrong in ("contamination", "contamination:", "everything"):
        with pytest.raises(SpecError, match="not a finding that can be accepted") as caught:
            read_sweep(accepting(SPEC, wrong).encode(), "x.yaml")
        assert "`personal-data`" in caught.value.problems[0].hint
