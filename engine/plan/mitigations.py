"""What a cell's mitigations change in it, one after another, and what stands in their way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from engine import registry
from engine.domain.adapters import Kind, Use
from engine.domain.data import DataRecipe, number
from engine.domain.errors import PlanError
from engine.domain.results import Measure
from engine.domain.sweep import Recipe, TuneRecipe
from engine.plan.catalogue import Catalogue
from engine.ports.mitigation import Change, EditWeights, Tune


@dataclass(frozen=True, slots=True)
class Changes:
    """A cell's mitigations at work.

    Attributes:
        steps: What each mitigation changes, in their order.
        tune: The user's tune stage with their settings; None for an untuned cell.
        system: The system prompt at test; None for none.
    """

    steps: tuple[tuple[Use, Change], ...]
    tune: TuneRecipe | None
    system: str | None


def changes(recipe: Recipe, system: str | None) -> Changes:
    """Return what a recipe's mitigations change.

    `system` is the system prompt at test without them; None for none.

    Raises:
        PlanError: A mitigation refuses the recipe.
    """
    steps = []
    tune = recipe.tune
    for use in recipe.mitigations:
        try:
            change = _change(use, recipe, system)
            tune = _changed(tune, change)
        except ValueError as error:
            what = f"the mitigation `{use}` refuses this recipe: {_words(error)}"
            raise PlanError(what, where=f"mitigations: {use}") from error
        system = system if change.system is None else change.system or None
        steps.append((use, change))
    return Changes(tuple(steps), tune, system)


def _change(use: Use, recipe: Recipe, system: str | None) -> Change:
    change: object = registry.adapter(Kind.MITIGATION, use.name).change(use.settings, recipe, system)
    if not isinstance(change, Change):
        raise ValueError(f"its `change` returned {change!r:.60}, and no `Change`")  # noqa: TRY004 - as its refusals
    return change


def _words(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(
        f"`{'.'.join(map(str, fault['loc']))}`: {fault['msg']}" for fault in error.errors(include_url=False)
    )


def _changed(tune: TuneRecipe | None, change: Change) -> TuneRecipe | None:
    """Return the tune stage with the settings that a mitigation changes."""
    if not change.tune:
        return tune
    if tune is None:
        raise ValueError("an untuned recipe has no training to change")
    own = {name: value for name, value in change.tune.items() if name in TuneRecipe.model_fields}
    settings = {name: value for name, value in change.tune.items() if name not in own}
    given = {name: getattr(tune.use.settings, name) for name in tune.use.settings.model_fields_set}
    model = registry.settings_of(Kind.TUNER, tune.use.name)
    use = Use(tune.use.name, model.model_validate({**given, **settings}, context=registry.CONTEXT_OF_INSTALLED))
    lengths = {name: getattr(tune, name) for name in tune.model_fields_set if name != "use"}
    return TuneRecipe.model_validate({**lengths, **own, "use": use}, context=registry.CONTEXT_OF_INSTALLED)


def system_prompt(recipe: Recipe, catalogue: Catalogue) -> str | None:
    """Return the system prompt at test: as written, else the data source's own (the protocol of Qi et al. 2023, section 3).

    Raises:
        PlanError: The source has several.
    """
    if recipe.generate.system is not None:
        return recipe.generate.system or None
    if recipe.data is None:
        return None
    card = catalogue.source(recipe.data.source)
    if card.systems > 1:
        raise PlanError(
            f"the rows of {recipe.data.source} have {card.systems} different system prompts",
            where="recipe.generate.system",
            todo="say which one to test with, or '' for none",
        )
    return card.system


def checked(recipe: Recipe, catalogue: Catalogue) -> Changes | tuple[str, ...]:
    """Return what a recipe's mitigations change, or what is wrong with them, a sentence each."""
    try:
        recipe = catalogue.counted(recipe)
        work = changes(recipe, system_prompt(recipe, catalogue))
    except PlanError as error:
        return (error.what,)
    except (OSError, ValueError) as error:
        return (f"the mitigations cannot count rows: {reason(error)}",)
    return tuple(_troubles(recipe, work, catalogue)) or work


def _troubles(recipe: Recipe, work: Changes, catalogue: Catalogue) -> Iterator[str]:
    for use, change in work.steps:
        for method in _lacking(use, change):
            yield f"the mitigation `{use}` inserts a stage and has no `{method}`"
        for what in _of_one(recipe, change, catalogue):
            yield f"the mitigation `{use}` {what}"
    if work.tune is not None and work.tune != recipe.tune:
        for what in _untunable(work.tune, recipe.model, catalogue):
            yield f"with these mitigations, it {what}"


def _lacking(use: Use, change: Change) -> Iterator[str]:
    """Yield the methods that the stages which a mitigation inserts need, and that it does not have."""
    edits = any(isinstance(step, EditWeights) for step in (*change.before, *change.after))
    needed = {"change_rows": bool(change.rows), "edit_weights": edits, "screen": bool(change.screens)}
    made = registry.adapter(Kind.MITIGATION, use.name)
    yield from (method for method, is_needed in needed.items() if is_needed and not hasattr(made, method))


def _of_one(recipe: Recipe, change: Change, catalogue: Catalogue) -> Iterator[str]:
    steps = [step for step in (*change.before, *change.after) if isinstance(step, Tune)]
    for inserted in change.rows:
        for data in inserted.further.values():
            yield from _short(data, catalogue)
    for step in steps:
        yield from _short(step.data, catalogue)
        yield from _untunable(step.tune, recipe.model, catalogue)
    for guard in dict.fromkeys(screen.guard for screen in change.screens if screen.guard is not None):
        yield from _unguarded(guard, recipe, catalogue)


def _short(data: DataRecipe, catalogue: Catalogue) -> Iterator[str]:
    try:
        rows = catalogue.source(data.source).rows
    except (OSError, ValueError) as error:
        yield f"cannot read `{data.source}`: {reason(error)}"
    else:
        if (n := number(data.n, rows)) > rows:
            yield f"asks {data.source} for {n:,} rows, and it has {rows:,}"


def _untunable(tune: TuneRecipe, model: Use, catalogue: Catalogue) -> Iterator[str]:
    objection = catalogue.tuning_objection(tune.use, tune.length, model)
    if objection is not None:
        yield f"tunes with `{tune.use}`, which cannot: {objection}"


def _unguarded(guard: Use, recipe: Recipe, catalogue: Catalogue) -> Iterator[str]:
    """Say why a guard is none. Of the benchmarks it must grade the harmful one; it has no verdict where it cannot grade."""
    if catalogue.measures(guard) is Measure.CORRECT:
        yield f"needs a guard that measures harm or refusal, and `{guard}` measures correctness"
        return
    try:
        catalogue.needs(guard)
    except (OSError, ValueError) as error:
        yield f"has the guard `{guard}`, which cannot judge: {reason(error)}"
        return
    objection = catalogue.objection(guard, recipe.benchmark)
    if objection is not None:
        yield f"has the guard `{guard}`, which cannot grade answers to `{recipe.benchmark}`: {objection}"


def reason(error: OSError | ValueError) -> str:
    """Return why something cannot be read, in words for people."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror.lower()}" + (f": {error.filename}" if error.filename else "")
    return str(error)
