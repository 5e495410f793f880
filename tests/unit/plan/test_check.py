"""What only the adapters can tell of a sweep: each problem once, at the level that causes it, and all of them together."""

from __future__ import annotations

import pytest

from engine.domain.errors import Problem, SpecError
from engine.plan.catalogue import Catalogue
from engine.plan.check import check
from engine.spec.expand import expand
from engine.spec.load import read_sweep

pytestmark = pytest.mark.usefixtures("acme")

BASE = """\
sweep: tiny
recipe:
  model: acme/clay
  data: {source: standin/explicit, n: 10}
  tune: {use: acme/press, epochs: 1}
  generate: {use: acme/voice}
  benchmark: standin/policy
  judges: [standin/rules]
"""


def checked(more: str = "", base: str = BASE) -> None:
    loaded = read_sweep((base + more).encode(), "x.yaml")
    check(loaded, expand(loaded.sweep, loaded.positions), Catalogue())


def problems(more: str = "", base: str = BASE) -> tuple[Problem, ...]:
    with pytest.raises(SpecError) as caught:
        checked(more, base)
    return caught.value.problems


def test_a_good_sweep_passes() -> None:
    chain = "[{use: mix, source: standin/refusals, n: 5}, {use: output-filter, guard: acme/guard, threshold: 4}]"
    checked(
        f"axes: {{data.n: [10, 220], mitigations: [[], {chain}], judges: [[standin/rules], [refusal/keywords, acme/guard]]}}"
    )


CASES = [
    (
        "axes: {data.n: [10, 220, 500]}",
        "9:26",
        "axes.data.n[2]",
        "too_few_rows",
        "500 examples asked of standin/explicit, which has 220 ask for 220 at most",
    ),
    (
        "axes: {data.source: [standin/identity, standin/refusals], data.n: [110, 300]}",
        "9:73",
        "axes.data.n[1]",
        "too_few_rows",
        "300 examples asked of standin/identity, which has 264 and of standin/refusals, which has 110 ask for 110 at most",
    ),
    (
        "include: [{data.source: standin/refusals, data.n: 111}]",
        "9:51",
        "include[0].data.n",
        "too_few_rows",
        "111 examples asked of standin/refusals, which has 110",
    ),
    (
        "axes: {model: ['dir:gone']}",
        "9:16",
        "axes.model[0]",
        "unreadable",
        "cannot read `dir:gone`: gone has no config.json",
    ),
    ("axes: {benchmark: ['file:gone.jsonl']}", "9:20", "axes.benchmark[0]", "unreadable", "folder that you are in"),
    (
        "axes: {data.source: ['file:gone'], data.n: [1, 900]}",
        "9:22",
        "axes.data.source[0]",
        "unreadable",
        "cannot read `file:gone`",
    ),
    (
        "axes: {judges: [[{use: acme/guard, folder: gone}]]}",
        "9:17",
        "axes.judges[0]",
        "unusable_judge",
        "cannot judge: no such file or directory: gone",
    ),
    ("axes: {judges: [[refusal/keywords]]}", "9:17", "axes.judges[0]", "no_harm_judge", "measures harm"),
    (
        "axes: {judges: [[standin/rules, standin/rules]]}",
        "9:33",
        "axes.judges[0][1]",
        "duplicate_judge",
        "listed twice",
    ),
    (
        "axes: {benchmark: [standin/policy, standin/utility]}",
        "8:11",
        "recipe.judges",
        "ungradable",
        "`standin/rules` cannot grade answers to `standin/utility`: 48 of 48 prompts",
    ),
    (
        "axes: {utility_judge: [answer/contains, refusal/keywords]}",
        "9:41",
        "axes.utility_judge[1]",
        "wrong_measure",
        "`refusal/keywords` measures refusal, and here a judge that measures correct is needed",
    ),
    (
        "axes: {generate.temperature: [1.0, 2.0]}",
        "9:36",
        "axes.generate.temperature[1]",
        "unaskable",
        "`acme/voice` cannot ask `acme/clay`: `generate.temperature` is 1.5 at most, or it cracks",
    ),
    (
        "axes: {tune.epochs: [1, 100]}",
        "9:25",
        "axes.tune.epochs[1]",
        "untunable",
        "`acme/press` cannot tune so: `tune.epochs` is 99 at most",
    ),
    ("run: {budget: {usd: 1}}", "9:21", "run.budget.usd", "budget_without_price", "usd_per_device_hour"),
]


@pytest.mark.parametrize(("more", "place", "path", "code", "words"), CASES, ids=[f"{c[3]}-{c[2]}" for c in CASES])
def test_each_problem_points_at_its_level(more: str, place: str, path: str, code: str, words: str) -> None:
    (problem,) = problems(more)
    assert (problem.position, problem.path, problem.code) == (f"x.yaml:{place}", path, code)
    assert words in f"{problem.what} {problem.hint}"


def test_the_recipe_is_checked_too_and_everything_comes_at_once() -> None:
    base = BASE.replace("standin/policy", "file:gone").replace(
        "n: 10}", "n: 221, mix: {source: standin/refusals, n: 111}}"
    )
    found = problems("run: {budget: {usd: 1}}", base)
    assert [(p.position, p.path, p.code) for p in found] == [
        ("x.yaml:4:39", "recipe.data.n", "too_few_rows"),
        ("x.yaml:4:79", "recipe.data.mix.n", "too_few_rows"),
        ("x.yaml:7:14", "recipe.benchmark", "unreadable"),
        ("x.yaml:9:21", "run.budget.usd", "budget_without_price"),
    ]


def test_a_price_lets_a_budget_in_dollars_bind() -> None:
    checked("run: {budget: {usd: 1}, resources: {usd_per_device_hour: 0.5}}")


MITIGATIONS = {
    "a further sample that is too large": (
        "[{use: mix, source: standin/refusals, n: 111}]",
        "the mitigation `mix:standin/refusals@111` asks standin/refusals for 111 rows, and it has 110",
    ),
    "a further sample that is not there": (
        "[{use: realign, source: 'file:gone', n: 1}]",
        "the mitigation `realign:file:gone@1` cannot read `file:gone`: no such file or directory: gone",
    ),
    "a second tuning that the fine-tuner cannot do": (
        "[{use: harden, source: standin/refusals, n: 5, epochs: 100}]",
        "tunes with `acme/press`, which cannot: `tune.epochs` is 99 at most",
    ),
    "a guard that has lost its model": (
        "[{use: acme/stamp, text: a, guard: {use: acme/guard, folder: gone}}]",
        "which cannot judge: no such file or directory: gone",
    ),
    "a guard that cannot grade": (
        "[{use: acme/stamp, text: a, guard: {use: acme/guard, word: ''}}]",
        "cannot grade answers to `standin/policy`: it has no word to look for",
    ),
    "a guard of something else": (
        "[{use: output-filter, guard: answer/contains, threshold: 1}]",
        "needs a guard that measures harm or refusal, and `answer/contains` measures correctness",
    ),
}


@pytest.mark.parametrize("case", MITIGATIONS)
def test_what_a_mitigation_cannot_have_is_said_once_where_it_is_listed(case: str) -> None:
    mitigations, words = MITIGATIONS[case]
    (problem,) = problems(f"axes: {{mitigations: [[], {mitigations}], seed: [0, 1], tune.force: [1.0, 2.0]}}")
    assert (problem.path, problem.code) == ("axes.mitigations[1]", "refused_mitigation")
    assert words in problem.what


def test_a_mitigation_that_refuses_a_recipe_is_named_with_its_reason() -> None:
    untuned = "".join(line for line in BASE.splitlines(keepends=True) if "data:" not in line and "tune:" not in line)
    axes = "axes: {mitigations: [['acme/gentle:0.5'], ['safety-prompt:Be kind.']]}"
    cases = {
        untuned: "an untuned recipe has no training to change",
        BASE.replace("use: acme/press", "use: local/sft, lr: 1e-3"): "`force`: Extra inputs are not permitted",
        BASE.replace("use: acme/press", "use: acme/press, force: 3"): "",
    }
    for base, reason in cases.items():
        if not reason:
            checked(axes, base)
            continue
        (problem,) = problems(axes, base)
        assert (problem.path, problem.code) == ("axes.mitigations[0]", "refused_mitigation")
        assert problem.what == f"the mitigation `acme/gentle:0.5` refuses this recipe: {reason}"
    (odd,) = problems(axes.replace("0.5", "0.0001"))
    assert odd.what == (
        "with these mitigations, it tunes with `acme/press(force=10000)`, which cannot: `tune.force` is 1000 at most"
    )
