"""The one entry-point lookup: kind and name → adapter, and what a spec says → `Use`.

Built-in adapters are found exactly as third-party ones are: by the entry-point group `dosimeter.<kind>`. The group
`dosimeter.defaults` names, by path of the recipe, the adapter that stands there when a spec says none.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from traceback import walk_tb
from typing import Any, Literal, get_origin, overload

from pydantic import ValidationError

from engine import ports
from engine.domain.adapters import (
    CONTEXT,
    Kind,
    NoSettings,
    Reference,
    Settings,
    SettingsError,
    Use,
    parts_of,
)
from engine.domain.errors import PlanError, UnknownAdapterError
from engine.ports import provider

PORTS: Mapping[Kind, type] = {
    Kind.MODEL: ports.ModelSource,
    Kind.DATA: ports.DataSource,
    Kind.BENCHMARK: ports.Benchmark,
    Kind.TUNER: ports.FineTuner,
    Kind.GENERATOR: ports.Generator,
    Kind.JUDGE: ports.Judge,
    Kind.MITIGATION: ports.Mitigation,
    Kind.PROVIDER: provider.Provider,
}
"""What an adapter of each kind promises."""

UNHASHABLE = frozenset({list, dict, set})


@cache
def _installed(group: str) -> dict[str, tuple[EntryPoint, ...]]:
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for point in entry_points(group=f"dosimeter.{group}"):
        if point not in found.get(point.name, ()):
            found[point.name] = (*found.get(point.name, ()), point)
    return found


def names(kind: Kind) -> tuple[str, ...]:
    """Return the installed adapters' names, sorted."""
    return tuple(sorted(_installed(kind.value)))


@overload
def adapter(kind: Literal[Kind.MODEL], name: str) -> ports.ModelSource: ...
@overload
def adapter(kind: Literal[Kind.DATA], name: str) -> ports.DataSource: ...
@overload
def adapter(kind: Literal[Kind.BENCHMARK], name: str) -> ports.Benchmark: ...
@overload
def adapter(kind: Literal[Kind.TUNER], name: str) -> ports.FineTuner: ...
@overload
def adapter(kind: Literal[Kind.GENERATOR], name: str) -> ports.Generator: ...
@overload
def adapter(kind: Literal[Kind.JUDGE], name: str) -> ports.Judge: ...
@overload
def adapter(kind: Literal[Kind.MITIGATION], name: str) -> ports.Mitigation: ...
@overload
def adapter(kind: Literal[Kind.PROVIDER], name: str) -> provider.Provider: ...
@overload
def adapter(kind: Kind, name: str) -> Any: ...
def adapter(kind: Kind, name: str) -> Any:
    """Return the adapter of that kind and name.

    Raises:
        UnknownAdapterError: No such adapter, two packages claim the name, or it failed to import.
    """
    return _adapter(kind, name)


def revision(kind: Kind, name: str) -> int:
    """Return an adapter's revision; it is part of every key in which the adapter has a part."""
    return int(_adapter(kind, name).revision)


def settings_of(kind: Kind, name: str) -> type[Settings]:
    """Return the model of an adapter's settings.

    Raises:
        UnknownAdapterError: There is no such adapter.
    """
    declared: type[Settings] = getattr(_adapter(kind, name), "Settings", NoSettings)
    return declared


@cache
def _adapter(kind: Kind, name: str) -> Any:
    points = _installed(kind.value).get(name, ())
    if not points:
        raise UnknownAdapterError(f"no {kind.noun} is called `{name}`", where=name, todo=suggest(name, names(kind)))
    if len(points) > 1:
        owners = ", ".join(sorted(point.value for point in points))
        raise UnknownAdapterError(
            f"several packages offer a {kind.noun} called `{name}`: {owners}",
            where=name,
            todo="uninstall all but one of them",
        )
    try:
        made = points[0].load()()
    except Exception as error:  # a package of somebody else's, in which anything may go wrong
        why = str(error) if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
        raise UnknownAdapterError(
            f"the {kind.noun} `{name}` ({points[0].value}) cannot be imported: {why}",
            where=name,
            todo="install what it needs, or repair that package",
        ) from error
    if faults := "; ".join(_faults(kind, made)):
        raise UnknownAdapterError(
            f"the {kind.noun} `{name}` ({points[0].value}) is not whole: {faults}",
            where=name,
            todo=f"repair that package: engine.ports.{PORTS[kind].__name__} says what a {kind.noun} needs",
        )
    return made


def _faults(kind: Kind, made: object) -> Iterator[str]:
    """Say what an adapter lacks of what its kind promises."""
    wanted = {name for name in (*vars(PORTS[kind]), *PORTS[kind].__annotations__) if not name.startswith("_")}
    if isinstance(made, ports.ApiJudge):
        wanted.discard("judge")  # the engine asks for it
    if missing := sorted(name for name in wanted if not hasattr(made, name)):
        yield f"it has no {', '.join(f'`{name}`' for name in missing)}"
    elif not isinstance(getattr(made, "revision", None), int):
        yield "its `revision` is no whole number"
    declared = getattr(made, "Settings", NoSettings)
    if not (isinstance(declared, type) and issubclass(declared, Settings)):
        yield "its `Settings` are not derived from engine.ports.Settings"
        return
    for name, field in declared.model_fields.items():
        if any(part in UNHASHABLE or get_origin(part) in UNHASHABLE for part in parts_of(field.annotation)):
            yield f"the setting `{name}` cannot be hashed: use a tuple"
    if declared.argument and declared.argument not in declared.model_fields:
        yield f"its `argument` names no setting: `{declared.argument}`"


def place(kind: Kind, name: str) -> str:
    """Return where an adapter's class is, such as `package.module:Class`; of several that claim the name, all."""
    return ", ".join(sorted(point.value for point in _installed(kind.value).get(name, ())))


def owner(error: BaseException) -> str:
    """Return the package of somebody else's adapters in whose code an error was raised, or through which it came; else ''."""
    points = (point for kind in Kind for found in _installed(kind.value).values() for point in found)
    packages = {point.value.partition(":")[0].partition(".")[0] for point in points} - {"adapters"}
    roots = [frame.f_globals.get("__name__", "").partition(".")[0] for frame, _ in walk_tb(error.__traceback__)]
    return next((root for root in reversed(roots) if root in packages), "")


def refresh() -> None:
    """Look for adapters anew when next asked: a package was installed, or removed, while this process runs."""
    _installed.cache_clear()
    _adapter.cache_clear()


def suggest(word: str, known: tuple[str, ...]) -> str:
    """Return `did you mean …?` for a close match, else the known words."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean `{close[0]}`?"
    return "known: " + ", ".join(f"`{name}`" for name in known) if known else "none is installed"


class Installed:
    """The installed adapters. Implements `engine.domain.adapters.Adapters`."""

    def use(self, kind: Kind, written: object) -> Use:
        """Return the adapter that is meant; see `Adapters.use`."""
        reference = Reference.read(written)
        name = reference.name
        model = settings_of(kind, name)
        if reference.account and kind is not Kind.MODEL:
            raise ValueError(f"only a model's reference names an account, and `{name}` is a {kind.noun}")
        try:
            given = reference.settings(model)
        except ValueError as error:
            raise ValueError(f"the {kind.noun} `{name}`: {error}") from error
        try:
            return Use(name, model.model_validate(given, context={CONTEXT: self}), reference.account)
        except ValidationError as error:
            raise SettingsError(name, model, error) from error

    def default(self, path: str) -> str | None:
        """Return the adapter that stands at a path of the recipe when the spec says none.

        Raises:
            PlanError: Several packages name one.
        """
        points = _installed("defaults").get(path, ())
        if len(points) > 1:
            what = f"several packages name a default for `{path}`: {', '.join(sorted(point.value for point in points))}"
            raise PlanError(what, where=path, todo="uninstall all but one of them")
        return str(points[0].load()) if points else None


INSTALLED = Installed()
CONTEXT_OF_INSTALLED: Mapping[str, Installed] = {CONTEXT: INSTALLED}
"""The validation context with which recipes and settings are read."""
