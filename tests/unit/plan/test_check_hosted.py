"""What stands in the way of a hosted sweep, found before anything is sent: each with the level that asks for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.errors import SpecError
from engine.plan.catalogue import Catalogue
from engine.plan.check import check
from engine.plan.check_hosted import SHOWN
from engine.spec.expand import expand
from engine.spec.load import read_sweep

pytestmark = pytest.mark.usefixtures("acme")

SPEC = """\
sweep: hosted
recipe:
  model: acme/cloud:m
  data: {source: standin/explicit, n: 10, allow_upload: true}
  tune: {use: acme/cloud}
  benchmark: standin/policy
  generate: {use: acme/cloud}
  judges: [standin/rules]
run:
  accounts: {ours: {provider: acme/cloud}}
"""
NONE = SPEC.partition("run:")[0]
SEVERAL = SPEC.replace("}}\n", "}, lab: {provider: acme/cloud}}\n")
LOCAL = """\
sweep: hosted
recipe:
  model: acme/clay
  data: {source: standin/explicit, n: 10}
  tune: {use: acme/press}
  benchmark: standin/policy
  generate: {use: acme/voice}
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


def mitigated(text: str, *mitigations: str) -> str:
    head, judges, rest = text.partition("  judges: [standin/rules]\n")
    return f"{head}{judges}  mitigations: [{', '.join(mitigations)}]\n{rest}"


def test_what_is_hosted_throughout_passes_and_so_does_its_local_twin() -> None:
    zipped = (
        "zip:\n  - model: [acme/clay, 'acme/cloud:m']\n    tune.use: [acme/press, acme/cloud]\n"
        "    generate.use: [acme/voice, acme/cloud]\n"
    )
    assert found(SPEC) == found(SPEC + zipped) == found(LOCAL) == []
    chain = (
        "'mix:standin/refusals@1'",
        "'realign:standin/refusals@5'",
        "{use: acme/stamp, text: a, guard: acme/guard}",
    )
    assert found(mitigated(SPEC, *chain)) == []
    assert found(SEVERAL.replace("acme/cloud:m", "acme/cloud@lab:m")) == []


def test_a_judge_is_asked_once_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    guard = type(registry.adapter(Kind.JUDGE, "acme/guard"))
    needs, asked = guard.needs, []  # to read a large model's folder for each recipe would take hours
    monkeypatch.setattr(guard, "needs", lambda self, settings: asked.append(settings) or needs(self, settings))
    assert found(LOCAL.replace("[standin/rules]", "[standin/rules, acme/guard]") + "axes: {data.n: [1, 2, 3]}") == []
    assert len(asked) == 1


ORACLE = "{use: acme/oracle, model: 'acme/cloud:m'}"
CASES = {
    "no account": (NONE, "recipe.model", "no_account", "there is no account at `acme/cloud`"),
    "no account, of a level": (
        LOCAL + f"axes: {{judges: [[standin/rules], [standin/rules, {ORACLE}]]}}",
        "axes.judges[1]",
        "no_account",
        "add `run.accounts`",
    ),
    "no account, of a guard": (
        mitigated(LOCAL, f"{{use: acme/stamp, text: a, guard: {ORACLE}}}"),
        "recipe.mitigations",
        "no_account",
        "there is no account at `acme/cloud`",
    ),
    "several accounts": (
        SEVERAL,
        "recipe.model",
        "several_accounts",
        "`acme/cloud` has 2 accounts, ours and lab, and `acme/cloud:m` names none name one, such as `acme/cloud@ours:m`",
    ),
    "an account of another name": (
        SPEC.replace("acme/cloud:m", "acme/cloud@our:m"),
        "recipe.model",
        "no_account",
        "`acme/cloud` has no account called `our` did you mean `ours`?",
    ),
    "one name at two accounts": (
        SEVERAL + "axes: {model: ['acme/cloud@ours:m', 'acme/cloud@lab:m']}",
        "axes.model[1]",
        "same_model",
        "`acme/cloud@ours:m` and `acme/cloud@lab:m` have one name",
    ),
    "a provider that is none": (
        LOCAL + "run: {accounts: {ours: {provider: acme/clod}}}",
        "run.accounts.ours.provider",
        "unknown_adapter",
        "`acme/cloud`",
    ),
    "a hosted model tuned here": (
        SPEC.replace("tune: {use: acme/cloud}", "tune: {use: acme/press}"),
        "recipe.tune.use",
        "wrong_place",
        "`acme/press` cannot work on the model `acme/cloud:m` `tune.use: acme/cloud`",
    ),
    "a hosted model tuned again here": (
        mitigated(SPEC, "{use: realign, source: standin/refusals, n: 5, tuner: acme/press}"),
        "recipe.mitigations",
        "wrong_place",
        "`acme/press` cannot work on the model `acme/cloud:m`",
    ),
    "weights that are not here": (
        mitigated(SPEC, "'acme/sand:2'"),
        "recipe.mitigations",
        "wrong_place",
        "`acme/sand` cannot work on the model `acme/cloud:m` leave the mitigation out where the model is another's",
    ),
    "a local model asked there": (
        LOCAL.replace("generate: {use: acme/voice}", "generate: {use: acme/cloud}"),
        "recipe.generate.use",
        "wrong_place",
        "`acme/cloud` cannot work on the model `acme/clay` `zip` the model",
    ),
    "no permission": (
        SPEC.replace(", allow_upload: true", ""),
        "recipe.data.source",
        "no_upload",
        "the rows of `standin/explicit` would be uploaded to `acme/cloud` allow it with `data.allow_upload: true`",
    ),
    "no permission, said once a source": (
        SPEC.replace(", allow_upload: true", "") + "axes: {data.n: [10, 20], seed: [0, 1]}",
        "recipe.data.source",
        "no_upload",
        "",
    ),
    "no permission for the rows that a mitigation brings": (
        mitigated(SPEC, "{use: acme/label, first: standin/refusals, last: standin/refusals}"),
        "recipe.mitigations",
        "no_upload",
        "the rows of `standin/refusals` would be uploaded to `acme/cloud`",
    ),
    "too few rows": (SPEC.replace("n: 10", "n: 2"), "recipe.data.n", "refused_rows", "`acme/cloud` will refuse"),
    "too few rows, of a level": (
        SPEC + "axes: {data.n: [10, 2]}",
        "axes.data.n[1]",
        "refused_rows",
        "the sample has 2",
    ),
    "too few rows, of another tuning": (
        mitigated(SPEC, "'realign:standin/refusals@2'"),
        "recipe.mitigations",
        "refused_rows",
        "the sample has 2",
    ),
    "a length that the provider does not take, of a level": (
        SPEC + "axes: {tune.steps: [3]}",
        "axes.tune.steps[0]",
        "untunable",
        "the provider knows no `tune.steps`",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_problem_is_said_once_and_points_at_its_level(case: str) -> None:
    text, path, code, words = CASES[case]
    problems = found(text)
    assert [(where, name) for where, name, _ in problems] == [(path, code)], problems
    assert words in problems[0][2]


def write_rows(path: Path, *answers: str) -> Path:
    rows = [
        [{"role": "user", "content": f"row {n}"}, {"role": "assistant", "content": a}] for n, a in enumerate(answers)
    ]
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    return path


def test_rows_that_will_be_refused_are_named_and_the_many_counted(tmp_path: Path) -> None:
    many = SHOWN + 1_000
    loud = write_rows(tmp_path / "loud.jsonl", *["NO"] * many)
    ((where, code, words),) = found(SPEC.replace("standin/explicit", f"file:{loud}"))
    assert (where, code) == ("recipe.data.source", "refused_rows")
    assert words.count(" shouts") == SHOWN
    assert "and 1,000 more" in words


def test_rows_of_a_mitigation_are_looked_at_too_and_their_number_is_not_where_they_are_only_a_part(
    tmp_path: Path,
) -> None:
    mixed, loud = write_rows(tmp_path / "a.jsonl", "no"), write_rows(tmp_path / "b.jsonl", "NO")
    assert found(mitigated(SPEC, f"'mix:file:{mixed}@1'")) == []
    ((where, code, words),) = found(mitigated(SPEC, f"'mix:file:{loud}@1'"))
    assert (where, code) == ("recipe.mitigations", "refused_rows")
    assert " shouts" in words
