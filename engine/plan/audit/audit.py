"""The rows of a plan, audited: a sweep stops at what is found and not accepted under `run.accept`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from engine.domain.adapters import Use
from engine.domain.plan import Plan
from engine.domain.sweep import CONTAMINATION, Level, Recipe
from engine.plan.audit.overlaps import Compared, Overlap, compare, samples
from engine.plan.audit.private import Kind
from engine.plan.audit.uploads import Exposure, Uploaded, uploaded
from engine.plan.catalogue import Catalogue
from engine.spec.load import LoadedSweep
from engine.spec.origins import origin
from engine.spec.positions import Problems

SHOWN = 5
"""Most ids that are shown; the rest are counted."""


class Finding(NamedTuple):
    """Something that stops a sweep unless it is accepted.

    Attributes:
        name: The name under which `run.accept` accepts it, such as `secrets`.
        source: Whose rows it is about.
        what: What it is, in a sentence, without any of their text.
    """

    name: str
    source: Use
    what: str


@dataclass(frozen=True, slots=True)
class Audit:
    """What was looked at, and what was found and is accepted.

    Attributes:
        compared: Training rows against held-out prompts.
        uploaded: Rows that leave this machine.
        accepted: What was found; the spec accepts all of it.
        notes: What people should know besides.
    """

    compared: Compared
    uploaded: Uploaded
    accepted: tuple[Finding, ...]
    notes: tuple[str, ...]


def audit(loaded: LoadedSweep, plan: Plan, catalogue: Catalogue) -> Audit:
    """Look at the rows of a plan.

    Raises:
        SpecError: Training rows are held-out prompts, or private data would be uploaded, and `run.accept` does not name it.
    """
    compared, sent = compare(plan, catalogue), uploaded(plan, catalogue)
    findings = (*map(_overlapping, compared.overlaps), *map(_exposed, sent.exposures))
    accept = loaded.sweep.run.accept
    _refuse([finding for finding in findings if finding.name not in accept], loaded, plan)
    names = {finding.name for finding in findings}
    notes = [f"run.accept: nothing is found that `{name}` would accept" for name in accept if name not in names]
    return Audit(compared, sent, findings, (*_repeated(compared.repeated), *notes))


def contamination(benchmark: Use) -> str:
    """Return the name under which rows that are prompts of a benchmark are accepted."""
    short = f":{benchmark.argument}" if benchmark.argument else ""
    return f"{CONTAMINATION}{benchmark.reference}{short}"


def _overlapping(found: Overlap) -> Finding:
    ways = {
        "word for word": found.equal,
        "nearly, or with more around": found.near,
        "by an answer that is a reference": found.answers,
    }
    said = "; ".join(f"{way}: {_ids(ids)}" for way, ids in ways.items() if ids)
    number = len(found.every)
    what = (
        f"{number:,} of {found.rows:,} rows of `{found.source}` {'is' if number == 1 else 'are'} also in"
        f" `{found.benchmark}` ({said}): {len(found.found):,} of its {found.prompts:,} prompts"
        f" ({len(found.found) / found.prompts:.1%}), {_ids(found.found)}"
    )
    return Finding(contamination(found.benchmark), found.source, what)


def _exposed(found: Exposure) -> Finding:
    forms = "; ".join(f"{what}: {_ids(ids)}" for what, ids in found.forms.items())
    word, number = "secrets" if found.kind is Kind.SECRETS else "personal data", len(found.found)
    what = (
        f"{number:,} of {found.rows:,} rows of `{found.source}` that go to `{found.provider}`"
        f" {'has' if number == 1 else 'have'} what looks like {word} ({forms})"
    )
    return Finding(found.kind.value, found.source, what)


def _ids(ids: Sequence[str]) -> str:
    return ", ".join([*ids[:SHOWN], *(["…"] if len(ids) > SHOWN else [])])


def _refuse(findings: Sequence[Finding], loaded: LoadedSweep, plan: Plan) -> None:
    """Stop at findings, each source's at its place in the spec."""
    problems = Problems()
    places = _places(plan) if findings else {}
    at: dict[str, list[Finding]] = {}
    for finding in findings:
        at.setdefault(origin(loaded.sweep, *places[finding.source]), []).append(finding)
    for where, several in at.items():
        names = ", ".join(f'"{name}"' for name in dict.fromkeys(one.name for one in several))
        hint = f"take these rows out, or name what you accept: `run: {{accept: [{names}]}}`"
        what = "; and ".join(one.what for one in several)
        problems.add(loaded.positions.problem(where, what, code="audited_rows", hint=hint))
    problems.stop_if_any()


def _places(plan: Plan) -> dict[Use, tuple[str, Level]]:
    """Return the path and the level that name each source: a recipe's own, or the mitigations that bring it."""
    found: dict[Use, tuple[str, Level]] = {}
    for cell in plan.cells:
        recipe = cell.cell.recipe
        for source, _ in (one for key in cell.chain for one in samples(plan.stages[key])):
            if source not in found:
                found[source] = next((place for place in _own(recipe) if place[1] == source), None) or (
                    "mitigations",
                    recipe.mitigations,
                )
    return found


def _own(recipe: Recipe) -> Iterator[tuple[str, Use]]:
    if recipe.data is not None:
        yield "data.source", recipe.data.source
        if recipe.data.mix is not None:
            yield "data.mix.source", recipe.data.mix.source


def _repeated(repeated: Mapping[tuple[Use, Use], int]) -> Iterable[str]:
    for (first, second), number in repeated.items():
        rows = f"{number:,} {'row asks' if number == 1 else 'rows ask'}"
        if first == second:
            yield f"{second}: {rows} what an earlier one asks, at least nearly"
        else:
            yield f"{second}: {rows} what a row of {first} asks, at least nearly"
