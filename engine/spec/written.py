"""Any YAML file that a person writes, but the spec itself: bytes and overrides to its model, or every problem with its place."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from typing import TypeVar

from pydantic import ValidationError

from engine.domain.written import Written
from engine.spec import yaml_nodes
from engine.spec.messages import Finding, findings, wrong_type
from engine.spec.overrides import put_all
from engine.spec.positions import SET, Mark, Positions, Problems, Source, visible
from engine.spec.yaml_nodes import Mapping

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
    source, text = _decoded(raw, visible(name), problems)
    start = Mark(source, 1, 1)
    found = yaml_nodes.compose(source, text, problems)
    problems.stop_if_any()
    root = put_all(found if isinstance(found, Mapping) else Mapping((), start), overrides, problems)
    places = list(yaml_nodes.walk(root))
    keys = {path: key for path, key, _ in places if key is not None}
    positions = Positions(start, {path: value for path, _, value in places}, keys)
    if found is not None and not isinstance(found, Mapping):
        _add([wrong_type("", expected, found.plain)], positions, problems)
    problems.stop_if_any()
    try:
        return model.model_validate(root.plain), positions
    except ValidationError as error:
        _add(findings(error, "", model), positions, problems)
        problems.stop_if_any()
        raise


def _decoded(raw: bytes, name: str, problems: Problems) -> tuple[Source, str]:
    """Return the text of a file.

    Raises:
        SpecError: It is not UTF-8.
    """
    try:
        text = raw.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        what = f"not UTF-8 text (byte 0x{raw[error.start]:02x})"
        problems.add(Mark(Source(name, ()), 1, 1).problem("", what, code="not_utf8", hint="save the file as UTF-8"))
        problems.stop_if_any()
        raise
    return Source.of(name, text), text


def _add(found: Iterable[Finding], positions: Positions, problems: Problems) -> None:
    for finding in found:
        mark = positions.mark(finding.path, key=finding.at_key)
        problems.add(mark.problem(finding.path, finding.what, code=finding.code, hint=finding.hint))
