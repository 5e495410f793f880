"""What a sweep needs before it may use a provider: an account, permission to upload, and rows that will be taken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from engine import registry
from engine.domain.errors import UnknownAdapterError
from engine.domain.results import ChatRow
from engine.domain.stage import StageKind
from engine.domain.sweep import DataRecipe, Level, Recipe, RunSettings
from engine.plan.accounts import provider_of
from engine.registry import Kind, split_ref

Origin = Callable[[str, Level], str]
Found = Iterator[tuple[str, str, str, str]]
"""Problems: where, what, code, hint."""

ALL_ROWS = "all rows"
"""What a provider says of a sample as a whole begins so: of a source that is larger than the sample, it means nothing."""

SHOWN = 5
"""Most rows of one source that are shown; the rest are counted."""


def problems(recipes: Iterable[Recipe], run: RunSettings, origin: Origin) -> Found:
    """Yield what stands in the way of the cells that use providers.

    Args:
        recipes: The cells' recipes; every adapter that they name is known.
        run: The run settings.
        origin: Says where the spec has a level.
    """
    distinct = list(dict.fromkeys(recipes))
    yield from _accounts(distinct, run, origin)
    yield from _pairs(distinct, origin)
    yield from _uploads(distinct, origin)


def _users(recipe: Recipe) -> Iterator[tuple[str, Level, str]]:
    """Yield the provider behind each reference of a recipe, with the path and the level that name it."""
    named: list[tuple[StageKind, str, Level, str]] = [
        (StageKind.GENERATE, "generate.adapter", recipe.generate.adapter, recipe.generate.adapter),
        (StageKind.JUDGE, "utility_judge", recipe.utility_judge, recipe.utility_judge),
        (StageKind.JUDGE, "over_refusal_judge", recipe.over_refusal_judge, recipe.over_refusal_judge),
        *((StageKind.JUDGE, "judges", recipe.judges, judge) for judge in recipe.judges),
    ]
    if recipe.tune is not None:
        named.append((StageKind.TUNE, "tune.adapter", recipe.tune.adapter, recipe.tune.adapter))
    for kind, path, level, ref in named:
        if (provider := provider_of(kind, ref)) is not None:
            yield path, level, provider


def _accounts(recipes: Sequence[Recipe], run: RunSettings, origin: Origin) -> Found:
    """Require one account for each provider that is used, and a provider for each account."""
    owners: dict[str, list[str]] = {}
    for name, account in run.accounts.items():
        try:
            registry.adapter(Kind.PROVIDER, account.provider)
        except UnknownAdapterError as error:
            yield f"run.accounts.{name}.provider", error.what, "unknown_adapter", error.todo
        owners.setdefault(account.provider, []).append(name)
    used = dict.fromkeys(use for recipe in recipes for use in _users(recipe))
    first = {provider: (path, level) for path, level, provider in reversed(used)}
    for provider, (path, level) in first.items():
        names = owners.get(provider, [])
        if not names:
            hint = f"add `run.accounts`, such as `accounts: {{mine: {{provider: {provider}}}}}`"
            yield origin(path, level), f"no account speaks `{provider}`", "no_account", hint
        elif len(names) > 1:
            what = f"`{provider}` has {len(names)} accounts, {' and '.join(names)}"
            yield f"run.accounts.{names[1]}", what, "two_accounts", "name one, so that it is known who pays"


def _pairs(recipes: Sequence[Recipe], origin: Origin) -> Found:
    """Require that a hosted model is tuned and asked where it is, and nothing else is."""
    seen = set()
    for recipe in recipes:
        home = split_ref(recipe.model)[0]
        home = home if home in registry.names(Kind.PROVIDER) else ""
        asked = [("generate.adapter", recipe.generate.adapter, StageKind.GENERATE)]
        if recipe.tune is not None:
            asked.append(("tune.adapter", recipe.tune.adapter, StageKind.TUNE))
        for path, adapter, kind in asked:
            if (provider_of(kind, adapter) or "") != home and (recipe.model, adapter) not in seen:
                seen.add((recipe.model, adapter))
                hint = f"`{path}: {home}`" if home else "`zip` the model with the adapters that work on it"
                what = f"`{adapter}` cannot work on the model `{recipe.model}`"
                yield origin(path, adapter), what, "wrong_place", hint


def _uploads(recipes: Sequence[Recipe], origin: Origin) -> Found:
    """Ask whether rows may leave this machine, and whether the provider will take them."""
    refused: dict[tuple[str, str], list[str]] = {}
    for provider, data in _uploaded(recipes):
        where = origin("data.source", data.source)
        if not data.allow_upload:
            what = f"the rows of `{data.source}` would be uploaded to `{provider}`"
            yield where, what, "no_upload", "allow it with `data.allow_upload: true`"
            continue
        to_rows, to_number = _objections(provider, data)
        for place, texts in ((where, to_rows), (origin("data.n", data.n), to_number)):
            told = refused.setdefault((provider, place), [])
            told += [text for text in texts if text not in told]
    for (provider, where), told in refused.items():
        if told:  # of several problems at one place, only the first is shown
            rest = [f"and {len(told) - SHOWN:,} more"] if len(told) > SHOWN else []
            what = "; ".join([*told[:SHOWN], *rest])
            yield where, f"`{provider}` will refuse it: {what}", "refused_rows", ""


def _uploaded(recipes: Sequence[Recipe]) -> Iterator[tuple[str, DataRecipe]]:
    """Yield each sample that goes to a provider; of those that may not, one a source."""
    seen = set()
    for recipe in recipes:
        if recipe.tune is None or recipe.data is None:
            continue
        provider, data = provider_of(StageKind.TUNE, recipe.tune.adapter), recipe.data
        what = (provider, data if data.allow_upload else data.source)
        if provider is not None and what not in seen:
            seen.add(what)
            yield provider, data


def _objections(provider: str, data: DataRecipe) -> tuple[list[str], list[str]]:
    """What a provider says of the rows that may be drawn, and what besides of so many of them."""
    adapter = registry.adapter(Kind.PROVIDER, provider)
    rows = _rows(data.source)
    most = data.n + (0 if data.mix is None else data.mix.n)
    whole = [] if data.mix is None else _rows(data.mix.source)
    to_rows = [text for text in adapter.objections([*rows, *whole]) if not text.startswith(ALL_ROWS)]
    to_number = dict.fromkeys(adapter.objections([*rows, *whole][:most]))
    return list(dict.fromkeys(to_rows)), [text for text in to_number if text not in to_rows]


def _rows(source: str) -> list[ChatRow]:
    return list(registry.adapter(Kind.DATA, source).rows(split_ref(source)[1]))
