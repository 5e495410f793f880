"""Keys are the same whatever the order, the process or the hash seed, and refuse what has no stable bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.errors import UnstableValueError
from engine.domain.stage import StageKind
from engine.domain.sweep import GenerateRecipe, TuneRecipe
from engine.plan.fingerprint import Difference, canonical, differences, payload, stage_key

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)


def _reversed(value: object) -> object:
    """The same value with every mapping in the opposite order."""
    if isinstance(value, dict):
        return {key: _reversed(item) for key, item in reversed(value.items())}
    return [_reversed(item) for item in value] if isinstance(value, list) else value


@given(VALUES)
def test_canonical_json_forgets_the_order_of_fields_and_nothing_else(value: object) -> None:
    assert canonical(value) == canonical(_reversed(value))
    assert json.loads(canonical(value)) == value


@given(
    st.sampled_from(StageKind),
    st.text(min_size=1),
    st.integers(min_value=1),
    st.dictionaries(st.text(), VALUES),
    st.lists(st.from_regex(r"[a-z]+-[0-9a-f]{32}", fullmatch=True), max_size=3),
)
def test_the_quick_payload_equals_the_canonical_json_of_the_whole(
    kind: StageKind, adapter: str, revision: int, settings: dict[str, object], inputs: list[str]
) -> None:
    whole = {
        "kind": kind.value,
        "adapter": adapter,
        "revision": revision,
        "settings": settings,
        "inputs": inputs,
        "format": 1,
    }
    assert payload(kind, adapter, revision, canonical(settings), inputs) == canonical(whole)


def test_a_written_default_and_an_omitted_one_are_the_same() -> None:
    assert canonical(TuneRecipe(lr=1e-3, epochs=5, rank=8)) == canonical(TuneRecipe(lr=0.001))
    assert canonical(GenerateRecipe()) == "{}"


def test_zero_and_its_float_are_the_same() -> None:
    assert canonical({"temperature": 0}) == canonical({"temperature": 0.0}) == '{"temperature":0}'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1: 2}, object(), b"bytes", {"a": {3}}, len])
def test_what_has_no_stable_bytes_is_refused_by_name(value: object) -> None:
    with pytest.raises(UnstableValueError) as caught:
        canonical({"outer": value})
    assert "settings.outer" in caught.value.where


def test_a_difference_is_told_field_by_field() -> None:
    before = payload(StageKind.TUNE, "t", 1, '{"lr":0.001,"rank":8}', ["sample-1"])
    after = payload(StageKind.TUNE, "t", 2, '{"epochs":3,"lr":0.002}', ["sample-2"])
    assert differences(before, after) == (
        Difference("revision", "1", "2"),
        Difference("settings.epochs", "(absent)", "3"),
        Difference("settings.lr", "0.001", "0.002"),
        Difference("settings.rank", "8", "(absent)"),
    )


def test_keys_are_the_same_in_another_process_with_another_hash_seed() -> None:
    script = (
        "from engine.plan.fingerprint import *; from engine.domain.stage import StageKind\n"
        "print(stage_key(StageKind.TUNE, payload(StageKind.TUNE, 'a/b', 3, canonical({'z': 1, 'a': {'y': 'é'}}), ['k'])))"
    )
    text = payload(StageKind.TUNE, "a/b", 3, canonical({"a": {"y": "é"}, "z": 1}), ["k"])
    keys = {stage_key(StageKind.TUNE, text)}
    for seed in ("0", "1", "4711"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        found = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, cwd=Path.cwd()
        )
        keys.add(found.stdout.strip())
    assert len(keys) == 1
