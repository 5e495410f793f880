"""What this machine takes: measured once in a process of its own, kept, and guessed with a word where it cannot be measured."""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from adapters.local import rates
from adapters.local.generate import TransformersGenerator
from adapters.local.settings import DecodeSettings, SftSettings
from adapters.local.tune import LocalFineTuner, padding
from adapters.standin.models import WEIGHTS
from engine.domain.stage import ModelRef
from engine.domain.sweep import Decoding, Length
from engine.ports import Machine, Workload

TUNE, ASK = SftSettings(lr=1e-3, batch_size=5), DecodeSettings()
LENGTHS = (10, 20, 30, 40, 100) * 4
WORK = Workload(
    parameters=400_000,
    tokens=sum(LENGTHS),
    items=len(LENGTHS),
    longest=max(LENGTHS),
    base=ModelRef(str(WEIGHTS)),
    lengths=LENGTHS,
    answer=20,
)
DECODING = Decoding(max_new_tokens=64, temperature=0)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Measure, and keep it in a new folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(rates.OFF, raising=False)
    return tmp_path / "dosimeter" / "rates"


def instead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, does: str) -> None:
    """Have a process that is to measure do something else; `order` is what it was told."""
    told = f"import json, sys, time; order = json.loads(sys.argv[-1]); {does}"
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec {sys.executable} -c "{told}" "$@"\n')
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))


def test_nothing_is_measured_of_training_where_only_answers_are_asked_for(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = tuple(field.name for field in fields(rates.AskRates))
    instead(
        monkeypatch,
        tmp_path,
        f"assert not order['wanted']['train']; print(json.dumps(dict(ask=dict.fromkeys({names}, 1))))",
    )
    found = rates.rates(replace(WORK, machine=Machine(threads=8)), None, ASK)
    assert found.measured, found.basis
    assert [path.name.partition("-")[0] for path in cache.iterdir()] == ["ask"]


@pytest.mark.parametrize(("second", "threads"), [("slow", 6), ("missing", 7)])  # each a question of its own
def test_children_that_are_ended_leave_nothing_behind(
    second: str, threads: int, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has written a model when it takes too long, or when another one cannot be started."""
    del cache
    begun: list[subprocess.Popen[bytes]] = []
    place = tmp_path / "temporary"
    place.mkdir()
    instead(monkeypatch, tmp_path, "open(order['place'] + '/model', 'w'); time.sleep(60)")
    start = subprocess.Popen

    def started(command: Any, **told: Any) -> Any:
        if second == "missing" and begun:
            raise OSError("out of processes")
        begun.append(start(command, **told))
        return begun[-1]

    monkeypatch.setattr(subprocess, "Popen", started)
    monkeypatch.setattr(rates, "TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    found = rates.rates(replace(WORK, machine=Machine(threads=threads, workers=2)), TUNE, ASK)
    assert not found.measured
    assert [one.poll() is not None for one in begun] == [True] * len(begun)
    assert list(place.iterdir()) == []


@pytest.mark.slow
def test_a_machine_is_measured_once_and_the_rate_is_kept(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "dosimeter"):
        found = rates.rates(WORK, TUNE, ASK)
        assert [record.name for record in caplog.records] == ["dosimeter"], "it is said once"
        assert found.measured, found.basis
        assert sorted(path.name.partition("-")[0] for path in cache.iterdir()) == ["ask", "train"]
        monkeypatch.setattr(sys, "executable", "/bin/false")  # nothing can be measured any more
        again = TUNE.model_copy(update={"lr": 1e-4, "batch_size": 2})
        assert rates.rates(replace(WORK, items=3), again, ASK) == found, "neither the rate nor the batch changes it"
        assert rates.rates(WORK, None, ASK).ask == found.ask
        assert len(caplog.records) == 1
        other = rates.rates(WORK, TUNE.model_copy(update={"backend": "trl"}), ASK)
        assert not other.measured
    assert 0.5 < found.ask.imports < found.ask.startup < 120
    assert 1e-6 < found.train.step + found.train.row + 16 * found.train.token < 1.0
    assert 1e-5 < found.ask.step + found.ask.row < 0.5


@pytest.mark.parametrize(
    ("work", "why"),
    [
        (replace(WORK, machine=Machine(threads=3)), "the process that was to measure it was killed"),
        (replace(WORK, base=ModelRef("/nowhere")), "No such file"),
        (replace(WORK, base=None), "where the model is, is unknown"),
        (replace(WORK, measure=False), "nothing is left to run"),
    ],
)
@pytest.mark.usefixtures("cache")
def test_what_cannot_be_measured_is_guessed_and_says_why(
    work: Workload, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    found = LocalFineTuner().forecast(TUNE, Length(2), work)
    assert found.basis.startswith("rate not measured: ")
    assert why in found.basis
    assert 0 < found.low.device_seconds < found.expected.device_seconds / 5
    assert found.high.device_seconds > 2 * found.expected.device_seconds


def test_a_forecast_counts_what_is_trained() -> None:
    tuner = LocalFineTuner()
    whole = tuner.forecast(TUNE, Length(3), WORK).expected
    assert (whole.optimizer_steps, whole.train_tokens) == (12, 3 * sum(LENGTHS))
    cut = tuner.forecast(TUNE.model_copy(update={"max_length": 40}), Length(3), WORK).expected
    assert cut.train_tokens == 3 * sum(min(one, 40) for one in LENGTHS)
    assert cut.device_seconds < whole.device_seconds
    assert padding(LENGTHS, 1) == 1
    assert padding(LENGTHS, len(LENGTHS)) == pytest.approx(100 / 40)
    assert 1 < padding(LENGTHS, 5) < 100 / 40


def test_answers_may_end_early_and_may_be_as_long_as_they_may_be() -> None:
    generator = TransformersGenerator()
    known = generator.forecast(ASK, DECODING, WORK)
    assert known.expected.prompt_tokens == sum(LENGTHS)
    assert known.low.generated_tokens < known.expected.generated_tokens == 20 * 14
    assert known.high.generated_tokens == 20 * 64
    unknown = generator.forecast(ASK, DECODING, replace(WORK, answer=None))
    assert unknown.expected.generated_tokens == unknown.high.generated_tokens == known.high.generated_tokens
    assert unknown.expected.device_seconds > 1.5 * known.expected.device_seconds


LARGE: dict[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "vocab_size": 128_256,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
}
MIDDLE = LARGE | {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3}


def test_a_large_model_is_measured_by_one_and_two_layers_and_a_part_of_its_head() -> None:
    from transformers import LlamaConfig

    from adapters.local.measure import HEAD_WEIGHTS, cuts

    one, two = cuts(LlamaConfig(**LARGE))
    assert (one.layers, two.layers, one.config.num_hidden_layers) == (1, 2, 32)
    assert one.vocabulary * 4096 <= HEAD_WEIGHTS
    less, more = cuts(LlamaConfig(**MIDDLE))
    assert less.layers == 1 < more.layers < 10


def test_the_whole_is_what_is_aside_and_its_layers_and_what_was_cut_off_the_head() -> None:
    from transformers import LlamaConfig

    from adapters.local.measure import Cut, laid, whole

    config = LlamaConfig(**LARGE)
    shapes = [Cut(config, 1, 100), Cut(config, 5, 100)]
    assert whole([[3.0, 1.0], [11.0, 0.5]], shapes, 4.0, [0.5, 1.0]) == pytest.approx([1 + 2 * (32 + 2), 1.0])
    assert whole([[2.0, 1.0]], shapes[:1], 4.0, [0.5, 0.0]) == pytest.approx([2 * 34, 32])
    assert laid([(1, 1), (1, 2), (1, 4)], [3.0, 5.0, 9.0]) == pytest.approx([1, 2])
    assert laid([(1, 1), (1, 2)], [1.0, 3.0])[0] == 0, "nothing takes less than no time"
