"""How a first sweep begins here, by the size of the model and the length of its rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.local import starting
from adapters.standin.models import WEIGHTS
from engine.domain.stage import ModelRef
from engine.ports import FirstJob, ModelCard

LARGE, SMALL = ModelCard("sha256:1", 8_000_000_000, "large"), ModelCard("sha256:1", 135_000_000, "small")


@pytest.mark.parametrize(("longest", "length"), [(0, None), (200, None), (256, None), (257, 256), (5000, 256)])
def test_rows_are_whole_as_far_as_the_model_has_positions(longest: int, length: int | None) -> None:
    start = starting.tuning(FirstJob(ModelRef(str(WEIGHTS)), SMALL, longest))
    assert start.settings.get("max_length") == length
    assert any("it is cut" in note for note in start.notes) is (length is not None)


@pytest.mark.parametrize(("longest", "length"), [(512, None), (513, 1024), (2000, 2048), (9000, 4096)])
def test_longer_rows_are_whole_up_to_a_length(
    longest: int, length: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "positions", lambda _: 8192)
    assert starting.tuning(FirstJob(ModelRef("large"), LARGE, longest)).settings.get("max_length") == length


def test_a_model_that_thinks_gets_room_for_thoughts_as_far_as_it_has_positions(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("{{ '<think>' }}")
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 8192}')
    start = starting.asking(FirstJob(ModelRef(str(tmp_path)), LARGE))
    assert start.settings == {"max_new_tokens": 2048, "dtype": "bfloat16"}
    assert "an answer that is cut off in its thoughts is empty" in start.notes[0]
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 1024}')
    assert starting.asking(FirstJob(ModelRef(str(tmp_path)), SMALL)).settings == {"max_new_tokens": 1024}
    (tmp_path / "chat_template.jinja").write_text("{{ 'plain' }}")
    assert starting.asking(FirstJob(ModelRef(str(tmp_path)), SMALL)).settings == {}


def test_large_models_are_computed_with_in_bfloat16() -> None:
    small, large = (FirstJob(ModelRef(str(WEIGHTS)), card) for card in (SMALL, LARGE))
    assert starting.asking(small).settings == {}
    assert starting.asking(large).settings == {"dtype": "bfloat16"}
    assert "precision" not in starting.tuning(small).settings
    assert starting.tuning(large).settings["precision"] == "mixed"
