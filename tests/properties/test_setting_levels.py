"""Levels of whole adapters and of their settings against a second, plain implementation of what they mean."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.domain.errors import SpecError
from engine.domain.sweep import Recipe
from engine.spec.expand import expand
from engine.spec.load import read_sweep

pytestmark = pytest.mark.usefixtures("toy_adapters")

Plain = dict[str, Any]

REQUIRED = object()
TUNERS: dict[str, Plain] = {
    "toy/steady": {"lr": REQUIRED, "rank": 8},
    "toy/other": {"rank": 4, "lr_multiplier": None, "beta": 0.1},
}
SETTINGS: dict[str, list[Any]] = {
    "lr": [0.1, 0.2],
    "rank": [4, 8, 12],
    "lr_multiplier": [1.5, 2.0],
    "beta": [0.1, 0.5],
}
NULLABLE = {"lr_multiplier"}
MITIGATIONS: list[list[Plain]] = [
    [],
    [{"use": "toy/scale", "a": 0.25}],
    [{"use": "toy/guarded", "guard": "toy/strict"}],
    [{"use": "toy/guarded", "guard": "toy/strict"}, {"use": "toy/scale", "a": 0.75}],
]


def tuner(draw: st.DrawFn, name: str, *, whole: bool) -> Plain:
    written = {
        key: draw(st.sampled_from(SETTINGS[key]))
        for key, default in TUNERS[name].items()
        if (default is REQUIRED and whole) or draw(st.booleans())
    }
    return {"use": name, **written}


def distinct(level: str | Plain) -> str:
    """What a level is known by: a setting that is written and is the default makes no other level."""
    own = {"use": level} if isinstance(level, str) else level
    return str({key: value for key, value in own.items() if value != TUNERS[own["use"]].get(key)})


@st.composite
def specs(draw: st.DrawFn) -> tuple[Plain, dict[str, list[Any]]]:
    """A recipe's `tune` and `mitigations`, and axes over them."""
    names = st.sampled_from(sorted(TUNERS))
    recipe = {"tune": tuner(draw, draw(names), whole=True), "mitigations": draw(st.sampled_from(MITIGATIONS))}
    axes: dict[str, list[Any]] = {}
    if draw(st.booleans()):
        levels = [draw(st.one_of(names, st.just(tuner(draw, draw(names), whole=False)))) for _ in range(2)]
        axes["tune.use"] = list({distinct(level): level for level in levels}.values())
    if draw(st.booleans()):
        axes["mitigations"] = draw(st.lists(st.sampled_from(MITIGATIONS), min_size=1, max_size=3, unique_by=str))
    named = {
        recipe["tune"]["use"],
        *(level if isinstance(level, str) else level["use"] for level in axes.get("tune.use", ())),
    }
    for key in sorted({key for name in named for key in TUNERS[name]}):
        if draw(st.booleans()):
            choices = st.sampled_from([None, *SETTINGS[key]])
            axes[f"tune.{key}"] = draw(st.lists(choices, min_size=1, max_size=2, unique=True))
    if any("toy/scale" in str(level) for level in [recipe["mitigations"], *axes.get("mitigations", ())]) and draw(
        st.booleans()
    ):
        axes["mitigations.toy/scale.a"] = draw(
            st.lists(st.sampled_from([0.25, 0.5]), min_size=1, max_size=2, unique=True)
        )
    order = draw(st.permutations(sorted(axes)))
    return recipe, {path: axes[path] for path in order}


def tuned(base: Plain, combination: Plain) -> Plain | str:
    """What `tune` comes to in a combination, or the code of what is wrong with it."""
    name, written = base["use"], {key: value for key, value in base.items() if key != "use"}
    if "tune.use" in combination:
        level = combination["tune.use"]
        own = {"use": level} if isinstance(level, str) else level
        meant = {
            key: value for key, value in written.items() if value != TUNERS[name][key] or key in TUNERS[own["use"]]
        }
        name, written = own["use"], meant | {key: value for key, value in own.items() if key != "use"}
    for path, level in combination.items():
        key = path.removeprefix("tune.")
        if path == "tune.use" or not path.startswith("tune."):
            continue
        if level is not None and key not in TUNERS[name]:
            return "no_such_setting"
        if level is None and key not in NULLABLE & TUNERS[name].keys():
            written.pop(key, None)
        else:
            written[key] = level
    if written.keys() - TUNERS[name].keys():
        return "no_such_setting"
    whole = TUNERS[name] | written
    return "missing_field" if REQUIRED in whole.values() else {"use": name} | whole


def mitigated(base: list[Plain], combination: Plain) -> list[Plain]:
    scaled = {"a": combination["mitigations.toy/scale.a"]} if "mitigations.toy/scale.a" in combination else {}
    chosen = combination.get("mitigations", base)
    return [item | scaled if item["use"] == "toy/scale" else item for item in chosen]


def shown(recipe: Recipe) -> tuple[Plain, list[Plain]]:
    assert recipe.tune is not None
    use = recipe.tune.use
    names = ("lr", "rank") if use.name == "toy/steady" else ("rank", "lr_multiplier", "beta")
    tune = {"use": use.name, **{name: getattr(use.settings, name) for name in names}}
    mitigations = [
        {"use": use.name, **({"a": use.settings.a} if use.name == "toy/scale" else {"guard": str(use.settings.guard)})}
        for use in recipe.mitigations
    ]
    return tune, mitigations


@settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow])
@given(specs())
def test_levels_of_settings_are_those_of_the_plain_implementation(spec: tuple[Plain, dict[str, list[Any]]]) -> None:
    recipe, axes = spec
    fixed = {
        "model": "toy/model:base",
        "data": {"source": "toy/rows", "n": 1},
        "benchmark": "toy/prompts",
        "utility_judge": "toy/strict",
        "over_refusal_judge": "toy/strict",
        "generate": {"use": "toy/generator"},
        "judges": ["toy/strict"],
    }
    raw = yaml.safe_dump({"sweep": "p", "recipe": {**fixed, **recipe}, "axes": axes}, sort_keys=False).encode()
    combinations = [dict(zip(axes, levels, strict=True)) for levels in product(*axes.values())]
    expected = [(tuned(recipe["tune"], c), mitigated(recipe["mitigations"], c)) for c in combinations]
    codes = {tune for tune, _ in expected if isinstance(tune, str)}
    loaded = read_sweep(raw, "p.yaml")
    if codes:
        with pytest.raises(SpecError) as caught:
            expand(loaded.sweep, loaded.positions)
        assert {problem.code for problem in caught.value.problems} <= codes
        assert all(problem.line > 1 for problem in caught.value.problems)
        return
    cells = expand(loaded.sweep, loaded.positions).cells
    first = [item for index, item in enumerate(expected) if item not in expected[:index]]
    assert [shown(cell.recipe) for cell in cells] == first
