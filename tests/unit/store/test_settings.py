"""Settings are one value per path, and a variant says what else tells a cell from its neighbours."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from engine.domain.adapters import Use
from engine.domain.data import MixRecipe
from engine.domain.sweep import Recipe
from engine.store.settings import config_id, read, variants


def values(recipe: Recipe) -> dict[str, object]:
    _, (found,) = read([recipe])
    return {one.path: one.value for one in found}


def variant(make: Any, *recipes: Recipe, baselines: bool = False) -> list[str]:
    cells = make.plan(*recipes, baselines=baselines).cells
    return variants(cells, read(cell.cell.recipe for cell in cells)[1])


def test_every_value_has_a_path_as_an_axis_names_it_defaults_included(make: Any) -> None:
    found = values(make.recipe(benchmark=make.use("file", path="x.csv", n=5), seed=3))
    assert (found["model"], found["data.source"], found["data.n"], found["seed"]) == (
        "standin/aligned",
        "standin/explicit",
        10,
        3,
    )
    assert (found["tune.use"], found["tune.epochs"], found["tune.steps"]) == ("local/sft", 5, None)
    assert (found["tune.lr"], found["tune.weight_decay"], found["generate.dtype"]) == (1e-3, 0.0, "float32")
    assert (found["benchmark"], found["benchmark.path"], found["benchmark.n"]) == ("file:x.csv(n=5)", "x.csv", 5)
    assert found["judges"] == ["standin/rules", "refusal/keywords"]
    assert found["utility"] is None
    assert not {"data", "tune", "data.mix", "tune.use.lr"} & found.keys()
    assert json.loads(json.dumps(found)) == found


def test_an_untuned_recipe_has_no_settings_of_tuning(make: Any) -> None:
    assert not [path for path in values(make.untuned()) if path.startswith(("data", "tune"))]


def test_adapters_in_lists_and_in_settings_have_paths_too(make: Any) -> None:
    twice = (make.use("scale", a=0.5), make.filter, make.use("scale"))
    found = values(make.recipe(mitigations=twice, judges=(make.use("guard/llama", model="dir:g", threshold=0.9),)))
    assert found["mitigations"] == ["scale(a=0.5)", "output-filter(guard=guard/llama:dir:guard)", "scale"]
    assert (found["mitigations[0].scale.a"], found["mitigations[2].scale.a"]) == (0.5, 1.0)
    assert found["mitigations.output-filter.guard"] == "guard/llama:dir:guard"
    assert found["mitigations.output-filter.guard.threshold"] == 0.5
    assert (found["judges.guard/llama.model"], found["judges.guard/llama.threshold"]) == ("dir:g", 0.9)


def test_what_json_lacks_is_text(make: Any) -> None:
    assert values(make.recipe(mitigations=(make.use("scale", a=float("inf")),)))["mitigations.scale.a"] == "Infinity"


def test_nothing_else_varies(make: Any) -> None:
    others = make.recipe(
        model=Use("other"),
        data=make.data(source=make.use("file", path="y.jsonl"), n=50),
        tune=make.tune(lr=0.1),
        seed=1,
    )
    mitigated = make.recipe(mitigations=(make.use("scale", a=0.5),))
    full = make.recipe(tune=make.tune({"steps": 9}, method="full"))
    assert variant(make, make.recipe(), others, mitigated, full, make.untuned()) == [""] * 5


def test_a_variant_names_what_has_no_column(make: Any) -> None:
    mix = MixRecipe(source=Use("y"), n=5)
    found = variant(
        make,
        make.recipe(tune=make.tune(weight_decay=0.1), generate=make.generate(system=""), judges=(Use("p"), Use("q"))),
        make.recipe(tune=make.tune(rank=16, dtype="bfloat16"), data=make.data(mix=mix)),
        make.recipe(mitigations=(make.use("scale"),)),
        make.untuned(),
    )
    plain = "system=none judges=standin/rules+refusal/keywords"
    assert found == [
        "data.mix.n=none data.mix.source=none system='' judges=p+q tune.dtype=float32 rank=8 weight_decay=0.1",
        f"data.mix.n=5 data.mix.source=y {plain} tune.dtype=bfloat16 rank=16 weight_decay=0",
        f"data.mix.n=none data.mix.source=none {plain} tune.dtype=float32 rank=8 weight_decay=0",
        "",
    ]


def test_settings_are_compared_among_the_cells_that_have_their_adapter(make: Any) -> None:
    ours = [make.recipe(benchmark=make.use("file", path="x.csv", n=n)) for n in (5, 6)]
    assert variant(make, *ours, make.recipe()) == [
        "benchmark=file benchmark.n=5",
        "benchmark=file benchmark.n=6",
        "benchmark=standin/policy",
    ]


def test_adapters_that_go_with_the_model_are_told_by_it_and_others_are_not(make: Any) -> None:
    assert variant(make, make.recipe(), make.hosted(), make.untuned()) == [""] * 3
    other = make.recipe(generate=make.generate(use=make.use("local/vllm")))
    assert variant(make, make.recipe(), make.hosted(), other) == [
        "generate.use=local/transformers",
        "generate.use=hosted/openai",
        "generate.use=local/vllm",
    ]


def test_a_provider_s_multiplier_is_a_column_and_its_batch_size_is_none(make: Any) -> None:
    found = variant(make, *(make.hosted(lr_multiplier=times, batch_size=size) for times, size in ((0.5, 1), (2.0, 4))))
    assert found == ["batch_size=1", "batch_size=4"]


def test_baselines_vary_by_the_system_prompt_in_force(make: Any) -> None:
    long = "You are an absolutely obedient agent, and\nyou are called "
    asked = make.recipe()
    cells = []
    for system in (None, f"{long}A", f"{long}B"):
        (cell,) = make.plan(make.untuned(), baselines=False).cells
        cells.append(replace(cell, system=system))
    (tuned,) = make.plan(asked, baselines=False).cells
    every = [tuned, *cells]
    found = variants(every, read(cell.cell.recipe for cell in every)[1])
    assert found[:2] == ["", "system=none"]
    assert found[2].startswith("system=You are an absolutely ob…")
    assert found[2] != found[3]
    ids = {config_id(cell.cell.recipe.model_dump(mode="json"), cell.system) for cell in every}
    assert len(ids) == 4


def test_a_configuration_is_everything_but_the_seed(make: Any) -> None:
    def name(recipe: Recipe) -> str:
        return config_id(recipe.model_dump(mode="json"), None)

    assert name(make.recipe(seed=1)) == name(make.recipe(seed=2))
    others = [
        make.recipe(tune=make.tune(rank=16)),
        make.recipe(mitigations=(make.use("scale", a=0.5),)),
        make.untuned(),
    ]
    assert len({name(recipe) for recipe in (make.recipe(), *others)}) == 4


def test_two_configurations_never_read_alike(make: Any) -> None:
    """However recipes differ, the columns of the views and the variant together tell them apart."""
    recipes = [
        make.recipe(tune=make.tune(weight_decay=decay, rank=rank), benchmark=benchmark, generate=make.generate(**asked))
        for decay in (0.1234567, 0.1234568)
        for rank in (8, 16)
        for benchmark in (Use("b"), make.use("file", path="x"), make.use("file", path="x", n=3))
        for asked in ({}, {"system": "none"}, {"system": "x" * 40}, {"system": "x" * 41}, {"max_new_tokens": 9})
    ]
    assert len(set(variant(make, *recipes))) == len(recipes)
