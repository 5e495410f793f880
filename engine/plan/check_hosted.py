"""What a sweep needs before it may use a provider: an account, permission to upload, and rows that will be taken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from engine import registry
from engine.domain.errors import UnknownAdapterError
from engine.domain.results import ChatRow
from engine.domain.stage import StageKind
from engine.domain.sweep import Account, DataRecipe, Level, Recipe, RunSettings
from engine.plan.accounts import asked_of, at_provider, provider_of
from engine.registry import Kind, Ref, split_ref

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
    yield from _same_names(distinct, origin)
    yield from _pairs(distinct, origin)
    yield from _uploads(distinct, origin)


@dataclass(frozen=True, slots=True)
class _Use:
    """A reference that names a model at a provider.

    Attributes:
        path: Path in the recipe.
        level: The level there.
        index: Its place in a list, such as `[1]`; empty where there is none.
        ref: The model's reference; its adapter is the provider.
    """

    path: str
    level: Level
    index: str
    ref: Ref


def _uses(recipe: Recipe) -> Iterator[_Use]:
    """Yield what a recipe uses of providers: its model, and its judges' models."""
    model = Ref.parse(recipe.model)
    if model.name in registry.names(Kind.PROVIDER):
        yield _Use("model", recipe.model, "", model)
    judges: list[tuple[str, Level, str, str]] = [
        *(("judges", recipe.judges, f"[{index}]", judge) for index, judge in enumerate(recipe.judges)),
        ("utility_judge", recipe.utility_judge, "", recipe.utility_judge),
        ("over_refusal_judge", recipe.over_refusal_judge, "", recipe.over_refusal_judge),
    ]
    for path, level, index, judge in judges:
        if provider_of(StageKind.JUDGE, judge) is not None:
            yield _Use(path, level, index, asked_of(judge).ref)


def _accounts(recipes: Sequence[Recipe], run: RunSettings, origin: Origin) -> Found:
    """Require that each account has a provider, and that it is clear which account each reference means."""
    for name, account in run.accounts.items():
        try:
            registry.adapter(Kind.PROVIDER, account.provider)
        except UnknownAdapterError as error:
            yield f"run.accounts.{name}.provider", error.what, "unknown_adapter", error.todo
    said = set()
    for use in dict.fromkeys(use for recipe in recipes for use in _uses(recipe)):
        problem = _named(use, run.accounts) if use.ref.account else _unnamed(use, run.accounts)
        if problem is not None and problem not in said:
            said.add(problem)
            yield origin(use.path, use.level) + use.index, *problem


def _named(use: _Use, accounts: Mapping[str, Account]) -> tuple[str, str, str] | None:
    """Say what is wrong with the account that a reference names."""
    name, there = use.ref.account, tuple(at_provider(accounts, use.ref.name))
    if name not in accounts:
        return f"no account is called `{name}`", "unknown_account", registry.suggest(name, there or tuple(accounts))
    if name not in there:
        what = f"the account `{name}` is at `{accounts[name].provider}`, and the model at `{use.ref.name}`"
        return what, "wrong_account", registry.suggest(name, there)
    return None


def _unnamed(use: _Use, accounts: Mapping[str, Account]) -> tuple[str, str, str] | None:
    """Say why a reference has to name its account."""
    there = at_provider(accounts, use.ref.name)
    if not there:
        hint = f"add `run.accounts`, such as `accounts: {{mine: {{provider: {use.ref.name}}}}}`"
        return f"there is no account at `{use.ref.name}`", "no_account", hint
    if len(there) > 1:
        what = f"`{use.ref.name}` has {len(there)} accounts, {' and '.join(there)}: name one"
        hint = f"such as `{replace(use.ref, account=there[0])}`"
        return what, "two_accounts", hint
    return None


def _same_names(recipes: Sequence[Recipe], origin: Origin) -> Found:
    """Refuse one model at two accounts: keys know a model by its name, so that answers of one would pass for the other's."""
    first: dict[tuple[str, bool, str], _Use] = {}
    for use in dict.fromkeys(use for recipe in recipes for use in _uses(recipe)):
        place = use.ref.name, use.path == "model", use.ref.argument
        before = first.setdefault(place, use)
        if before.ref.account != use.ref.account:
            what = f"`{before.ref}` and `{use.ref}` have one name, and would be taken for one model"
            hint = "use one account for it, or have it served under another name"
            yield origin(use.path, use.level) + use.index, what, "same_model", hint


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
            said = refused.setdefault((provider, place), [])
            said += [text for text in texts if text not in said]
    for (provider, where), said in refused.items():
        if said:  # of several problems at one place, only the first is shown
            rest = [f"and {len(said) - SHOWN:,} more"] if len(said) > SHOWN else []
            what = "; ".join([*said[:SHOWN], *rest])
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
