"""The one entry-point lookup: kind and name → adapter. Built-in adapters are found exactly as third-party ones are."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, overload

from engine import ports
from engine.domain.errors import UnknownAdapterError
from engine.ports import provider as hosted


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
class Ref:
    """A reference to an adapter: `name`, `name:argument` or `name@account:argument`.

    Attributes:
        name: The adapter's name.
        account: The account at the provider that is meant; empty where none is named.
        argument: What the adapter is given, such as a path or a model's name; empty for nothing.
    """

    name: str
    account: str = ""
    argument: str = ""

    @classmethod
    def parse(cls, text: str) -> Ref:
        """Split a reference. Only what is before the first colon can name an account.

        >>> Ref.parse("file:data/a@b.jsonl"), Ref.parse("acme/hosted@lab:small-1")
        (Ref(name='file', account='', argument='data/a@b.jsonl'), Ref(name='acme/hosted', account='lab', argument='small-1'))
        """
        head, _, argument = text.partition(":")
        name, _, account = head.partition("@")
        return cls(name, account, argument)

    def __str__(self) -> str:
        account = f"@{self.account}" if self.account else ""
        return f"{self.name}{account}:{self.argument}" if self.argument else f"{self.name}{account}"


def split_ref(ref: str) -> tuple[str, str]:
    """Return the name and the argument of a reference.

    >>> split_ref("file:data/a.jsonl"), split_ref("acme/hosted@lab:small-1"), split_ref("acme/hosted")
    (('file', 'data/a.jsonl'), ('acme/hosted', 'small-1'), ('acme/hosted', ''))
    """
    found = Ref.parse(ref)
    return found.name, found.argument


@cache
def _installed(kind: Kind) -> dict[str, tuple[EntryPoint, ...]]:
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for point in entry_points(group=f"dosimeter.{kind.value}"):
        if point not in found.get(point.name, ()):
            found[point.name] = (*found.get(point.name, ()), point)
    return found


def names(kind: Kind) -> tuple[str, ...]:
    """Return the installed adapters' names, sorted."""
    return tuple(sorted(_installed(kind)))


@overload
def adapter(kind: Literal[Kind.MODEL], ref: str) -> ports.ModelSource: ...
@overload
def adapter(kind: Literal[Kind.DATA], ref: str) -> ports.DataSource: ...
@overload
def adapter(kind: Literal[Kind.BENCHMARK], ref: str) -> ports.Benchmark: ...
@overload
def adapter(kind: Literal[Kind.TUNER], ref: str) -> ports.FineTuner: ...
@overload
def adapter(kind: Literal[Kind.GENERATOR], ref: str) -> ports.Generator: ...
@overload
def adapter(kind: Literal[Kind.JUDGE], ref: str) -> ports.Judge: ...
@overload
def adapter(kind: Literal[Kind.MITIGATION], ref: str) -> ports.Mitigation: ...
@overload
def adapter(kind: Literal[Kind.PROVIDER], ref: str) -> hosted.Provider: ...
def adapter(kind: Kind, ref: str) -> Any:
    """Return the adapter that `ref` names.

    Args:
        kind: Which kind of adapter.
        ref: `name` or `name:argument`; the argument is ignored here.

    Raises:
        UnknownAdapterError: No such adapter, two packages claim the name, or it failed to import.
    """
    return _adapter(kind, split_ref(ref)[0])


def any_adapter(kind: Kind, name: str) -> Any:
    """Return the adapter of a kind that is only known when it runs.

    Raises:
        UnknownAdapterError: As for `adapter`.
    """
    return _adapter(kind, name)


def revision(kind: Kind, ref: str) -> int:
    """Return the revision of the adapter that `ref` names; it goes into every key that the adapter has a part in."""
    found: Any = _adapter(kind, split_ref(ref)[0])
    return int(found.revision)


@cache
def _adapter(kind: Kind, name: str) -> object:
    points = _installed(kind).get(name, ())
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
        return points[0].load()()
    except (ImportError, AttributeError) as error:  # AttributeError: the entry point names a class that is not there
        raise UnknownAdapterError(
            f"the {kind.noun} `{name}` ({points[0].value}) cannot be imported: {error}",
            where=name,
            todo="install what it needs, or repair that package",
        ) from error


def suggest(word: str, known: tuple[str, ...]) -> str:
    """Return `did you mean …?` for a close match, else the known words."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean `{close[0]}`?"
    return "known: " + ", ".join(f"`{name}`" for name in known) if known else "none is installed"
