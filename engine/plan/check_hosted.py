"""What a sweep needs before it may use a provider: an account, permission to upload, and rows that will be taken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from engine import registry
from engine.domain.adapters import Kind, Use
from engine.domain.conversation import ChatRow
from engine.domain.data import DataRecipe, number
from engine.domain.errors import UnknownAdapterError
from engine.domain.sweep import Level, Recipe, RunSettings
from engine.plan.accounts import account_of, is_hosted
from engine.plan.catalogue import Catalogue
from engine.plan.mitigations import Changes
from engine.ports.mitigation import Change, Tune
from engine.registry import suggest

Origin = Callable[[str, Level], str]
Chains = Mapping[Recipe, Sequence[Change]]
"""Recipes, and what each one's mitigations change."""

Named = tuple[str, Level, Use]
"""A model or an adapter, after the path and the level that name it."""

Found = Iterator[tuple[str, str, str, str]]
"""Problems: where, what, code, hint."""

MITIGATIONS = "mitigations"

ALL_ROWS = "all rows"
"""What a provider says of a sample as a whole begins so: of a source that is larger than the sample, it means nothing."""

SHOWN = 5
"""Most rows of one source that are shown; the rest are counted."""


def problems(
    recipes: Iterable[Recipe], work: Mapping[Recipe, Changes], run: RunSettings, origin: Origin, catalogue: Catalogue
) -> Found:
    """Yield what stands in the way of the cells that use providers.

    `work` has what the mitigations change, of those recipes that have any with which nothing is wrong.
    """
    distinct = {
        recipe: tuple(change for _, change in work[recipe].steps) if recipe in work else () for recipe in recipes
    }
    hosted = dict.fromkeys(use for chain in distinct.items() for use in _hosted(*chain, catalogue))
    yield from _accounts(hosted, run, origin)
    yield from _same_names(hosted, run, origin)
    yield from _pairs(distinct, origin)
    yield from _uploads(distinct, origin)


def _hosted(recipe: Recipe, mitigations: Sequence[Change], catalogue: Catalogue) -> Iterator[Named]:
    """Yield the hosted models that a recipe uses, with the path and the level that name them."""
    judges = [(found.judges_path, found.judges_level, judge) for found in recipe.measured for judge in found.judges]
    guards = (screen.guard for change in mitigations for screen in change.screens)
    judges += [(MITIGATIONS, recipe.mitigations, guard) for guard in guards if guard is not None]
    asked = ((path, level, catalogue.needs(judge).model) for path, level, judge in judges)
    for path, level, model in (("model", recipe.model, recipe.model), *asked):
        if model is not None and is_hosted(model):
            yield path, level, model


def _accounts(hosted: Iterable[Named], run: RunSettings, origin: Origin) -> Found:
    """Require an account for each hosted model, and a provider for each account."""
    for name, account in run.accounts.items():
        try:
            registry.adapter(Kind.PROVIDER, account.provider)
        except UnknownAdapterError as error:
            yield f"run.accounts.{name}.provider", error.what, "unknown_adapter", error.todo
    seen = set()
    for path, level, model in hosted:
        if account_of(model, run.accounts) is not None or (model.name, model.account) in seen:
            continue
        seen.add((model.name, model.account))
        owners = tuple(name for name, account in run.accounts.items() if account.provider == model.name)
        yield origin(path, level), *_no_account(model, owners)


def _no_account(model: Use, owners: tuple[str, ...]) -> tuple[str, str, str]:
    """Return what, code and hint for a hosted model that has no account, or more than one."""
    if model.account:
        hint = suggest(model.account, owners) if owners else f"add it to `run.accounts`, with `provider: {model.name}`"
        return f"`{model.name}` has no account called `{model.account}`", "no_account", hint
    if owners:
        what = f"`{model.name}` has {len(owners)} accounts, {' and '.join(owners)}, and `{model}` names none"
        return what, "several_accounts", f"name one, such as `{model.name}@{owners[0]}:{model.argument}`"
    hint = f"add `run.accounts`, such as `accounts: {{mine: {{provider: {model.name}}}}}`"
    return f"there is no account at `{model.name}`", "no_account", hint


def _same_names(hosted: Iterable[Named], run: RunSettings, origin: Origin) -> Found:
    """Refuse one model at two accounts: keys know a model by its name, so that answers of one would pass for the other's."""
    first: dict[tuple[str, object, bool], tuple[Use, str]] = {}
    for path, level, model in hosted:
        account = account_of(model, run.accounts)
        if account is None:
            continue
        before, owner = first.setdefault((model.name, model.settings, path == "model"), (model, account))
        if owner != account:
            what = f"`{before}` and `{model}` have one name, and would be taken for one model"
            hint = "use one account for it, or have it served under another name"
            yield origin(path, level), what, "same_model", hint


def _pairs(recipes: Chains, origin: Origin) -> Found:
    """Require that a hosted model is tuned and asked where it is, and nothing else is."""
    seen = set()
    for recipe, mitigations in recipes.items():
        home = recipe.model.name if is_hosted(recipe.model) else ""
        for path, level, use in _workers(recipe, mitigations):
            if (use.name if is_hosted(use) else "") != home and (recipe.model, use.name) not in seen:
                seen.add((recipe.model, use.name))
                hint = _elsewhere(path, home)
                what = f"`{use.name}` cannot work on the model `{recipe.model}`"
                yield origin(path, level), what, "wrong_place", hint


def _elsewhere(path: str, home: str) -> str:
    if path == MITIGATIONS:
        return "leave the mitigation out where the model is another's, by `exclude` or `when`"
    return f"`{path}: {home}`" if home else "`zip` the model with the adapters that work on it"


def _workers(recipe: Recipe, mitigations: Sequence[Change]) -> Iterator[Named]:
    """Yield what works on a recipe's model: who answers, tunes and edits, with the path and the level that name it."""
    yield "generate.use", recipe.generate.use, recipe.generate.use
    if recipe.tune is not None:
        yield "tune.use", recipe.tune.use, recipe.tune.use
    for use, change in zip(recipe.mitigations, mitigations, strict=False):
        for step in (*change.before, *change.after):
            yield MITIGATIONS, recipe.mitigations, step.tune.use if isinstance(step, Tune) else use


@dataclass(frozen=True, slots=True)
class _Upload:
    """Rows that a provider tunes on.

    `is_whole`: whether they are all that is tuned on together.
    """

    provider: str
    data: DataRecipe
    path: str
    level: Level
    is_whole: bool


def _uploads(recipes: Chains, origin: Origin) -> Found:
    """Ask whether rows may leave this machine, and whether the provider will take them."""
    refused: dict[tuple[str, str], list[str]] = {}
    for upload in _uploaded(recipes):
        provider, data = upload.provider, upload.data
        where = origin(upload.path, upload.level)
        if not data.allow_upload:
            what = f"the rows of `{data.source}` would be uploaded to `{provider}`"
            yield where, what, "no_upload", "allow it with `data.allow_upload: true`"
            continue
        to_rows, to_number = _objections(provider, data)
        for_number = where if upload.path == MITIGATIONS else origin("data.n", data.n)
        for place, texts in ((where, to_rows), (for_number, to_number if upload.is_whole else [])):
            told = refused.setdefault((provider, place), [])
            told += [text for text in texts if text not in told]
    for (provider, where), told in refused.items():
        if told:  # of several problems at one place, only the first is shown
            rest = [f"and {len(told) - SHOWN:,} more"] if len(told) > SHOWN else []
            what = "; ".join([*told[:SHOWN], *rest])
            yield where, f"`{provider}` will refuse it: {what}", "refused_rows", ""


def _uploaded(recipes: Chains) -> Iterator[_Upload]:
    """Yield what goes to a provider; of what may not, one a source."""
    seen = set()
    for upload in (upload for chain in recipes.items() for upload in _tuned_on(*chain)):
        data = upload.data
        what = (upload.provider, (data, upload.is_whole) if data.allow_upload else data.source)
        if what not in seen:
            seen.add(what)
            yield upload


def _tuned_on(recipe: Recipe, mitigations: Sequence[Change]) -> Iterator[_Upload]:
    """Yield the rows that a recipe has providers tune on."""
    if recipe.tune is not None and recipe.data is not None and is_hosted(recipe.tune.use):
        provider = recipe.tune.use.name
        yield _Upload(provider, recipe.data, "data.source", recipe.data.source, is_whole=True)
        for further in (data for change in mitigations for rows in change.rows for data in rows.further.values()):
            yield _Upload(provider, further, MITIGATIONS, recipe.mitigations, is_whole=False)
    for step in (step for change in mitigations for step in (*change.before, *change.after)):
        if isinstance(step, Tune) and is_hosted(step.tune.use):
            yield _Upload(step.tune.use.name, step.data, MITIGATIONS, recipe.mitigations, is_whole=True)


def _objections(provider: str, data: DataRecipe) -> tuple[list[str], list[str]]:
    """What a provider says of the rows that may be drawn, and what besides of so many of them."""
    adapter = registry.adapter(Kind.PROVIDER, provider)
    rows = _rows(data.source)
    whole = [] if data.mix is None else _rows(data.mix.source)
    most = number(data.n, len(rows)) + (0 if data.mix is None else number(data.mix.n, len(whole)))
    to_rows = [text for text in adapter.objections([*rows, *whole]) if not text.startswith(ALL_ROWS)]
    to_number = dict.fromkeys(adapter.objections([*rows, *whole][:most]))
    return list(dict.fromkeys(to_rows)), [text for text in to_number if text not in to_rows]


def _rows(source: Use) -> list[ChatRow]:
    return list(registry.adapter(Kind.DATA, source.name).rows(source.settings))
