"""A first spec as YAML: what was found as comments, and beside it what to begin with."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from engine import registry
from engine.domain.adapters import Kind, Use
from engine.domain.errors import PlanError
from engine.domain.sweep import DEFAULT_EPOCHS, Header
from engine.draft.judges import Picked, accounts, begin, harm_judges, utility_judge
from engine.draft.look import FirstLook, ReadBenchmark, ReadSource, Wish, look
from engine.draft.named import Chosen, written
from engine.draft.sizes import sizes
from engine.draft.text import comment, field, inert, scalar
from engine.plan.accounts import is_hosted
from engine.plan.catalogue import Catalogue
from engine.spec.messages import findings

HEAD = """\
# yaml-language-server: $schema=dosimeter.schema.json
# `dosimeter init` wrote this from what it found. All of it is yours to change; `plan` tells whether it is right.
#
#   dosimeter plan THIS_FILE
#       how many cells there are, and what they cost; runs nothing
#   dosimeter run THIS_FILE
#       runs them; the same command resumes
"""
SEEDS = (0, 1, 2)
ANSWER_TOKENS = 256
"""The longest answer that is asked for, where it is not known how long a model's answers are."""

MOST_NOTES = 10
"""Notes of one thing that become comments; the rest is counted."""

MOST_NAMED = 8
"""Categories that are named."""

MANY_PROMPTS = 500
"""A larger benchmark's comment says how to take a part of it."""

SHORT = 80
"""Characters of a system prompt, or of a category's name, that a comment shows."""

Lines = Iterator[str]


@dataclass(frozen=True, slots=True)
class Draft:
    """A first spec.

    Attributes:
        name: The sweep's.
        text: The YAML; `THIS_FILE` stands for where it will be.
    """

    name: str
    text: str

    def at(self, path: Path) -> str:
        """Return the YAML for a place."""
        return self.text.replace("THIS_FILE", shlex.quote(str(path)), 2)


def draft(wish: Wish, name: str = "") -> Draft:
    """Look at what was named, and write a spec for it.

    Args:
        wish: What was named.
        name: The sweep's; empty for one after the model and the data.

    Raises:
        PlanError: Something cannot be used, or a sweep cannot have that name.
        SpecError: An adapter with settings is no YAML.
    """
    if name:
        _check(name)
    catalogue = Catalogue()
    found = look(wish, catalogue)
    benchmarks = [one.named.use for one in found.benchmarks]
    judges = harm_judges(found.judges, benchmarks, found.job, catalogue)
    needed = accounts(found.model.named.use, [judge.use for judge in judges], catalogue)
    name = name or _name(found)
    writer = _Writer(found, wish, judges, needed)
    return Draft(name, "\n".join([f"{HEAD}\nsweep: {scalar(name)}", *writer.lines()]) + "\n")


def _check(name: str) -> None:
    try:
        Header(sweep=name)
    except ValidationError as error:
        finding = next(findings(error, "", Header))
        raise PlanError(finding.what, where=name, todo=finding.hint) from error


def _name(found: FirstLook) -> str:
    """Return a name after the model and the first data source."""
    parts = (found.model.named.use, found.sources[0].named.use)
    slugs = [_slug(use.argument.partition("@")[0] or use.name) for use in parts]
    return "-".join(slug for slug in slugs if slug) or "first"


def _slug(text: str) -> str:
    last = re.split(r"[/:]", text.rstrip("/"))[-1]
    stem = last.partition(".")[0] or last
    return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:30].strip("-")


@dataclass(frozen=True, slots=True)
class _Writer:
    found: FirstLook
    wish: Wish
    judges: Sequence[Picked]
    accounts: Mapping[str, str]

    @property
    def sizes(self) -> tuple[int, ...]:
        return sizes(min(source.card.rows for source in self.found.sources))

    def lines(self) -> Lines:
        yield "description: What does fine-tuning on these rows do to the model's answers to harmful requests?"
        yield from ("", "recipe:")
        yield from self.model()
        yield from self.data()
        yield from self.tune()
        yield from self.measured()
        yield from self.generate()
        yield from self.judged()
        yield f"  seed: {SEEDS[0]}"
        yield from self.axes()
        yield from ("", "baselines: true  # the model untuned as well: what harm is compared with")
        yield from self.run()

    def model(self) -> Lines:
        card, use = self.found.model.card, self.found.model.named.use
        weights = (
            f"; {card.parameters:,} weights, {4e-9 * card.parameters:.2g} GB as float32" if card.parameters else ""
        )
        yield from comment(f"{card.detail}{weights}", 2)
        yield from _notes(self.found.model.notes, 2)
        yield from _told(self.found.model.named, 2)
        yield f"  model: {scalar(written(use))}"

    def data(self) -> Lines:
        sources = self.found.sources
        yield "  data:"
        for source in sources:
            yield from _source(source)
        yield f"    source: {scalar(written(sources[0].named.use))}"
        yield f"    n: {self.sizes[0]}  # examples; samples are nested"
        model = self.found.model.named.use
        if not is_hosted(model):
            return
        if self.wish.allow_upload:
            yield f"    allow_upload: true  # --allow-upload: the rows go to {model.name}"
        else:
            told = f"The rows would be uploaded to {model.name}. Only you can allow it, and nothing runs until you do:"
            yield from comment(told, 4)
            yield "    # allow_upload: true"

    def tune(self) -> Lines:
        name = _adapter("tune.use", self.found.model.named.use)
        start = begin(Kind.TUNER, name, self.found.job)
        yield "  tune:"
        yield f"    use: {name}"
        yield f"    epochs: {DEFAULT_EPOCHS}"
        yield from _notes(start.notes, 4)
        for setting, value in start.settings.items():
            yield from field(setting, value, 4)

    def measured(self) -> Lines:
        for one in self.found.benchmarks:
            yield from _benchmark(one, "harmful requests")
        yield f"  benchmark: {scalar(written(self.found.benchmarks[0].named.use))}"
        for role, one in self.found.measured:
            yield from _benchmark(one, role.replace("_", "-"))
            yield f"  {role}: {scalar(written(one.named.use))}"
            if role == "utility" and (judge := utility_judge(one.card)):
                yield f"  utility_judge: {judge}"

    def generate(self) -> Lines:
        use = self.found.model.named.use
        name = _adapter("generate.use", use)
        start = begin(Kind.GENERATOR, name, self.found.job)
        longest = 2 * self.found.job.card.answer if self.found.job.card.answer else ANSWER_TOKENS
        yield "  generate:"
        yield f"    use: {name}"
        yield from _notes(start.notes, 4)
        settings = {"max_new_tokens": longest, "temperature": 0, **start.settings}
        for setting, value in settings.items():
            yield from field(setting, value, 4)
        several = [source for source in self.found.sources if source.card.systems > 1]
        if several:
            named = " and ".join(f"{source.named.use} has {source.card.systems}" for source in several)
            told = (
                "Not all rows have the same system prompt, so that somebody has to say with which one the models are tested: '' is"
                f" none, for all sources; put in the one that you mean. Different ones, none counting as one: {named}"
            )
            yield from comment(told, 4)
            yield "    system: ''"

    def judged(self) -> Lines:
        if not self.found.judges:
            yield from comment("Judges. None was named, so that these ask no API:", 2)
        yield "  judges:"
        for judge in self.judges:
            yield from _notes(judge.notes, 2)
            yield from _item(judge.level)

    def axes(self) -> Lines:
        axes: Mapping[str, list[object]] = {
            "data.source": [written(source.named.use) for source in self.found.sources],
            "data.n": list(self.sizes),
            "benchmark": [written(one.named.use) for one in self.found.benchmarks],
            "seed": list(SEEDS),
        }
        swept = {path: levels for path, levels in axes.items() if len(levels) > 1}
        cells = math.prod(map(len, swept.values()))
        yield ""
        yield f"axes:  # every combination of these: {cells} cells"
        for path, levels in swept.items():
            said = "  # at least two: a single run says nothing about chance" if path == "seed" else ""
            lines = field(path, levels, 2)
            yield from (*lines[:-1], lines[-1] + said)
        yield f"  # tune.epochs: [1, {DEFAULT_EPOCHS}]"

    def run(self) -> Lines:
        yield ""
        yield "run:  # may change without re-running a cell"
        if self.accounts:
            yield "  accounts:"
        for name, provider in self.accounts.items():
            key = registry.adapter(Kind.PROVIDER, provider).key_env
            yield f"    {name}: {{provider: {provider}}}  # the key is read from the environment: {inert(key)}"
        yield "  resources: {}  # {usd_per_device_hour: 0.50}: then spend is counted in US dollars"
        yield "  budget: {}     # {device_hours: 4}, {tokens: 1000000} or {usd: 10}: a hard cap"


def _adapter(path: str, model: Use) -> str:
    """Return the fine-tuner or the generator of a model: its provider's, or the usual one here.

    Raises:
        PlanError: No package names a usual one.
    """
    name = model.name if is_hosted(model) else registry.INSTALLED.default(path)
    if name is None:
        raise PlanError(f"no installed package names a default for `{path}`", where=path, todo="install one")
    return name


def _item(level: object) -> Lines:
    """Yield an adapter as an item of a list: one with settings in lines of their own."""
    if not isinstance(level, Mapping):
        yield f"  - {scalar(level)}"
        return
    lines = [line for name, value in level.items() for line in field(str(name), value, 4)]
    yield from (f"  - {lines[0].lstrip()}", *lines[1:])


def _source(source: ReadSource) -> Lines:
    card, use = source.card, source.named.use
    yield from comment(str(use), 4)
    shape = f" of the shape {card.shape}" if card.shape else ""
    tier = "unknown, and only you can tell it (`tier`)" if card.tier == "unknown" else card.tier
    yield from comment(
        f"{card.rows:,} {'row' if card.rows == 1 else 'rows'}{shape}; licence: {card.licence}; tier: {tier}", 4, "- "
    )
    if source.leaves_out:
        yield from comment("ROWS ARE LEFT OUT, by --skip-refused:", 4, "- ")
    yield from _notes(card.notes, 4)
    if card.systems == 1 and card.system:
        shown = inert(card.system, SHORT)
        yield from comment(f"every row has one system prompt, with which models are tested: {shown}", 4, "- ")
    yield from _told(source.named, 4)


def _benchmark(one: ReadBenchmark, role: str) -> Lines:
    card, use = one.card, one.named.use
    names = [inert(name, SHORT) for name in card.categories[:MOST_NAMED]]
    more = f" and {len(card.categories) - MOST_NAMED:,} more" if len(card.categories) > MOST_NAMED else ""
    within = f" in {len(card.categories):,} categories ({', '.join(names)}{more})" if len(card.categories) > 1 else ""
    yield from comment(f"{role}: {use}, {card.detail}", 2)
    yield from comment(
        f"{card.prompts:,} {'prompt' if card.prompts == 1 else 'prompts'}{within}; licence: {card.licence}", 2, "- "
    )
    if card.prompts > MANY_PROMPTS and "n" in type(use.settings).model_fields:
        yield from comment("`n: 100` beside `use` takes a part, with categories in proportion", 2, "- ")
    yield from _notes(card.notes, 2)
    yield from _told(one.named, 2)


def _notes(notes: Sequence[str], indent: int) -> Lines:
    for note in notes[:MOST_NOTES]:
        yield from comment(note, indent, "- ")
    if len(notes) > MOST_NOTES:
        yield from comment(f"and {len(notes) - MOST_NOTES} more notes, which `plan` has", indent, "- ")


def _told(named: Chosen, indent: int) -> Lines:
    """Say how the adapter of a path was told."""
    others = f"it has columns of {', '.join(named.others)} as well" if named.others else ""
    if named.columns:
        told = f"taken for {named.use.name} by its columns ({', '.join(named.columns)})"
        yield from comment(f"{told}; {others or 'name it yourself if it is something else'}", indent, "- ")
    elif named.others:
        yield from comment(f"read as a file of your own; {others}", indent, "- ")
