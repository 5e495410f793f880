"""The spec that `dosimeter init NAME` writes."""

from __future__ import annotations

from importlib import resources

from pydantic import ValidationError

from engine.domain.errors import DosimeterError
from engine.domain.sweep import Header
from engine.spec.messages import findings
from engine.spec.yaml_nodes import core_value

_NAME_LINE = "sweep: my-sweep\n"


def starter(name: str) -> str:
    """Return the text of a commented spec that runs as it stands, with the stand-in model.

    Raises:
        DosimeterError: A sweep cannot have that name.
    """
    try:
        Header(sweep=name)
    except ValidationError as error:
        finding = next(findings(error, "", Header))
        raise DosimeterError(finding.what, where=name, todo=finding.hint) from error
    text = resources.files(__package__).joinpath("starter.yaml").read_text(encoding="utf-8")
    shown = name if core_value(name) == name else f'"{name}"'
    return text.replace(_NAME_LINE, f"sweep: {shown}\n")
