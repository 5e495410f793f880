"""An adapter in a spec: its name, and its settings, which the adapter itself declares.

`Use` is what a spec's `name`, `name:argument` or `{use: name, ...}` becomes. Which settings an adapter has is known to the
registry alone, so validation asks an `Adapters` that stands in pydantic's validation context.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Protocol, Self

from pydantic import GetCoreSchemaHandler, StringConstraints, ValidationError, ValidationInfo, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from engine.domain.written import Written

NAME_PATTERN = r"[a-z][a-z0-9]*(?:[/_.-][a-z0-9]+)*"
ADAPTER_PATTERN = rf"^{NAME_PATTERN}(@[a-z][a-z0-9_-]{{0,31}})?(:.+)?$"

CONTEXT = "adapters"
"""Under this name an `Adapters` stands in the validation context."""

AdapterRef = Annotated[str, StringConstraints(pattern=ADAPTER_PATTERN)]
"""An adapter's name, where it is only a name."""

ADAPTER_KEYWORD = "x-adapter"
"""In a JSON schema of pydantic's, the kind of adapter that a value is."""


class Kind(StrEnum):
    """The kinds of adapter; each is the entry-point group `dosimeter.<kind>`."""

    MODEL = "models"
    DATA = "data"
    BENCHMARK = "benchmarks"
    TUNER = "tuners"
    GENERATOR = "generators"
    JUDGE = "judges"
    MITIGATION = "mitigations"
    PROVIDER = "providers"

    @property
    def noun(self) -> str:
        """The kind in the singular, for messages."""
        return _NOUNS[self]


_NOUNS = {
    Kind.MODEL: "model",
    Kind.DATA: "data source",
    Kind.BENCHMARK: "benchmark",
    Kind.TUNER: "fine-tuner",
    Kind.GENERATOR: "generator",
    Kind.JUDGE: "judge",
    Kind.MITIGATION: "mitigation",
    Kind.PROVIDER: "provider",
}


@dataclass(frozen=True, slots=True)
class Outside:
    """Marks a setting that is no part of a key: a path, say, whose content the adapter's `pin` or card says instead."""


OUTSIDE = Outside()


class Settings(Written):
    """What an adapter can be told, field by field; adapters derive their own from it.

    A field's type, range, default and description are all that anybody needs: the spec's errors, axes, `--set`, the JSON
    schema, `plan`'s table, the docs and the store are made from them. Fields hold what is hashable. A field that is another
    adapter has a type such as `DataUse`; one that is only a place has `Annotated[str, OUTSIDE]`.

    Attributes:
        argument: The field that the short form `name:ARGUMENT` fills; empty when the adapter takes no argument. Give a field
            that is no text `Field(strict=False)`, so that it can be read from text.
    """

    argument: ClassVar[str] = ""

    @classmethod
    def of_argument(cls, argument: str) -> dict[str, object]:
        """Return the settings that `name:ARGUMENT` stands for.

        Raises:
            ValueError: The adapter takes no argument, or not this one.
        """
        if not cls.argument:
            raise ValueError(f"it takes no argument, got `{argument}`")
        return {cls.argument: argument}

    def as_argument(self) -> str:
        """Return the argument that stands for some of these settings, or nothing: the inverse of `of_argument`."""
        value = self.written().get(self.argument) if self.argument else None
        return "" if value is None else str(value)

    def effective(self) -> Self:
        """Return the settings without what has no effect beside the others, so that equal work has one key."""
        return self

    def counted(self, rows: Callable[[Use], int]) -> Self:
        """Return the settings with numbers where they ask for all rows of a data source; `rows` tells how many one has."""
        del rows
        return self

    def written(self) -> dict[str, object]:
        """Return the fields that differ from their defaults, by name."""
        fields = type(self).model_fields
        return {name: value for name, value in self if fields[name].is_required() or value != fields[name].default}


class NoSettings(Settings):
    """The settings of an adapter that has none."""


NO_SETTINGS = NoSettings()


@dataclass(frozen=True, slots=True)
class Use:
    """An adapter and how it is set.

    Attributes:
        name: Its name, such as `file`.
        settings: Its settings, an instance of the model that the adapter declares.
        account: Of a hosted model, the account's name in the spec; empty for the provider's only one.
    """

    name: str
    settings: Settings = NO_SETTINGS
    account: str = ""
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Work out the hash once: planning asks for it hundreds of thousands of times."""
        object.__setattr__(self, "_hash", hash((self.name, self.settings, self.account)))

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[type[Use], tuple[str, Settings, str]]:
        return Use, (self.name, self.settings, self.account)  # a hash is of one process

    def __str__(self) -> str:
        """Return it as people write it: `name:argument`, and in brackets what else is set."""
        argument = self.settings.as_argument()
        covered = self.settings.of_argument(argument) if argument else {}
        rest = [f"{name}={level_text(value)}" for name, value in self.settings.written().items() if name not in covered]
        return self.reference + (f":{argument}" if argument else "") + (f"({', '.join(rest)})" if rest else "")

    @property
    def reference(self) -> str:
        """Its name, with the account where it names one: `name@account`."""
        return f"{self.name}@{self.account}" if self.account else self.name

    @property
    def argument(self) -> str:
        """What stands after the colon in the short form; empty for nothing."""
        return self.settings.as_argument()


def level_text(level: object) -> str:
    """Return a level as people read it: `1e-3` as `0.001`, a list as `a+b`, nothing as `none`.

    >>> level_text(0.001), level_text(("a", "b")), level_text(None), level_text(())
    ('0.001', 'a+b', 'none', 'none')
    """
    if level is None or level == ():
        return "none"
    if isinstance(level, tuple):
        return "+".join(map(level_text, level))
    if isinstance(level, float):
        return f"{level:g}"
    return str(level).lower() if isinstance(level, bool) else str(level)


class SettingsError(ValueError):
    """An adapter's settings are wrong."""

    def __init__(self, name: str, model: type[Settings], error: ValidationError) -> None:
        """Keep what is needed to place each fault."""
        super().__init__(f"wrong settings of `{name}`: {error}")
        self.name, self.model, self.error = name, model, error


class UnreadableUseError(ValueError):
    """It is not written as an adapter is."""


@dataclass(frozen=True, slots=True)
class Reference:
    """An adapter as a spec has it, before its settings are looked at.

    Attributes:
        name: Its name.
        account: What stands after `@`; empty for nothing.
        argument: What stands after the colon; None without a colon.
        rest: The settings that stand beside `use`.
    """

    name: str
    account: str = ""
    argument: str | None = None
    rest: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def read(cls, written: object) -> Reference:
        """Return what is meant by `name`, `name:argument`, or a mapping of `use` and settings.

        Raises:
            UnreadableUseError: It is written in no such way.
        """
        named = written.get("use") if isinstance(written, Mapping) else written
        if not isinstance(named, str):
            raise UnreadableUseError(
                "expected an adapter: `name`, `name:argument`, or a mapping with `use: name` and its settings"
            )
        reference, colon, argument = named.partition(":")
        name, _, account = reference.partition("@")
        rest = (
            {str(key): value for key, value in written.items() if key != "use"} if isinstance(written, Mapping) else {}
        )
        return cls(name, account, argument if colon else None, rest)

    def settings(self, model: type[Settings]) -> dict[str, object]:
        """Return the settings that are written, those of the argument among them; they are not validated.

        Args:
            model: The model that the adapter declares.

        Raises:
            ValueError: The adapter does not take the argument, or a setting is given twice.
        """
        given = {} if self.argument is None else model.of_argument(self.argument)
        if twice := sorted(given.keys() & self.rest.keys()):
            raise ValueError(f"`{self.name}:{self.argument}` gives `{twice[0]}` already: write it once")
        return {**given, **self.rest}


class Adapters(Protocol):
    """Makes a `Use` of what a spec says. `engine.registry` has the one for what is installed."""

    def use(self, kind: Kind, written: object) -> Use:
        """Return the adapter that is meant.

        Args:
            kind: Its kind.
            written: `name`, `name:argument`, or a mapping of `use` and settings.

        Raises:
            UnknownAdapterError: No such adapter is installed, or it cannot be loaded.
            SettingsError: Its settings are wrong.
            UnreadableUseError: It is not written as an adapter is.
            ValueError: It does not take the argument or the account.
        """

    def default(self, path: str) -> str | None:
        """Return the name of the adapter that stands at a path of the recipe when the spec says none; None for no such."""


def adapters_of(info: ValidationInfo) -> Adapters:
    """Return the `Adapters` of a validation.

    Raises:
        LookupError: There is none: whoever validates forgot the context.
    """
    found: Adapters | None = (info.context or {}).get(CONTEXT)
    if found is None:
        raise LookupError(
            f"validate with context={{{CONTEXT!r}: ...}}: an adapter's settings are known to the registry alone"
        )
    return found


@dataclass(frozen=True, slots=True)
class AdapterOf:
    """Annotation of a field that is an adapter of some kind."""

    kind: Kind

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate what is written by asking the context; a `Use` passes as it is."""
        del source, handler

        def read(value: object, info: core_schema.ValidationInfo) -> Use:
            return value if isinstance(value, Use) else adapters_of(info).use(self.kind, value)

        return core_schema.with_info_plain_validator_function(
            read, serialization=core_schema.plain_serializer_function_ser_schema(plain, when_used="always")
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        """Name the kind; `engine.spec.schema` puts a reference to what is installed in its place."""
        del schema, handler
        return {ADAPTER_KEYWORD: self.kind.value}


def plain(use: Use) -> dict[str, object]:
    """Return a use as a spec could have it: a mapping of `use` and the settings that are not defaults."""
    return {"use": use.reference} | {name: plain_level(value) for name, value in use.settings.written().items()}


def plain_level(value: object) -> object:
    """Return a setting's value, or an axis' level, as a spec could have it."""
    if isinstance(value, Use):
        return plain(value)
    return [plain_level(item) for item in value] if isinstance(value, tuple) else value


ModelUse = Annotated[Use, AdapterOf(Kind.MODEL)]
DataUse = Annotated[Use, AdapterOf(Kind.DATA)]
BenchmarkUse = Annotated[Use, AdapterOf(Kind.BENCHMARK)]
TunerUse = Annotated[Use, AdapterOf(Kind.TUNER)]
GeneratorUse = Annotated[Use, AdapterOf(Kind.GENERATOR)]
JudgeUse = Annotated[Use, AdapterOf(Kind.JUDGE)]
MitigationUse = Annotated[Use, AdapterOf(Kind.MITIGATION)]


def kind_of(field: FieldInfo) -> Kind | None:
    """Return the kind of adapter that a field holds (one, or a tuple of them), or None when it holds none."""
    found = [mark for mark in field.metadata if isinstance(mark, AdapterOf)]
    inner = [mark for part in parts_of(field.annotation) for mark in getattr(part, "__metadata__", ())]
    marks = [mark for mark in (*found, *inner) if isinstance(mark, AdapterOf)]
    return marks[0].kind if marks else None


def parts_of(annotation: object) -> list[object]:
    """Return a type and the types that it is made of, such as those of a union; not those within `Annotated`."""
    parts = [annotation]
    for part in parts:
        parts += getattr(part, "__args__", ()) if not hasattr(part, "__metadata__") else ()
    return parts


class WithAdapter(Written):
    """A section of the recipe that has the settings of its adapter beside fields of its own.

    `{use: NAME, own: 1, setting: 2}` is read as `{own: 1, use: {use: NAME, setting: 2}}`.

    Attributes:
        section: Where the section stands in the recipe.
    """

    section: ClassVar[str]

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, values: Any, info: ValidationInfo) -> Any:
        if not isinstance(values, Mapping) or isinstance(values.get("use"), Use):
            return values
        return gathered(values, cls.model_fields, adapters_of(info).default(f"{cls.section}.use"))


def gathered(section: Mapping[str, Any], own: Collection[str], default: str | None) -> dict[str, Any]:
    """Return a section as written, with the settings of its adapter inside `use`.

    Args:
        section: What is written.
        own: The section's own fields.
        default: The adapter when none is written; None for no such.
    """
    kept = {name: value for name, value in section.items() if name in own and name != "use"}
    settings = {name: value for name, value in section.items() if name not in own}
    named = section.get("use", default)
    if settings and isinstance(named, str | Mapping):
        named = {**({"use": named} if isinstance(named, str) else named), **settings}
    return kept if named is None else kept | {"use": named}
