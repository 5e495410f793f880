"""Any YAML file that a person writes, but the spec itself: bytes and overrides to its model, or every problem with its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from pydantic import ValidationError

from engine.domain.written import Written
from engine.spec import yaml_nodes
from engine.spec.messages import findings, wrong_type
from engine.spec.overrides import put_all
from engine.spec.positions import SET, Mark, Positions, Problems, visible
from engine.spec.yaml_nodes import Map

Model = TypeVar("Model", bound=Written)


def read_written(
    model: type[Model],
    raw: bytes,
    name: str = SET,
    overrides: Sequence[str] = (),
    expected: str = "a mapping of fields",
) -> tuple[Model, Positions]:
    """Validate the bytes of a file.

    Args:
        model: What it must be.
        raw: UTF-8 YAML; empty for nothing but overrides.
        name: What to call the file in problems.
        overrides: `PATH=VALUE` texts, of which a later one wins.
        expected: What to call the file as a whole, where it is something else.

    Returns:
        The model, and where each part of it was written.

    Raises:
        SpecError: Something is wrong; every problem with its line.
    """
    problems = Problems()
    source, text = yaml_nodes.decoded(raw, visible(name), problems)
    found, start = yaml_nodes.compose(source, text, problems) or (None, Mark(source, 1, 1))
    problems.stop_if_any()
    root = found if isinstance(found, Map) else Map()
    put_all(root, overrides, problems)
    positions = yaml_nodes.positions(root, start)
    if found is not None and found is not root:
        problems.add(positions.place(wrong_type("", expected, found)))
    problems.stop_if_any()
    try:
        return model.model_validate(root), positions
    except ValidationError as error:
        problems.extend(map(positions.place, findings(error, "", model)))
        problems.stop_if_any()
        raise
