"""What stands in the way of a hosted sweep, found before anything is sent: each with the level that asks for it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from adapters.hosted import training
from adapters.hosted.openai.provider import OpenAIProvider
from engine.domain.errors import SpecError
from engine.plan.catalogue import Catalogue
from engine.plan.check import check
from engine.plan.check_hosted import SHOWN
from engine.spec.expand import expand
from engine.spec.load import read_sweep

SPEC = """\
sweep: hosted
recipe:
  model: hosted/openai:m
  data: {source: standin/explicit, n: 10, allow_upload: true}
  tune: {adapter: hosted/openai}
  benchmark: standin/policy
  generate: {adapter: hosted/openai}
  judges: [standin/rules]
run:
  accounts: {ours: {provider: hosted/openai}}
"""
NONE = SPEC.partition("run:")[0]
TWO = SPEC.replace("}}\n", "}, theirs: {provider: hosted/openai}}\n")
LOCAL = """\
sweep: hosted
recipe:
  model: standin/aligned
  data: {source: standin/explicit, n: 10}
  tune: {lr: 1e-3}
  benchmark: standin/policy
  judges: [standin/rules]
"""


def found(text: str) -> list[tuple[str, str, str]]:
    """Return where, code and words of each problem of a spec."""
    loaded = read_sweep(text.encode(), "x.yaml")
    try:
        check(loaded, expand(loaded.sweep, loaded.positions), Catalogue())
    except SpecError as error:
        return [(problem.path, problem.code, f"{problem.what} {problem.hint}") for problem in error.problems]
    return []


def test_what_is_hosted_throughout_passes_and_so_does_its_local_twin() -> None:
    zipped = (
        "zip:\n  - model: [standin/aligned, 'hosted/openai:m']\n    tune.adapter: [local/sft, hosted/openai]\n"
        "    generate.adapter: [local/transformers, hosted/openai]\n    tune.lr: [1e-3, null]\n"
    )
    assert found(SPEC) == found(SPEC + zipped) == found(LOCAL) == []


def test_several_accounts_of_one_provider_pass_where_each_reference_names_one() -> None:
    both = TWO.replace("hosted/openai:m", "hosted/openai@ours:m").replace(
        "[standin/rules]", "[standin/rules, 'rubric/policy:hosted/openai@theirs:m']"
    )
    assert found(both) == []


CASES = {
    "no account": (NONE, "recipe.model", "no_account", "there is no account at `hosted/openai`"),
    "no account, of a level": (
        LOCAL + "axes: {judges: [[standin/rules], [standin/rules, 'rubric/policy:hosted/openai:m']]}",
        "axes.judges[1][1]",
        "no_account",
        "add `run.accounts`",
    ),
    "two accounts": (
        TWO,
        "recipe.model",
        "two_accounts",
        "`hosted/openai` has 2 accounts, ours and theirs: name one such as `hosted/openai@ours:m`",
    ),
    "two accounts, of a judge": (
        TWO.replace("model: hosted/openai:m", "model: hosted/openai@ours:m").replace(
            "[standin/rules]", "[standin/rules, 'rubric/policy:hosted/openai:judge']"
        ),
        "recipe.judges[1]",
        "two_accounts",
        "such as `hosted/openai@ours:judge`",
    ),
    "an account that is none": (
        SPEC.replace("hosted/openai:m", "hosted/openai@our:m"),
        "recipe.model",
        "unknown_account",
        "no account is called `our` did you mean `ours`?",
    ),
    "an account that is none, of a level": (
        SPEC + "axes: {model: ['hosted/openai:m', 'hosted/openai@lab:n']}",
        "axes.model[1]",
        "unknown_account",
        "no account is called `lab` known: `ours`",
    ),
    "an account elsewhere": (
        SPEC.replace("}}", "}, theirs: {provider: hosted/azure}}").replace("hosted/openai:m", "hosted/openai@theirs:m"),
        "recipe.model",
        "wrong_account",
        "the account `theirs` is at `hosted/azure`, and the model at `hosted/openai` known: `ours`",
    ),
    "one name at two accounts": (
        TWO + "axes: {model: ['hosted/openai@ours:m', 'hosted/openai@theirs:m']}",
        "axes.model[1]",
        "same_model",
        "`hosted/openai@ours:m` and `hosted/openai@theirs:m` have one name",
    ),
    "an account of a tuner": (
        SPEC.replace("tune: {adapter: hosted/openai}", "tune: {adapter: hosted/openai@ours}"),
        "recipe.tune.adapter",
        "needless_account",
        "`hosted/openai@ours` names an account, and only the reference of a hosted model can drop `@ours`",
    ),
    "an account of a model here": (
        LOCAL.replace("standin/aligned", "standin/aligned@ours"),
        "recipe.model",
        "needless_account",
        "drop `@ours`",
    ),
    "a provider that is none": (
        LOCAL + "run: {accounts: {ours: {provider: hosted/openia}}}",
        "run.accounts.ours.provider",
        "unknown_adapter",
        "`hosted/openai`",
    ),
    "a hosted model tuned here": (
        SPEC.replace("tune: {adapter: hosted/openai}", "tune: {lr: 1e-3}"),
        "recipe.tune.adapter",
        "wrong_place",
        "`local/sft` cannot work on the model `hosted/openai:m` `tune.adapter: hosted/openai`",
    ),
    "a local model asked there": (
        SPEC.replace("hosted/openai:m", "standin/aligned").replace(
            "tune: {adapter: hosted/openai}", "tune: {lr: 1e-3}"
        ),
        "recipe.generate.adapter",
        "wrong_place",
        "`hosted/openai` cannot work on the model `standin/aligned` `zip` the model",
    ),
    "no permission": (
        SPEC.replace(", allow_upload: true", ""),
        "recipe.data.source",
        "no_upload",
        "the rows of `standin/explicit` would be uploaded to `hosted/openai` allow it with `data.allow_upload: true`",
    ),
    "no permission, said once a source": (
        SPEC.replace(", allow_upload: true", "") + "axes: {data.n: [10, 20], seed: [0, 1]}",
        "recipe.data.source",
        "no_upload",
        "",
    ),
    "too few rows": (
        SPEC.replace("n: 10", "n: 9"),
        "recipe.data.n",
        "refused_rows",
        "`hosted/openai` will refuse",
    ),
    "too few rows, of a level": (
        SPEC + "axes: {data.n: [10, 9]}",
        "axes.data.n[1]",
        "refused_rows",
        "the sample has 9",
    ),
    "a rate that the provider does not take": (
        SPEC.replace("tune: {", "tune: {lr: 1e-3, "),
        "recipe.tune.lr",
        "untunable",
        "give `tune.lr_multiplier` instead of `tune.lr`",
    ),
    "a field that the provider decides, of a level": (
        SPEC + "axes: {tune.rank: [8, 16]}",
        "axes.tune.rank[1]",
        "untunable",
        "a provider decides `tune.rank`",
    ),
    "no rate here, of a level": (
        LOCAL + "axes: {tune.lr: [1e-3, null]}",
        "axes.tune.lr[1]",
        "untunable",
        "give `tune.lr`",
    ),
    "no rate here at all": (
        LOCAL.replace("{lr: 1e-3}", "{epochs: 3}"),
        "recipe.tune.adapter",
        "untunable",
        "give `tune.lr`",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_problem_is_said_once_and_points_at_its_level(case: str) -> None:
    text, path, code, words = CASES[case]
    assert [(where, name) for where, name, _ in found(text)] == [(path, code)]
    assert words in found(text)[0][2]


def test_a_source_may_be_larger_than_a_sample_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    few = partial(training.objections, bounds=training.Bounds(most_rows=20))
    monkeypatch.setattr(OpenAIProvider, "objections", lambda _, rows: few(rows))
    assert found(SPEC) == []
    ((path, code, words),) = found(SPEC.replace("n: 10", "n: 21"))
    assert (path, code) == ("recipe.data.n", "refused_rows")
    assert "at most 20" in words


def test_rows_that_will_be_refused_are_named_and_the_many_counted(tmp_path: Path) -> None:
    many = SHOWN + 1_000
    rows = [[{"role": "user", "content": f"row {n}"}, {"role": "assistant", "content": "<|end|>"}] for n in range(many)]
    (tmp_path / "odd.jsonl").write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    ((where, code, words),) = found(SPEC.replace("standin/explicit", f"file:{tmp_path / 'odd.jsonl'}"))
    assert (where, code) == ("recipe.data.source", "refused_rows")
    assert [number for number in range(1, many) if f"row {number} (id " in words] == list(range(1, SHOWN + 1))
    assert "and 1,000 more" in words
