"""What a cell's mitigations change in it, one after another."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from engine import registry
from engine.domain.adapters import Kind, Use
from engine.domain.sweep import Recipe, TuneRecipe
from engine.ports.mitigation import Change


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

    Args:
        recipe: The recipe as the spec has it.
        system: Its system prompt at test without mitigations; None for none.

    Raises:
        RefusalError: A mitigation refuses the recipe.
    """
    steps = []
    tune = recipe.tune
    for use in recipe.mitigations:
        try:
            change = registry.adapter(Kind.MITIGATION, use.name).change(use.settings, recipe, system)
            tune = _changed(tune, change)
        except ValueError as error:
            raise RefusalError(use, error) from error
        system = system if change.system is None else change.system or None
        steps.append((use, change))
    return Changes(tuple(steps), tune, system)


class RefusalError(ValueError):
    """A mitigation refuses a recipe.

    Attributes:
        use: The mitigation.
    """

    def __init__(self, use: Use, error: ValueError) -> None:
        """Say who refuses and why."""
        super().__init__(f"the mitigation `{use}` refuses this recipe: {_words(error)}")
        self.use = use


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
        message = "an untuned recipe has no training to change"
        raise ValueError(message)
    own = {name: value for name, value in change.tune.items() if name in TuneRecipe.model_fields}
    settings = {name: value for name, value in change.tune.items() if name not in own}
    given = {name: getattr(tune.use.settings, name) for name in tune.use.settings.model_fields_set}
    model = registry.settings_of(Kind.TUNER, tune.use.name)
    use = Use(tune.use.name, model.model_validate({**given, **settings}, context=registry.CONTEXT_OF_INSTALLED))
    lengths = {name: getattr(tune, name) for name in tune.model_fields_set if name != "use"}
    return TuneRecipe.model_validate({**lengths, **own, "use": use}, context=registry.CONTEXT_OF_INSTALLED)
