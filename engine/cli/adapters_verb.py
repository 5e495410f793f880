"""`dosimeter adapters`."""

from __future__ import annotations

from collections.abc import Iterator
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import click
from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from engine import registry
from engine.cli.render import console, print_table, safe
from engine.domain.adapters import Kind, Settings, kind_of
from engine.domain.errors import UnknownAdapterError

BOUNDS = {Ge: ("ge", ">="), Gt: ("gt", ">"), Le: ("le", "<="), Lt: ("lt", "<")}
WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", NoneType: "null"}


@click.command("adapters")
@click.argument("name", required=False)
def command(name: str | None) -> None:
    """List the installed adapters, or show what the one called NAME can be told.

    \b
    Examples:
      dosimeter adapters
      dosimeter adapters mix
    """
    found = [(kind, own) for kind in Kind for own in registry.names(kind)]
    if name is None:
        print_table(("kind", "name", "class", "settings"), [_row(kind, own) for kind, own in found])
        return
    named = [(kind, own) for kind, own in found if own == name]
    if not named:
        every = tuple(sorted({own for _, own in found}))
        raise UnknownAdapterError(f"no adapter is called `{name}`", where=name, todo=registry.suggest(name, every))
    for kind, own in named:
        _show(kind, own)


def _row(kind: Kind, name: str) -> tuple[str, ...]:
    try:
        fields = registry.settings_of(kind, name).model_fields
    except UnknownAdapterError as error:
        return kind.noun, name, registry.place(kind, name), f"cannot be used: {error.what}"
    return kind.noun, name, registry.place(kind, name), ", ".join(fields)


def _show(kind: Kind, name: str) -> None:
    made: Any = registry.adapter(kind, name)
    settings: type[Settings] = registry.settings_of(kind, name)
    out = console()
    out.print(f"{name}  {kind.noun}, revision {made.revision}, {registry.place(kind, name)}", style="bold")
    out.print(safe((made.__doc__ or "").partition("\n\n")[0]))
    if settings.argument and "of_argument" not in vars(settings):  # else its docstring says what stands after the colon
        out.print(f"`{name}:X` is short for `{{use: {name}, {settings.argument}: X}}`.")
    rows = [(own, takes(field), default(field), field.description) for own, field in settings.model_fields.items()]
    if rows:
        print_table(("setting", "takes", "default", "says"), rows)


def takes(field: FieldInfo) -> str:
    """Say what a setting takes, in words."""
    bounds = [
        f"{BOUNDS[type(mark)][1]} {getattr(mark, BOUNDS[type(mark)][0])}"
        for mark in field.metadata
        if type(mark) in BOUNDS
    ]
    return ", ".join([" or ".join(_words(field.annotation, kind_of(field))), *bounds])


def default(field: FieldInfo) -> str:
    """Say what a setting is when the spec is silent."""
    if field.is_required():
        return "required"
    if isinstance(field.default, tuple):
        return f"[{', '.join(map(str, field.default))}]"
    return "none" if field.default is None else str(field.default)


def _words(annotation: Any, kind: Kind | None) -> Iterator[str]:
    arguments = get_args(annotation)
    if get_origin(annotation) is Literal:
        yield " or ".join(f"`{value}`" for value in arguments)
    elif get_origin(annotation) is tuple:
        yield f"list of {next(_words(arguments[0], kind))}s"
    elif annotation in WORDS:
        yield WORDS[annotation]
    elif isinstance(annotation, type) or not arguments or hasattr(annotation, "__metadata__"):
        yield f"a {kind.noun}" if kind else next(_words(arguments[0], kind))
    else:
        for argument in arguments:
            yield from _words(argument, kind)
