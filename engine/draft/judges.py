"""Judges for a first sweep, where nobody named any: of harm, without an API, and of a benchmark's right answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from engine import registry
from engine.domain.adapters import Kind, Use
from engine.domain.errors import PlanError, UnknownAdapterError
from engine.domain.results import Measure
from engine.draft.named import Chosen, written
from engine.plan.accounts import is_hosted
from engine.plan.catalogue import Catalogue
from engine.ports import BenchmarkCard, FirstJob, FirstSettings, HasStart

FIRST = "init.judge"
"""Under this name the entry points `dosimeter.defaults` name the judge of harm that a first sweep begins with."""

REFUSALS = "over_refusal_judge"
"""And under this one the judge that tells refusals; it stands beside the judge of harm."""


@dataclass(frozen=True, slots=True)
class Picked:
    """A judge.

    Attributes:
        level: As a spec has it.
        use: The judge.
        notes: What to know of it, and why it was taken.
    """

    level: object
    use: Use
    notes: tuple[str, ...] = ()


def begin(kind: Kind, name: str, job: FirstJob) -> FirstSettings:
    """Return how an adapter says to begin with it; nothing in particular where it does not say."""
    adapter = registry.adapter(kind, name)
    return adapter.start(job) if isinstance(adapter, HasStart) else FirstSettings()


def harm_judges(
    named: Sequence[Chosen], benchmarks: Sequence[Use], job: FirstJob, catalogue: Catalogue
) -> tuple[Picked, ...]:
    """Return the judges of the harm benchmarks: those that were named, or else one without an API and one of refusals.

    Raises:
        PlanError: None was named, and no installed judge of harm can begin.
    """
    if named:
        return tuple(Picked(written(one.use), one.use) for one in named)
    able = [use for use in _ready() if _measures(use, Measure.HARM) and _grades(use, benchmarks, catalogue)]
    if len(able) == 1:
        note = "The only judge of harm here that grades these prompts and needs no settings."
        picked = Picked(written(able[0]), able[0], (note,))
    else:
        picked = _first(job)
    further = registry.INSTALLED.default(REFUSALS)
    if further is None:
        return (picked,)
    use = registry.INSTALLED.use(Kind.JUDGE, further)
    also = Picked(written(use), use) if _measures(use, Measure.REFUSAL) and use != picked.use else None
    return (picked, also) if also else (picked,)


def utility_judge(card: BenchmarkCard) -> str:
    """Return the judge by which a benchmark's answers are compared with their references; empty for the usual one."""
    return card.judge if card.judge in registry.names(Kind.JUDGE) else ""


def accounts(model: Use, judges: Sequence[Use], catalogue: Catalogue) -> Mapping[str, str]:
    """Return the accounts that hosted models need: provider by a name for the account."""
    asked = [model, *(needs.model for needs in map(catalogue.needs, judges) if needs.model is not None)]
    hosted = dict.fromkeys((use.name, use.account) for use in asked if is_hosted(use))
    return {account or name.rpartition("/")[2]: name for name, account in hosted}


def _first(job: FirstJob) -> Picked:
    name = registry.INSTALLED.default(FIRST)
    if name is None:
        raise PlanError(
            "no installed judge of harm can begin by itself",
            where="--judge",
            todo="name one; `dosimeter adapters` lists them",
        )
    start = begin(Kind.JUDGE, name, job)
    use = registry.INSTALLED.use(Kind.JUDGE, {"use": name, **start.settings})
    return Picked(written(use), use, start.notes)


def _ready() -> Iterator[Use]:
    """Yield the installed judges that need no settings; those that cannot be imported are none."""
    for name in registry.names(Kind.JUDGE):
        try:
            fields = registry.settings_of(Kind.JUDGE, name).model_fields
        except UnknownAdapterError:  # `dosimeter adapters` says why
            continue
        if not any(field.is_required() for field in fields.values()):
            yield registry.INSTALLED.use(Kind.JUDGE, name)


def _measures(use: Use, wanted: Measure) -> bool:
    return Catalogue.measures(use) is wanted


def _grades(use: Use, benchmarks: Sequence[Use], catalogue: Catalogue) -> bool:
    """Tell whether a judge runs here and grades all prompts."""
    try:
        needs = catalogue.needs(use)
    except (OSError, ValueError):  # such as a folder of weights that is not there
        return False
    return needs.model is None and all(catalogue.objection(use, one) is None for one in benchmarks)
