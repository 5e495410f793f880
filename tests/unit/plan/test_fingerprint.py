"""Keys are the same whatever the order, and refuse what has no stable bytes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.errors import UnstableValueError
from engine.domain.stage import StageKind
from engine.domain.sweep import Budget
from engine.plan.fingerprint import FORMAT, Difference, canonical, differences, payload

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
    st.dictionaries(
        st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.sampled_from(["tune-ab", "sample-cd"]), max_size=3
    ),
)
def test_the_quick_payload_equals_the_canonical_json_of_the_whole(
    kind: StageKind, adapter: str, revision: int, settings: dict[str, object], inputs: dict[str, str]
) -> None:
    whole = {
        "kind": kind.value,
        "adapter": adapter,
        "revision": revision,
        "settings": settings,
        "inputs": inputs,
        "format": FORMAT,
    }
    assert payload(kind, adapter, revision, canonical(settings), list(inputs.items())) == canonical(whole)


def test_a_written_default_and_an_omitted_one_are_the_same() -> None:
    assert canonical(Budget(tokens=None, device_hours=1)) == canonical(Budget(device_hours=1.0)) == '{"device_hours":1}'
    assert canonical(Budget()) == "{}"


def test_zero_and_its_float_are_the_same() -> None:
    assert canonical({"temperature": 0}) == canonical({"temperature": 0.0}) == '{"temperature":0}'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1: 2}, object(), b"bytes", {"a": {3}}, len])
def test_what_has_no_stable_bytes_is_refused_by_name(value: object) -> None:
    with pytest.raises(UnstableValueError) as caught:
        canonical({"outer": value})
    assert "settings.outer" in caught.value.where


def test_a_difference_is_told_field_by_field() -> None:
    inputs = [("rows", "sample-2"), ("model", "tune-1")]
    before = payload(StageKind.TUNE, "t", 1, '{"seed":0,"settings":{"lr":0.001,"rank":8}}', inputs[:1])
    after = payload(StageKind.TUNE, "t", 2, '{"length":{"epochs":3},"seed":0,"settings":{"lr":0.002}}', inputs)
    assert differences(before, after) == (
        Difference("revision", "1", "2"),
        Difference("settings.length.epochs", "(absent)", "3"),
        Difference("settings.lr", "0.001", "0.002"),
        Difference("settings.rank", "8", "(absent)"),
    )


def test_settings_that_are_all_defaults_are_no_difference_of_their_own() -> None:
    before, after = (payload(StageKind.WEIGHTS, "w", 1, f'{{"settings":{text}}}', []) for text in ("{}", '{"a":2}'))
    assert differences(before, after) == (Difference("settings.a", "(absent)", "2"),)
