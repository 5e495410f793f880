"""Settings of adapters in a recipe: where they stand, what is wrong with them, and what a new one takes."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from jsonschema import Draft7Validator

from engine.domain.adapters import plain
from engine.domain.sweep import Recipe
from engine.spec.leaves import Leaves
from engine.spec.load import read_sweep
from engine.spec.origins import base_level, origin
from engine.spec.positions import Problems, Source
from engine.spec.schema import json_schema
from engine.spec.yaml_nodes import Plain, compose

from .toy import TOY, expanded, labels, problems, the_problem

pytestmark = pytest.mark.usefixtures("toy_adapters")

FULL = """\
sweep: toy
recipe:
  model: {use: toy/model, path: base, layers: 3}
  data: {source: {use: toy/rows, column: body}, n: 10, mix: {source: "toy/rows:other", n: 2}}
  tune: {use: toy/steady, lr: 1e-3, rank: 4, targets: [q, v], steps: 7}
  benchmark: {use: toy/prompts, n: 5}
  utility: {use: toy/prompts, column: title}
  over_refusal: toy/prompts
  utility_judge: {use: toy/v1.0-beta, threshold: 0.1}
  over_refusal_judge: toy/strict
  generate: {use: toy/generator, dtype: bfloat16, max_new_tokens: 3}
  judges: [toy/strict, {use: toy/v1.0-beta, model: {use: toy/model, path: judge}}]
  mitigations: [{use: toy/scale, a: 0.5}, {use: toy/guarded, guard: {use: toy/v1.0-beta, threshold: 0}, words: [a]}]
"""


def recipe_of(text: str) -> Recipe:
    return read_sweep(text.encode(), "x.yaml").sweep.recipe


def yaml(text: str) -> Plain:
    found = compose(Source.of("x", text), text, Problems())
    assert found is not None
    return found[0]


def test_an_adapter_may_stand_as_a_mapping_everywhere() -> None:
    recipe = recipe_of(FULL)
    paths = (
        "model.path",
        "model.layers",
        "data.source.column",
        "data.mix.source.column",
        "tune.rank",
        "tune.targets",
        "tune.steps",
        "tune.method",
        "benchmark.n",
        "utility.column",
        "utility_judge.threshold",
        "generate.dtype",
        "judges.toy/v1.0-beta.model.path",
        "mitigations.toy/scale.a",
        "mitigations.toy/guarded.guard.threshold",
        "mitigations.toy/guarded.words",
    )
    values = (
        "base",
        3,
        "body",
        "other",
        4,
        ("q", "v"),
        7,
        "lora",
        5,
        "title",
        0.1,
        "bfloat16",
        "judge",
        0.5,
        0,
        ("a",),
    )
    assert tuple(base_level(recipe, path) for path in paths) == values
    assert [str(mitigation) for mitigation in recipe.mitigations] == [
        "toy/scale:0.5",
        "toy/guarded(guard=toy/v1.0-beta(threshold=0), words=a)",
    ]


def test_short_forms_and_mappings_mean_the_same() -> None:
    short = TOY.replace("[toy/strict]", '["toy/v1.0-beta:toy/model:judge"]')
    long = TOY.replace("toy/model:base\n", "\n    use: toy/model\n    path: base\n").replace(
        "[toy/strict]", '[{use: toy/v1.0-beta, model: {use: "toy/model:judge"}}]'
    )
    assert recipe_of(short) == recipe_of(long)
    nested = TOY.replace("{use: toy/steady, lr: 1e-3}", "{use: {use: toy/steady, lr: 1e-3}}")
    assert recipe_of(nested) == recipe_of(TOY.replace("use: toy/steady", "adapter: toy/steady")) == recipe_of(TOY)


def test_a_recipe_is_read_again_from_what_it_says_of_itself() -> None:
    recipe = recipe_of(FULL)
    uses = {name: plain(getattr(recipe, name)) for name in ("model", "benchmark", "utility", "utility_judge")}
    lists = {name: [plain(use) for use in getattr(recipe, name)] for name in ("judges", "mitigations")}
    text = json.dumps({"sweep": "toy", "recipe": {**yaml(FULL)["recipe"], **uses, **lists}})
    assert recipe_of(text) == recipe


# Each case: what is replaced in TOY by what, then `line:column`, path, code and words of the only problem.
BAD = [
    ("lr: 1e-3", "lr: 3", "5:31", "tune.lr", "out_of_range", "less than 1 (got 3)"),
    ("lr: 1e-3", "lr: '1e-3'", "5:31", "tune.lr", "wrong_type", "remove the quotes"),
    ("lr: 1e-3", "lr: 1e-3, rank: 2.0", "5:43", "tune.rank", "wrong_type", "write 2"),
    ("lr: 1e-3", "lr: 1e-3, method: loar", "5:45", "tune.method", "not_allowed", "did you mean `lora`"),
    ("lr: 1e-3", "lr: 1e-3, method: full, rank: 4", "5:9", "tune", "inconsistent", "`rank` belongs to `lora`"),
    ("lr: 1e-3", "lr: 1e-3, targets: q", "5:46", "tune.targets", "wrong_type", "write a list: [q]"),
    ("lr: 1e-3", "rank: 4", "5:3", "tune.lr", "missing_field", "Learning rate."),
    ("lr: 1e-3", "lr: 1e-3, epoch: 3", "5:37", "tune.epoch", "unknown_field", "did you mean `epochs`"),
    ("lr: 1e-3", "lr: 1e-3, learning_rate: 1", "5:37", "tune.learning_rate", "unknown_field", "did you mean `lr`"),
    ("lr: 1e-3", "lr: 1e-3, nope: 1", "5:37", "tune.nope", "unknown_field", "known: `lr`, `rank`"),
    ("toy/steady", "toy/stedy", "5:15", "tune.use", "unknown_adapter", "did you mean `toy/steady`"),
    ("toy/steady", "toy/steady:x", "5:15", "tune.use", "inconsistent", "takes no argument, got `x`"),
    ("toy/steady", "toy/steady@lab", "5:15", "tune.use", "inconsistent", "only a model's reference names an account"),
    ("toy/prompts", "{use: toy/prompts, n: 0}", "6:36", "benchmark.n", "out_of_range", "at least 1 (got 0)"),
    ("toy/prompts", "{use: toy/prompts, colum: text}", "6:33", "benchmark.colum", "unknown_field", "`column`"),
    ("toy/prompts", "{use: toy/promts}", "6:20", "benchmark.use", "unknown_adapter", "`toy/prompts`"),
    ("toy/prompts", "{n: 5}", "6:14", "benchmark", "missing_field", "add `use: NAME`"),
    ("toy/prompts", "5", "6:14", "benchmark", "wrong_type", "expected an adapter, got the number 5"),
    ("toy/prompts", "Toy", "6:14", "benchmark", "bad_name", "not the name of an adapter (got 'Toy')"),
    ("toy/model:base", "{use: 'toy/model:base', path: x}", "3:10", "model", "inconsistent", "write it once"),
    ("toy/model:base", "toy/model", "3:3", "model.path", "missing_field", "Its folder."),
    ("toy/rows", "{use: toy/rows, column: 1}", "4:42", "data.source.column", "wrong_type", "put it in quotes"),
    (
        "[toy/strict]",
        "[{use: toy/v1.0-beta, threshold: 2}]",
        "10:44",
        "judges[0].threshold",
        "out_of_range",
        "at most 1",
    ),
    ("[toy/strict]", "[toy/strict, toy/nope]", "10:24", "judges[1]", "unknown_adapter", "no judge is called"),
    (
        "[toy/strict]",
        "[toy/strict]\n  mitigations: [{use: toy/guarded, guard: {use: toy/v1.0-beta, model: {use: toy/model}}}]",
        "11:64",
        "mitigations[0].guard.model.path",
        "missing_field",
        "Its folder.",
    ),
    (
        "[toy/strict]",
        "[toy/strict]\n  mitigations: [toy/scale:half]",
        "11:17",
        "mitigations[0].a",
        "wrong_type",
        "a number, got the string 'half'",
    ),
    (
        "[toy/strict]",
        "[toy/strict]\n  mitigations: [toy/broken]",
        "11:17",
        "mitigations[0]",
        "unknown_adapter",
        "cannot be imported",
    ),
    (
        "[toy/strict]",
        "[toy/strict]\n  mitigations: [toy/raising]",
        "11:17",
        "mitigations[0]",
        "unknown_adapter",
        "cannot be imported: RuntimeError: no device here",
    ),
]


@pytest.mark.parametrize(("old", "new", "place", "path", "code", "words"), BAD, ids=[f"{b[4]}-{b[3]}" for b in BAD])
def test_each_mistake_in_a_setting_has_its_place_and_its_cure(
    old: str, new: str, place: str, path: str, code: str, words: str
) -> None:
    assert TOY.count(old) == 1 or old == "[toy/strict]"
    problem = the_problem(base=TOY.replace(old, new))
    assert (problem.position, problem.path, problem.code) == (f"x.yaml:{place}", f"recipe.{path}", code)
    assert words in f"{problem.what} {problem.hint}"
    assert "pydantic" not in str(problem)
    assert "Input should" not in str(problem)


def test_an_adapter_that_is_not_installed_is_no_reason_to_doubt_the_rest() -> None:
    base = TOY.replace("toy/steady", "toy/stedy")
    found = problems("axes: {tune.rank: [4], tune.anything: [1], data.m: [1]}", base=base)
    assert [(problem.path, problem.code) for problem in found] == [
        ("recipe.tune.use", "unknown_adapter"),
        ("axes.data.m", "unknown_path"),
    ]


def test_both_names_of_a_field_at_once_are_one_too_many() -> None:
    problem = the_problem(base=TOY.replace("use: toy/steady", "use: toy/steady, adapter: toy/other"))
    found = (problem.position, problem.path, problem.code)
    assert found == ("x.yaml:5:27", "recipe.tune.adapter", "duplicate_key")


def test_levels_are_found_where_they_were_written() -> None:
    grid = "axes: {tune.rank: [1, 2], mitigations.toy/scale.a: [0, 1]}"
    sweep = read_sweep((FULL + grid).encode(), "x.yaml").sweep
    assert origin(sweep, "tune.rank", 2) == "axes.tune.rank[1]"
    assert origin(sweep, "mitigations.toy/guarded.words", ("a",)) == "recipe.mitigations[1].words"


LINE = '        restarts: int = Field(default=0, ge=0, le=9, description="Restarts of the schedule.")'
BELOW = '        rank: int = Field(default=8, ge=1, le=64, description="Rank.")'


def test_a_new_setting_is_one_line_in_one_file(edited_toy: Callable[[str, str], None]) -> None:
    assert the_problem("axes: {tune.restarts: [0, 3]}").code == "unknown_path"
    edited_toy(LINE, BELOW)
    # as an axis and as an override
    assert labels("axes: {tune.restarts: [0, 3]}") == ["restarts=0", "restarts=3"]
    assert base_level(expanded("", "tune.restarts=2").cells[0].recipe, "tune.restarts") == 2
    # in errors, with their places
    problem = the_problem("axes: {tune.restarts: [0, 10]}")
    assert (problem.position, problem.what) == ("x.yaml:11:27", "must be at most 9 (got 10)")
    assert the_problem(base=TOY.replace("lr: 1e-3", "lr: 1e-3, restart: 1")).hint == "did you mean `restarts`?"
    # in the schema, as a field and as a path
    definitions = json_schema()["definitions"]
    expected = {"default": 0, "minimum": 0, "maximum": 9, "type": "integer", "description": "Restarts of the schedule."}
    assert definitions["TuneRecipe"]["properties"]["restarts"] == expected
    assert definitions["Axes"]["properties"]["tune.restarts"]["description"] == "Levels. Restarts of the schedule."


def test_the_schema_takes_what_the_loader_takes() -> None:
    schema = json_schema()
    Draft7Validator.check_schema(schema)
    validator = Draft7Validator(schema)
    grid = """\
axes:
  tune.adapter: [toy/steady, {use: toy/other, beta: 0.5}]
  mitigations: [[], [{use: toy/scale, a: 0.5}, toy/guarded]]
  mitigations.toy/scale.a: [0, null]
  mitigations.toy/guarded.guard.threshold: [0.5]
when: [{if: {benchmark: {use: toy/prompts, n: 5}}, axes: {"judges.toy/v1.0-beta.threshold": [1]}}]
include: [{model: {use: "toy/model:x", layers: 4}}]
"""
    assert not list(validator.iter_errors(yaml(FULL + grid)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("lr: 1e-3", "lr: 3"),
        ("lr: 1e-3", "lr: 1e-3, nope: 3"),
        ("toy/prompts", "{use: toy/prompts, n: 0}"),
        ("toy/prompts", "{use: toy/prompts, m: 1}"),
        ("toy/prompts", "{use: Toy}"),
        ("[toy/strict]", "[{use: toy/v1.0-beta, threshold: x}]"),
        ("[toy/strict]", "[{use: toy/strict, threshold: 0.5}]"),
    ],
)
def test_what_the_schema_refuses_in_settings_the_loader_refuses(old: str, new: str) -> None:
    text = TOY.replace(old, new)
    assert list(Draft7Validator(json_schema()).iter_errors(yaml(text)))
    assert problems(base=text)


def test_the_schema_knows_every_path_and_no_word_of_pydantics() -> None:
    schema = json_schema()
    axes = schema["definitions"]["Axes"]["properties"]
    assert {"tune.lr", "model.layers", "judges.toy/v1.0-beta.threshold", "mitigations.toy/guarded.guard"} <= set(axes)
    assert set(Leaves.of_installed().by_path) <= set(axes)
    text = json.dumps(schema)
    assert "x-adapter" not in text
    assert "learning_rate" not in text
    assert "$defs" not in text
