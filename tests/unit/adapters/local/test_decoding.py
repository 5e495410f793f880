"""What a model's generation_config sets is left out unless it is asked for, said in `plan`, and refused where generators differ."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adapters.local.decoding import declared, end_tokens, notes, taken
from engine.domain.stage import ModelRef
from engine.domain.sweep import Decoding

GREEDY, SAMPLED = Decoding(), Decoding(temperature=1.0)
OWN = {"repetition_penalty": 1.1, "top_k": 20, "min_p": 0.05, "temperature": 0.6, "do_sample": True}


def folder(path: Path, config: dict[str, Any] | None = None, **own: Any) -> Path:
    (path / "config.json").write_text(json.dumps(config or {}))
    if own:
        (path / "generation_config.json").write_text(json.dumps(own))
    return path


def test_fields_without_an_effect_are_none(tmp_path: Path) -> None:
    harmless = {
        "eos_token_id": [1, 2],
        "max_length": 20,
        "use_cache": True,
        "num_beams": 1,
        "top_p": 1.0,
        "min_p": None,
    }
    assert declared(folder(tmp_path, {"top_k": 7}, **harmless, transformers_version="5.0")) == {}
    assert notes(ModelRef(str(tmp_path)), GREEDY, model_defaults=True) == ()


def test_an_old_model_has_its_fields_in_config_json(tmp_path: Path) -> None:
    config = {"top_k": 7, "hidden_size": 64, "repetition_penalty": 1.0, "eos_token_id": 5}
    assert declared(folder(tmp_path, config)) == {"top_k": 7}
    assert end_tokens(tmp_path, SimpleNamespace(eos_token_id=3, chat_template=None)) == [3, 5]


@pytest.mark.parametrize(
    ("decoding", "model_defaults", "applied", "said"),
    [
        (
            GREEDY,
            False,
            {},
            "min_p 0.05, repetition_penalty 1.1, top_k 20: not applied (`generate.model_defaults` is off)",
        ),
        (GREEDY, True, {"repetition_penalty": 1.1}, "1.1: applied; min_p 0.05, top_k 20: no effect on greedy answers"),
        (
            SAMPLED,
            True,
            {"repetition_penalty": 1.1, "top_k": 20, "min_p": 0.05},
            "min_p 0.05, repetition_penalty 1.1, top_k 20: applied",
        ),
    ],
)
def test_what_is_applied_is_said(
    tmp_path: Path, decoding: Decoding, *, model_defaults: bool, applied: dict[str, float], said: str
) -> None:
    folder(tmp_path, **OWN)
    assert taken(tmp_path, decoding, model_defaults=model_defaults) == applied
    (note,) = notes(ModelRef(str(tmp_path)), decoding, model_defaults=model_defaults)
    assert said in note
    assert note.endswith("do_sample True, temperature 0.6: not applied (the recipe says how to sample)")


def test_what_only_one_generator_has_is_refused_when_asked_for(tmp_path: Path) -> None:
    folder(tmp_path, no_repeat_ngram_size=3, of_the_future=1)
    (note,) = notes(ModelRef(str(tmp_path)), GREEDY, model_defaults=False)
    assert "no_repeat_ngram_size 3, of_the_future 1: not applied" in note
    with pytest.raises(
        ValueError, match="sets no_repeat_ngram_size, of_the_future, which transformers and vLLM do not both"
    ):
        notes(ModelRef(str(tmp_path)), GREEDY, model_defaults=True)
    (tmp_path / "generation_config.json").write_text("[1")
    with pytest.raises(ValueError, match=r"generation_config\.json is not JSON"):
        notes(ModelRef(str(tmp_path)), GREEDY, model_defaults=False)


def test_it_is_said_that_a_model_thinks_and_that_its_template_prints_a_date(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ date_string }}{{ '<think>' }}")
    dated, thinks = notes(ModelRef(str(tmp_path)), GREEDY, model_defaults=False)
    assert "prints a date" in dated
    assert thinks.startswith("it may think before it answers (<think> … </think>)")
    assert notes(ModelRef(str(tmp_path)), GREEDY, model_defaults=False, marks=("none",)) == (dated,)
