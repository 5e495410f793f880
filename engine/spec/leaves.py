"""The dotted paths that an axis of a spec may sweep, and the validation of the values (*levels*) that it gives there.

A leaf is a field of the engine's own, or a setting of an adapter that the spec names. A *place* is a field that holds an adapter, or a
list of them (`model`, `judges`); a *use* is an adapter with its settings. A setting's path is its place and its own name: `tune.lr`,
`model.path`, `mitigations.scale.factor`. An adapter in a
list goes by its name, which may hold `/`, `.` and `-`: whole paths are looked up, and none is split at its dots.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any, cast, get_args, get_origin

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from engine import registry
from engine.domain import adapters
from engine.domain.adapters import (
    Kind,
    Reference,
    Settings,
    SettingsError,
    UnreadableUseError,
    Use,
    WithAdapter,
    gathered,
    kind_of,
    plain,
)
from engine.domain.errors import UnknownAdapterError
from engine.domain.sweep import Level, Recipe

OLD_NAMES: Mapping[str, str] = MappingProxyType({"tune.adapter": "tune.use", "generate.adapter": "generate.use"})
"""Paths of older specs, and what they are called now."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A field that an axis may sweep.

    Attributes:
        path: Dotted path, such as `data.mix.n` or `judges.my/judge.model`.
        declared: The models that declare it, and what it is called there; of a single place that several adapters may take,
            each adapter that has the setting declares it.
        adapters: The adapters whose setting it is; empty for a field of the engine's own.
    """

    path: str
    declared: tuple[tuple[type[BaseModel], str], ...]
    adapters: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its own name, the last part of the path."""
        return self.declared[0][1]

    @property
    def field(self) -> FieldInfo:
        """The first declaration's description and default."""
        model, name = self.declared[0]
        return model.model_fields[name]

    @property
    def kind(self) -> Kind | None:
        """The kind of adapter that a level is, or that its items are; None for another field."""
        return kind_of(self.field)

    @property
    def holds_list(self) -> bool:
        """Whether a level is a list, such as of `judges`."""
        return is_list(self.field)

    def are_levels(self, written: object) -> bool:
        """Tell several levels from one: a list, or a list of lists for a field that holds a list."""
        if not isinstance(written, list):
            return False
        return not self.holds_list or (bool(written) and all(isinstance(item, list) for item in written))

    def level(self, written: object, *, is_pattern: bool = False) -> Level:
        """Return a level as the recipe holds it.

        Of a setting, nothing (`null`) is always a level: it leaves the setting out. A level of `tune.use` or `generate.use`
        need not be whole, because the recipe and other axes give settings as well; nor need an adapter in a pattern.

        Raises:
            pydantic.ValidationError: The field does not take this value.
        """
        if written is None and self.adapters:
            return None
        may_lack = self.path in INLINE.values() or (is_pattern and self.kind is not None and not self.holds_list)
        context = CONTEXT_OF_UNFINISHED if may_lack else CONTEXT
        errors: list[ValidationError] = []
        for model, name in self.declared:
            try:
                return cast("Level", value_type(model, name).validate_python(written, context=context))
            except ValidationError as error:
                errors.append(error)
        raise errors[0]


class Unfinished(registry.Installed):
    """The installed adapters, where settings may be missing that axes give."""

    def use(self, kind: Kind, written: object) -> Use:
        """Return the adapter that is meant, with the settings that are written."""
        try:
            return super().use(kind, written)
        except SettingsError as fault:
            if any(detail["type"] != "missing" and detail["loc"] for detail in fault.error.errors(include_url=False)):
                raise
            reference = Reference.read(written)
            given = reference.settings(fault.model)
            values = {
                n: value_type(fault.model, n).validate_python(value, context=CONTEXT) for n, value in given.items()
            }
            return Use(fault.name, fault.model.model_construct(set(values), **values), reference.account)


CONTEXT = registry.CONTEXT_OF_INSTALLED
CONTEXT_OF_UNFINISHED: Mapping[str, Unfinished] = {adapters.CONTEXT: Unfinished()}


@cache
def value_type(model: type[BaseModel], name: str) -> TypeAdapter[Any]:
    """Return what validates a field's value alone."""
    declared = model.model_fields[name]
    # pydantic refuses a config for what is a dataclass, as an adapter's `Use` is.
    config = None if kind_of(declared) else ConfigDict(strict=model.model_config.get("strict", False))
    return TypeAdapter(declared.rebuild_annotation(), config=config)


@cache
def takes_nothing(model: type[BaseModel], name: str) -> bool:
    """Tell whether a field takes `null` as a value of its own."""
    try:
        value_type(model, name).validate_python(None, context=CONTEXT)
    except ValidationError:
        return False
    return True


def section_model(declared: FieldInfo) -> type[BaseModel] | None:
    """Return the model of a field that is a section (`TuneRecipe | None`), or None."""
    for kind in (declared.annotation, *get_args(declared.annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def is_list(declared: FieldInfo) -> bool:
    """Tell whether a field holds a list."""
    return any(get_origin(kind) is tuple for kind in (declared.annotation, *get_args(declared.annotation)))


INLINE: Mapping[str, str] = MappingProxyType(
    {
        name: f"{name}.use"
        for name, declared in Recipe.model_fields.items()
        if (model := section_model(declared)) is not None and issubclass(model, WithAdapter)
    }
)
"""Sections in which their adapter's settings stand beside fields of the engine's own, and the adapter's path."""


@cache
def own_fields(section: str) -> frozenset[str]:
    """Return the engine's own fields of a section that has its adapter's settings inline."""
    model = section_model(Recipe.model_fields[section])
    return frozenset(model.model_fields) if model is not None else frozenset()


@dataclass(frozen=True, slots=True)
class Place:
    """Where an adapter may stand."""

    path: str
    kind: Kind
    is_list: bool

    @property
    def is_inline(self) -> bool:
        """Whether its adapter's settings stand beside fields of the engine's own."""
        return self.path in INLINE.values()

    def prefix(self, adapter: str) -> str:
        """Return what the paths of an adapter's settings begin with."""
        if self.is_inline:
            return self.path.removesuffix("use")
        return f"{self.path}.{adapter}." if self.is_list else f"{self.path}."


@dataclass(slots=True)
class Leaves:
    """The leaves of one spec.

    Attributes:
        by_path: They, in the order of the recipe's fields, an adapter's settings after them.
        places: Where adapters may stand, by path; places in their settings after their own.
        named: The adapters that the spec names, by their place's path.
        doubled: Beginnings of paths that could mean either of two: the adapter stands twice in one list.
        unsure: Beginnings of paths of which nobody knows what follows: the adapter is not installed.
    """

    by_path: dict[str, Leaf] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    named: dict[str, dict[str, type[Settings]]] = field(default_factory=dict)
    doubled: set[str] = field(default_factory=set)
    unsure: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, spec: Mapping[str, Any], *others: Mapping[str, Any]) -> Leaves:
        """Return the leaves of a spec as YAML says it; it need not be right.

        Args:
            spec: The spec.
            others: Forms of it whose adapters count as named as well, such as it was before `--set`.
        """
        leaves = cls()
        for other in (*others, spec):  # what is doubled and unsure is so in the spec itself, which comes last
            leaves.doubled, leaves.unsure = set(), set()
            leaves._note_spec(other)
        leaves._add(Recipe, "", "")
        return leaves

    def _note_spec(self, spec: Mapping[str, Any]) -> None:
        recipe = spec.get("recipe")
        self._note_fields(Recipe, "", recipe if isinstance(recipe, Mapping) else {})
        known = 0
        while known < len(self.places):  # settings that are adapters themselves may show further places
            known = len(self.places)
            for path, value in (entry for group in groups(spec) for entry in group.items()):
                if path in self.places:
                    self._note(self.places[path], value)

    @classmethod
    def of_installed(cls) -> Leaves:
        """Return the leaves of every adapter that is installed; settings of adapters that are settings are not among them."""
        leaves = cls()
        for place in _own_places(Recipe, ""):
            leaves.places[place.path] = place
            leaves.named[place.path] = dict(installed(place.kind))
        leaves._add(Recipe, "", "")
        return leaves

    def inside(self, path: str) -> list[str]:
        """Return the paths of the leaves in a section, or of an adapter's settings."""
        return [known for known in self.by_path if known.startswith(f"{path}.")]

    def is_unsure(self, path: str) -> bool:
        """Tell whether a path may be a setting of an adapter that is not installed."""
        return path.startswith(tuple(self.unsure))

    def _note_fields(self, model: type[BaseModel], prefix: str, written: Mapping[str, Any]) -> None:
        """Note the adapters in a section, or in the settings of another adapter."""
        for name, declared in model.model_fields.items():
            path, kind, section = f"{prefix}{name}", kind_of(declared), section_model(declared)
            value = written.get(name)
            if kind is not None:
                place = self.places.setdefault(path, Place(path, kind, is_list(declared)))
                self._note(place, _or_default(value, path, declared))
            elif section is not None:
                inside = value if isinstance(value, Mapping) else {}
                if path in INLINE:
                    inside = gathered(inside, section.model_fields, registry.INSTALLED.default(INLINE[path]))
                self._note_fields(section, f"{path}.", inside)

    def _note(self, place: Place, written: object) -> None:
        """Note what is written at a place: an adapter, a list of them, or a list of levels."""
        if isinstance(written, list | tuple):
            names = [_name(item) for item in written]
            if place.is_list:
                self.doubled |= {place.prefix(name) for name in names if name and names.count(name) > 1}
            for item in written:
                self._note(place, item)
            return
        try:
            reference = Reference.read(plain(written) if isinstance(written, Use) else written)
            model = registry.settings_of(place.kind, reference.name)
        except UnknownAdapterError:
            self.unsure.add(place.prefix(_name(written)))
            return
        except ValueError:
            return
        self.named.setdefault(place.path, {})[reference.name] = model
        try:
            given = reference.settings(model)
        except ValueError:
            given = {}
        self._note_fields(model, place.prefix(reference.name), given)

    def _add(self, model: type[BaseModel], prefix: str, adapter: str) -> None:
        """Add the leaves of a section or of an adapter's settings, and then those of the adapters that stand in it."""
        for name, declared in model.model_fields.items():
            path, section = f"{prefix}{name}", section_model(declared)
            if section is not None:
                self._add(section, f"{path}.", adapter)
                continue
            known = self.by_path.get(path)
            if known is None:
                self.by_path[path] = Leaf(path, ((model, name),), (adapter,) if adapter else ())
            elif known.adapters and (model, name) not in known.declared:
                self.by_path[path] = Leaf(path, (*known.declared, (model, name)), (*known.adapters, adapter))
        for path in [f"{prefix}{name}" for name in model.model_fields if f"{prefix}{name}" in self.places]:
            for other, settings in self.named.get(path, {}).items():
                self._add(settings, self.places[path].prefix(other), other)


def _own_places(model: type[BaseModel], prefix: str) -> Iterator[Place]:
    """Yield the places that every recipe has."""
    for name, declared in model.model_fields.items():
        path, kind, section = f"{prefix}{name}", kind_of(declared), section_model(declared)
        if kind is not None:
            yield Place(path, kind, is_list(declared))
        elif section is not None:
            yield from _own_places(section, f"{path}.")


def installed(kind: Kind) -> Iterator[tuple[str, type[Settings]]]:
    """Yield the installed adapters of a kind that can be loaded, and their settings."""
    for name in registry.names(kind):
        try:
            yield name, registry.settings_of(kind, name)
        except UnknownAdapterError:
            continue


def _name(written: object) -> str:
    try:
        return Reference.read(plain(written) if isinstance(written, Use) else written).name
    except UnreadableUseError:
        return ""


def _or_default(value: object, path: str, declared: FieldInfo) -> object:
    """Return what stands in a field that holds adapters, also when nothing is written there."""
    if value is not None:
        return value
    default = registry.INSTALLED.default(path)
    return default if default or declared.is_required() else declared.get_default(call_default_factory=True)


def groups(spec: Mapping[str, Any], *, patterns: bool = False) -> Iterator[dict[str, Any]]:
    """Yield every mapping of paths in a grid that brings levels; with `patterns`, then those that are conditions."""
    whens = [item for item in _items(spec.get("when")) if isinstance(item, dict)]
    found = [spec.get("axes"), *_items(spec.get("zip")), *(when.get("axes") for when in whens)]
    found += _items(spec.get("include"))
    if patterns:
        found += [*(when.get("if") for when in whens), *_items(spec.get("exclude"))]
    yield from (group for group in found if isinstance(group, dict))


def _items(written: object) -> list[Any]:
    return written if isinstance(written, list) else []
