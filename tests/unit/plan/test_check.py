from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.errors import Problem, SpecError, UnknownAdapterError
from engine.domain.results import Measure, Prompt
from engine.plan.catalogue import Catalogue
from engine.plan.check import check
from engine.ports import BenchmarkCard, ModelCard, SourceCard
from engine.spec.expand import expand
from engine.spec.load import read_sweep

BASE = """\
sweep: tiny
recipe:
  model: standin/aligned
  data: {source: standin/explicit, n: 10}
  tune: {lr: 1e-3}
  benchmark: standin/policy
  judges: [standin/rules]
"""


class Plain:
    revision = 1

    def objection(self, settings: object) -> str | None:
        """Object to nothing; judges below say otherwise."""


class Model(Plain):
    def card(self, argument: str) -> ModelCard:
        if argument == "gone":
            raise FileNotFoundError(2, "No such file or directory", argument)
        return ModelCard(pin="sha256:1", parameters=1, detail="")


class Source(Plain):
    calls: list[str]

    def __init__(self, rows: int) -> None:
        self.rows_held = rows
        self.calls = []

    def card(self, argument: str) -> SourceCard:
        self.calls.append(argument)
        if argument == "broken":
            message = "line 3 is not JSON: '\x1b[2J'"
            raise ValueError(message)
        return SourceCard(pin="sha256:2", rows=self.rows_held, tier="unknown", system=None, licence="", detail="")


class Prompts(Plain):
    def card(self, argument: str) -> BenchmarkCard:
        if argument == "gone.jsonl":
            raise FileNotFoundError(2, "No such file or directory", argument)
        return BenchmarkCard(pin="sha256:3", prompts=5, categories=("a",), licence="", detail="")

    def prompts(self, argument: str) -> list[Prompt]:
        return [Prompt("1", "a", "hello")] if argument == "foreign.jsonl" else []


class Rules(Plain):
    measures = Measure.HARM

    def objection(self, prompts: tuple[Prompt, ...]) -> str | None:
        return "1 prompt is foreign" if prompts else None


class Keywords(Rules):
    measures = Measure.REFUSAL

    def objection(self, prompts: tuple[Prompt, ...]) -> str | None:
        del prompts


class Contains(Keywords):
    measures = Measure.CORRECT


INSTALLED: dict[Kind, dict[str, Callable[[], Any]]] = {
    Kind.MODEL: {"standin/aligned": Model, "dir": Model},
    Kind.DATA: {
        "standin/explicit": lambda: Source(200),
        "standin/chores": lambda: Source(100),
        "file": lambda: Source(50),
    },
    Kind.BENCHMARK: {"standin/policy": Prompts, "standin/utility": Prompts, "file": Prompts},
    Kind.TUNER: {"local/sft": Plain},
    Kind.GENERATOR: {"local/transformers": Plain},
    Kind.JUDGE: {"standin/rules": Rules, "refusal/keywords": Keywords, "answer/contains": Contains},
    Kind.MITIGATION: {"mix": Plain},
}


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[Kind, dict[str, Any]]:
    made = {kind: {name: make() for name, make in found.items()} for kind, found in INSTALLED.items()}

    def adapter(kind: Kind, ref: str) -> Any:
        name = ref.partition(":")[0]
        if name not in made[kind]:
            todo = registry.suggest(name, tuple(sorted(made[kind])))
            raise UnknownAdapterError(f"no {kind.noun} is called `{name}`", where=name, todo=todo)
        return made[kind][name]

    monkeypatch.setattr(registry, "adapter", adapter)
    monkeypatch.setattr(registry, "revision", lambda kind, ref: adapter(kind, ref).revision)
    return made


def checked(more: str = "", base: str = BASE) -> None:
    loaded = read_sweep((base + more).encode(), "x.yaml")
    check(loaded, expand(loaded.sweep, loaded.positions), Catalogue())


def problems(more: str = "", base: str = BASE) -> tuple[Problem, ...]:
    with pytest.raises(SpecError) as caught:
        checked(more, base)
    return caught.value.problems


def test_a_good_sweep_passes() -> None:
    checked(
        "axes: {data.n: [10, 200], mitigations: [[], ['mix:a']], judges: [[standin/rules], [refusal/keywords, standin/rules]]}"
    )


CASES = [
    (
        "axes: {model: [standin/aligned, standin/algned]}",
        "8:33",
        "axes.model[1]",
        "unknown_adapter",
        "`standin/aligned`",
    ),
    (
        "zip: [{data.source: [standn/explicit]}]",
        "8:22",
        "zip[0].data.source[0]",
        "unknown_adapter",
        "`standin/explicit`",
    ),
    ("axes: {judges: [[standin/rules, x]]}", "8:33", "axes.judges[0][1]", "unknown_adapter", "no judge is called"),
    ("axes: {mitigations: [[], [mixx]]}", "8:27", "axes.mitigations[1][0]", "unknown_adapter", "`mix`"),
    ("axes: {tune.adapter: [other]}", "8:23", "axes.tune.adapter[0]", "unknown_adapter", "`local/sft`"),
    ("include: [{generate.adapter: other}]", "8:30", "include[0].generate.adapter", "unknown_adapter", "no generator"),
    (
        "when: [{if: {seed: 0}, axes: {over_refusal: [standin/over]}}]",
        "8:46",
        "when[0].axes.over_refusal[0]",
        "unknown_adapter",
        "no benchmark is",
    ),
    (
        "axes: {data.n: [10, 200, 500]}",
        "8:26",
        "axes.data.n[2]",
        "too_few_rows",
        "500 examples asked of standin/explicit, which has 200 ask for 200 at most",
    ),
    (
        "axes: {data.source: [standin/explicit, standin/chores], data.n: [150, 300]}\nexclude: [{data.source: standin/chores, data.n: 150}]",
        "8:71",
        "axes.data.n[1]",
        "too_few_rows",
        "300 examples asked of standin/explicit, which has 200 and of standin/chores, which has 100",
    ),
    (
        "include: [{data.source: standin/chores, data.n: 101}]",
        "8:49",
        "include[0].data.n",
        "too_few_rows",
        "101 examples asked of standin/chores, which has 100",
    ),
    ("axes: {model: ['dir:gone']}", "8:16", "axes.model[0]", "unreadable", "`dir:gone`: no such file or directory"),
    ("axes: {data.source: ['file:broken']}", "8:22", "axes.data.source[0]", "unreadable", "line 3 is not JSON: '\\x1b"),
    ("axes: {benchmark: ['file:gone.jsonl']}", "8:20", "axes.benchmark[0]", "unreadable", "folder that you are in"),
    ("axes: {judges: [[refusal/keywords]]}", "8:17", "axes.judges[0]", "no_harm_judge", "measures harm"),
    (
        "axes: {judges: [[standin/rules, standin/rules]]}",
        "8:33",
        "axes.judges[0][1]",
        "duplicate_judge",
        "listed twice",
    ),
    (
        "axes: {benchmark: [standin/policy, 'file:foreign.jsonl']}",
        "7:11",
        "recipe.judges",
        "ungradable",
        "`standin/rules` cannot grade answers to `file:foreign.jsonl`: 1 prompt is foreign",
    ),
    (
        "axes: {utility_judge: [answer/contains, refusal/keywords]}",
        "8:41",
        "axes.utility_judge[1]",
        "wrong_measure",
        "`refusal/keywords` measures refusal, and here a judge that measures correct is needed",
    ),
    (
        "axes: {judges: [['standin/rules:x']]}",
        "8:18",
        "axes.judges[0][0]",
        "needless_argument",
        "the judge `standin/rules` takes no argument",
    ),
    ("run: {budget: {usd: 1}}", "8:21", "run.budget.usd", "budget_without_price", "usd_per_device_hour"),
]


@pytest.mark.parametrize(("more", "place", "path", "code", "words"), CASES, ids=[f"{c[3]}-{c[2]}" for c in CASES])
def test_each_problem_points_at_its_level(more: str, place: str, path: str, code: str, words: str) -> None:
    (problem,) = problems(more)
    assert (problem.position, problem.path, problem.code) == (f"x.yaml:{place}", path, code)
    assert words in f"{problem.what} {problem.hint}"


def test_the_recipe_is_checked_too_and_everything_comes_at_once() -> None:
    base = BASE.replace("standin/policy", "standin/polcy").replace("n: 10}", "n: 201, mix: {source: 'file:x', n: 51}}")
    found = problems("run: {budget: {usd: 1}}", base)
    assert [(p.position, p.path, p.code) for p in found] == [
        ("x.yaml:4:39", "recipe.data.n", "too_few_rows"),
        ("x.yaml:4:71", "recipe.data.mix.n", "too_few_rows"),
        ("x.yaml:6:14", "recipe.benchmark", "unknown_adapter"),
        ("x.yaml:8:21", "run.budget.usd", "budget_without_price"),
    ]


def test_a_price_lets_a_budget_in_dollars_bind() -> None:
    checked("run: {budget: {usd: 1}, resources: {usd_per_device_hour: 0.5}}")


def test_each_card_is_fetched_once(installed: dict[Kind, dict[str, Any]]) -> None:
    checked("axes: {data.source: ['file:a', 'file:b'], data.n: [1, 2], seed: [0, 1, 2]}")
    assert installed[Kind.DATA]["file"].calls == ["a", "b"]


def test_a_source_that_cannot_be_read_is_asked_once_and_reported_once(installed: dict[Kind, dict[str, Any]]) -> None:
    (problem,) = problems("axes: {data.source: ['file:broken'], data.n: [1, 900]}")
    assert problem.code == "unreadable"
    assert installed[Kind.DATA]["file"].calls == ["broken"]
