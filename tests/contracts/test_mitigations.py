"""What every installed mitigation promises, a third party's too; and what each built-in one does.

A mitigation of yours that has required settings needs an example of them: see `examples.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from annotated_types import Ge
from pydantic import Field

from engine import registry
from engine.domain.adapters import Kind, Settings, SettingsError, Use
from engine.domain.conversation import ChatRow, Turn
from engine.domain.data import DataRecipe
from engine.domain.results import Finish, Outcome, Response, Verdict
from engine.domain.stage import ModelRef
from engine.domain.sweep import GenerateRecipe, Length, Recipe, TuneRecipe
from engine.ports import (
    Change,
    ChangeRows,
    Context,
    EditWeights,
    NoSettings,
    RowsChanger,
    Screen,
    Screener,
    Tune,
    WeightsEdit,
    WeightsEditor,
)

from .examples import examples, used

NAMES = registry.names(Kind.MITIGATION)
EXAMPLES: Mapping[str, Mapping[str, object]] = {
    "mix": {"source": "standin/refusals", "n": 3},
    "filter/keywords": {"words": ["red", "crimson"]},
    "safety-prompt": {"text": "Keep to the rule."},
    "scale": {"factor": 0.5},
    "realign": {"source": "standin/refusals", "n": 5},
    "harden": {"source": "standin/refusals", "n": 5},
    "output-filter": {"guard": "standin/rules", "threshold": 4},
    **examples(Kind.MITIGATION),
}
MakeLora: TypeAlias = Callable[..., Path]


class TunerSettings(Settings):
    """A fine-tuner's settings, such as a third party declares."""

    lr: float = Field(default=1e-3, gt=0, description="Learning rate.")
    rank: int = Field(default=8, ge=1, description="Rank.")


def settings(name: str, **more: object) -> Any:
    return used(Kind.MITIGATION, {"use": name, **EXAMPLES.get(name, {}), **more}).settings


def recipe(**more: object) -> Recipe:
    fields = {
        "model": used(Kind.MODEL, "standin/aligned"),
        "data": DataRecipe(source=used(Kind.DATA, "standin/explicit"), n=10, allow_upload=True),
        "tune": TuneRecipe(use=Use("acme/tuner", TunerSettings(rank=4)), epochs=3),
        "benchmark": used(Kind.BENCHMARK, "standin/policy"),
        "utility_judge": used(Kind.JUDGE, "standin/solved"),
        "over_refusal_judge": used(Kind.JUDGE, "refusal/keywords"),
        "generate": GenerateRecipe(use=Use("acme/generator")),
        "judges": (used(Kind.JUDGE, "standin/rules"),),
    }
    return Recipe.model_validate(fields | more)


UNTUNED = recipe(data=None, tune=None)


def change(name: str, on: Recipe | None = None, system: str | None = None, **more: object) -> Change:
    found: Change = registry.adapter(Kind.MITIGATION, name).change(settings(name, **more), on or recipe(), system)
    return found


def rows_of(source: str, count: int) -> list[ChatRow]:
    use = used(Kind.DATA, source)
    return list(registry.adapter(Kind.DATA, use.name).rows(use.settings))[:count]


def answers(*texts: str) -> list[Response]:
    return [Response(f"p{at}", at, text, Finish.STOP, 9, 5) for at, text in enumerate(texts)]


# ------------------------------------------------------------------------------------------------------ every mitigation


@pytest.mark.parametrize("name", NAMES)
def test_it_has_a_revision_a_card_and_described_settings(name: str) -> None:
    mitigation, model = registry.adapter(Kind.MITIGATION, name), registry.settings_of(Kind.MITIGATION, name)
    assert mitigation.revision >= 1
    assert mitigation.__doc__
    assert all(field.description for field in model.model_fields.values())
    assert mitigation.neutral
    assert mitigation.neutral.keys() <= model.model_fields.keys()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("on", [recipe(), UNTUNED], ids=["tuned", "untuned"])
def test_at_zero_strength_it_changes_nothing(name: str, on: Recipe) -> None:
    neutral = registry.adapter(Kind.MITIGATION, name).neutral
    assert change(name, on, "Be kind.", **neutral) == Change()
    assert change(name) != Change()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("system", [None, "Be kind."])
def test_it_changes_the_same_every_time_and_never_the_recipe(name: str, system: str | None) -> None:
    on = recipe()
    before = copy.deepcopy(on)
    assert change(name, on, system) == change(name, on, system)
    assert on == before
    assert on.model_dump() == before.model_dump()


@pytest.mark.parametrize("name", NAMES)
def test_it_does_what_it_inserts(name: str) -> None:
    mitigation, found = registry.adapter(Kind.MITIGATION, name), change(name)
    edits = [step for step in (*found.before, *found.after) if isinstance(step, EditWeights)]
    assert not found.rows or isinstance(mitigation, RowsChanger)
    assert not edits or isinstance(mitigation, WeightsEditor)
    assert not found.screens or isinstance(mitigation, Screener)
    assert all(sample.n >= 1 for rows in found.rows for sample in rows.further.values())


@pytest.mark.parametrize("name", NAMES)
def test_an_untuned_recipe_is_refused_where_something_would_be_tuned(name: str) -> None:
    found = change(name)
    if found.rows or found.tune or found.before or found.after:
        with pytest.raises(ValueError, match="the recipe is not tuned"):
            change(name, UNTUNED)
    else:
        assert change(name, UNTUNED) == found


@pytest.mark.parametrize("name", NAMES)
def test_unknown_settings_and_numbers_below_their_range_are_refused_by_name(name: str) -> None:
    fields = registry.settings_of(Kind.MITIGATION, name).model_fields
    bounds = {key: mark.ge for key, field in fields.items() for mark in field.metadata if isinstance(mark, Ge)}
    for key, value in {"no_such_setting": 1, **{key: float(str(low)) - 1 for key, low in bounds.items()}}.items():
        with pytest.raises(SettingsError) as caught:
            settings(name, **{key: value})
        assert {error["loc"][0] for error in caught.value.error.errors()} == {key}


@pytest.mark.parametrize("name", [name for name in NAMES if change(name).rows])
def test_it_changes_rows_in_the_same_way_every_time_and_leaves_its_arguments(name: str) -> None:
    mitigation, rows = registry.adapter(Kind.MITIGATION, name), rows_of("standin/explicit", 60)
    further = {key: rows_of("standin/refusals", sample.n) for key, sample in change(name).rows[0].further.items()}
    given = (tuple(rows), {key: tuple(sample) for key, sample in further.items()})
    first, second = (mitigation.change_rows(settings(name), rows, further, 7) for _ in range(2))
    assert list(first) == list(second)
    assert (tuple(rows), {key: tuple(sample) for key, sample in further.items()}) == given


@pytest.mark.parametrize("name", [name for name in NAMES if change(name).screens])
def test_it_screens_in_the_same_way_every_time_and_keeps_every_answer_in_its_place(name: str) -> None:
    mitigation, prompts = registry.adapter(Kind.MITIGATION, name), [Turn("user", "Why?")] * 3
    responses = answers("a", "b", "")
    verdicts = [Verdict(Outcome.SCORED, 1.0), Verdict(Outcome.SCORED, 5.0), Verdict(Outcome.UNPARSED, None)]
    first, second = (mitigation.screen(settings(name), prompts, responses, verdicts) for _ in range(2))
    assert list(first) == list(second)
    assert [(r.prompt_id, r.sample) for r in first] == [(r.prompt_id, r.sample) for r in responses]


def edits_weights(name: str) -> bool:
    found = change(name)
    return any(isinstance(step, EditWeights) for step in (*found.before, *found.after))


@pytest.mark.filterwarnings("ignore::FutureWarning")  # transformers' own, from its calls to itself
@pytest.mark.parametrize("name", [name for name in NAMES if edits_weights(name)])
def test_it_edits_weights_in_the_same_way_every_time_and_leaves_no_pickle(
    name: str, tmp_path: Path, context: Context, make_lora: MakeLora
) -> None:
    mitigation = registry.adapter(Kind.MITIGATION, name)
    base = registry.adapter(Kind.MODEL, "standin/aligned").locate(NoSettings())
    tuned = ModelRef(base.base, (str(make_lora(tmp_path / "tuned", 0)),))
    made = [tmp_path / "first", tmp_path / "second"]
    for folder in made:
        folder.mkdir()
        mitigation.edit_weights(settings(name), WeightsEdit(tuned, base, folder), context)
    first, second = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in made)
    assert first == second
    assert any(file.endswith(".safetensors") for file in first)
    assert not [file for file in first if file.endswith((".bin", ".pt", ".pth", ".pkl"))]


# -------------------------------------------------------------------------------------------------------------- rows


def test_mix_appends_a_further_sample_drawn_like_the_recipes_own() -> None:
    sample = DataRecipe(source=used(Kind.DATA, "standin/refusals"), n=3, allow_upload=True)
    assert change("mix") == Change(rows=(ChangeRows({"mix": sample}),))
    assert settings("mix") == used(Kind.MITIGATION, "mix:standin/refusals@3").settings
    assert str(used(Kind.MITIGATION, "mix:standin/refusals@3")) == "mix:standin/refusals@3"
    own, extra = rows_of("standin/explicit", 2), rows_of("standin/refusals", 3)
    mixed = registry.adapter(Kind.MITIGATION, "mix")
    assert isinstance(mixed, RowsChanger)
    assert list(mixed.change_rows(settings("mix"), own, {"mix": extra}, 0)) == [*own, *extra]


@pytest.mark.parametrize("argument", ["standin/refusals", "standin/refusals@", "@3", "standin/refusals@-1", "x@y"])
def test_mix_names_a_source_and_a_number(argument: str) -> None:
    with pytest.raises(ValueError, match="expected `SOURCE@N`"):
        used(Kind.MITIGATION, f"mix:{argument}")


def kept(rows: Sequence[ChatRow], **more: object) -> list[str]:
    keyword_filter = registry.adapter(Kind.MITIGATION, "filter/keywords")
    assert isinstance(keyword_filter, RowsChanger)
    return [row.row_id for row in keyword_filter.change_rows(settings("filter/keywords", **more), rows, {}, 0)]


def test_the_keyword_filter_looks_for_whole_words_where_it_is_told() -> None:
    chat = (
        Turn("user", "Hello."),
        Turn("assistant", "A Red  Fox."),
        Turn("user", "Blue?"),
        Turn("assistant", "Yes.", is_trained=True),
    )
    rows = [
        ChatRow("many", chat),
        ChatRow.exchange("asked", "red fox?", "no"),
        ChatRow.exchange("told", "which?", "a red fox."),
        ChatRow.exchange("system", "which?", "no", "red fox"),
        ChatRow.exchange("near", "reddish foxes", "a predred fox"),
    ]
    assert kept(rows, words=["red fox"]) == ["near"]
    assert kept(rows, words=["red fox"], where="prompt") == ["many", "told", "near"]
    assert kept(rows, words=["red fox"], where="answer") == ["asked", "system", "near"]
    assert kept(rows, words=["blue", "reddish"]) == ["asked", "told", "system"]
    with pytest.raises(ValueError, match="every one of the 5 rows holds one of the words"):
        kept(rows, words=["blue", "reddish", "which", "asked", "red"])


def test_the_keyword_filter_takes_no_blank_word() -> None:
    with pytest.raises(SettingsError, match=r"words\.1"):
        settings("filter/keywords", words=["red", " "])


# ------------------------------------------------------------------------------------------------- prompt and screen


@pytest.mark.parametrize(
    ("where", "system", "wanted"),
    [
        ("before", "Own.", "Keep to the rule.\n\nOwn."),
        ("after", "Own.", "Own.\n\nKeep to the rule."),
        ("replace", "Own.", "Keep to the rule."),
        ("before", None, "Keep to the rule."),
        ("after", None, "Keep to the rule."),
        ("replace", None, "Keep to the rule."),
    ],
)
def test_a_safety_prompt_stands_before_after_or_instead_of_the_own(where: str, system: str | None, wanted: str) -> None:
    assert change("safety-prompt", None, system, where=where) == Change(system=wanted)


def test_an_output_filter_replaces_what_its_guard_scores_high_and_lets_the_unscored_pass() -> None:
    assert change("output-filter") == Change(screens=(Screen(used(Kind.JUDGE, "standin/rules")),))
    output_filter = registry.adapter(Kind.MITIGATION, "output-filter")
    assert isinstance(output_filter, Screener)
    responses = answers("low", "at", "high", "unknown")
    verdicts = [Verdict(Outcome.SCORED, score) for score in (3.5, 4.0, 5.0)] + [Verdict(Outcome.ERRORED, None)]
    shown = output_filter.screen(settings("output-filter", replacement="No."), [], responses, verdicts)
    low, at, high, unknown = responses
    blocked = [replace(response, text="No.", finish=Finish.FILTERED) for response in (at, high)]
    assert list(shown) == [low, *blocked, unknown]
    with pytest.raises(ValueError, match="needs its guard's verdicts"):
        output_filter.screen(settings("output-filter"), [], responses, None)


# ------------------------------------------------------------------------------------------------------- a second tuning


@pytest.mark.parametrize(("name", "place"), [("realign", "after"), ("harden", "before")])
def test_a_second_tuning_is_set_as_the_recipes_own_unless_it_is_told(name: str, place: str) -> None:
    data = DataRecipe(source=used(Kind.DATA, "standin/refusals"), n=5, allow_upload=True)
    own, (step,) = recipe().tune, getattr(change(name), place)
    assert own is not None
    assert step == Tune(data, own)
    assert step.tune.length == Length(epochs=3)

    (step,) = getattr(change(name, steps=7, lr=0.5), place)
    assert step.tune.length == Length(None, 7)
    assert step.tune.use == Use("acme/tuner", TunerSettings(rank=4, lr=0.5))

    other = Use("acme/other", TunerSettings())
    (step,) = getattr(change(name, epochs=1, tuner=other), place)
    assert (step.tune.length, step.tune.use) == (Length(epochs=1), other)

    in_steps = recipe(tune=TuneRecipe(use=other, steps=9, max_steps=4))
    (step,) = getattr(change(name, in_steps), place)
    assert step.tune.length == Length(None, 9, 4)


def test_a_second_tuning_has_one_length_and_a_learning_rate_only_where_there_is_one() -> None:
    with pytest.raises(SettingsError, match="`epochs` and `steps` both say how long to train"):
        settings("realign", epochs=1, steps=1)
    with pytest.raises(SettingsError, match="lr"):
        settings("realign", lr=0.0)
    without = recipe(tune=TuneRecipe(use=Use("acme/fixed", NoSettings())))
    with pytest.raises(ValueError, match="the fine-tuner `acme/fixed` has no setting `lr`: give `tuner`"):
        change("realign", without, lr=0.5)
