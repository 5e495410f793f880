"""What stands in the way of a recipe's mitigations: samples, fine-tuners and guards that cannot be had as they ask."""

from __future__ import annotations

from collections.abc import Iterator

from engine.domain.adapters import Use
from engine.domain.errors import PlanError
from engine.domain.results import Measure
from engine.domain.sweep import DataRecipe, Recipe, TuneRecipe
from engine.plan.build import system_prompt
from engine.plan.catalogue import Catalogue
from engine.plan.changes import Changes, RefusalError, changes
from engine.ports.mitigation import Change, Tune


def checked(recipe: Recipe, catalogue: Catalogue) -> Changes | tuple[str, ...]:
    """Return what a recipe's mitigations change, or what is wrong with them, a sentence each.

    Args:
        recipe: The recipe.
        catalogue: The adapters' cards.
    """
    try:
        work = changes(recipe, system_prompt(recipe, catalogue))
    except RefusalError as error:
        return (str(error),)
    except PlanError as error:
        return (error.what,)
    return tuple(_troubles(recipe, work, catalogue)) or work


def _troubles(recipe: Recipe, work: Changes, catalogue: Catalogue) -> Iterator[str]:
    for use, change in work.steps:
        for what in _of_one(recipe, change, catalogue):
            yield f"the mitigation `{use}` {what}"
    if work.tune is not None and work.tune != recipe.tune:
        for what in _untunable(work.tune, catalogue):
            yield f"with these mitigations, it {what}"


def _of_one(recipe: Recipe, change: Change, catalogue: Catalogue) -> Iterator[str]:
    steps = [step for step in (*change.before, *change.after) if isinstance(step, Tune)]
    for inserted in change.rows:
        for data in inserted.further.values():
            yield from _short(data, catalogue)
    for step in steps:
        yield from _short(step.data, catalogue)
        yield from _untunable(step.tune, catalogue)
    for guard in dict.fromkeys(screen.guard for screen in change.screens if screen.guard is not None):
        yield from _unguarded(guard, recipe, catalogue)


def _short(data: DataRecipe, catalogue: Catalogue) -> Iterator[str]:
    try:
        rows = catalogue.source(data.source).rows
    except (OSError, ValueError) as error:
        yield f"cannot read `{data.source}`: {reason(error)}"
    else:
        if data.n > rows:
            yield f"asks {data.source} for {data.n:,} rows, and it has {rows:,}"


def _untunable(tune: TuneRecipe, catalogue: Catalogue) -> Iterator[str]:
    objection = catalogue.tuning_objection(tune.use, tune.length)
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
