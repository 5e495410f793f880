"""What only the adapters can tell of a sweep: unknown names, missing files, more examples asked for than there are.

Every problem points at the level in the spec that causes it, and all of them come at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from types import MappingProxyType

from engine import registry
from engine.domain.errors import UnknownAdapterError
from engine.domain.results import Measure
from engine.domain.stage import StageKind
from engine.domain.sweep import DataRecipe, Level, Recipe, TuneRecipe
from engine.plan import check_hosted
from engine.plan.accounts import provider_of
from engine.plan.catalogue import Catalogue
from engine.ports.account import ApiJudge
from engine.registry import Kind, Ref, split_ref
from engine.spec.expand import Expansion
from engine.spec.leaves import LEAVES, base_level
from engine.spec.load import LoadedSweep
from engine.spec.origins import origin, written
from engine.spec.positions import Problems

_KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "model": Kind.MODEL,
        "data.source": Kind.DATA,
        "data.mix.source": Kind.DATA,
        "tune.adapter": Kind.TUNER,
        "mitigations": Kind.MITIGATION,
        "benchmark": Kind.BENCHMARK,
        "utility": Kind.BENCHMARK,
        "over_refusal": Kind.BENCHMARK,
        "utility_judge": Kind.JUDGE,
        "over_refusal_judge": Kind.JUDGE,
        "generate.adapter": Kind.GENERATOR,
        "judges": Kind.JUDGE,
    }
)

_MEASURED: Mapping[str, Measure] = MappingProxyType(
    {"utility_judge": Measure.CORRECT, "over_refusal_judge": Measure.REFUSAL}
)
_FIELD = re.compile(r"`(tune\.\w+)`")
_WITHOUT_ARGUMENT = frozenset({Kind.TUNER, Kind.GENERATOR, Kind.JUDGE})
"""Kinds whose ports hand no argument on; one that is written would change a key and nothing else."""


def check(loaded: LoadedSweep, expansion: Expansion, catalogue: Catalogue) -> None:
    """Check a sweep against what is installed and what is on disk.

    Args:
        loaded: The sweep, with its positions.
        expansion: Its cells.
        catalogue: The adapters' cards; each is fetched once and stays there for the planner.

    Raises:
        SpecError: With every problem, in file order.
    """
    recipes = tuple(cell.recipe for cell in expansion.cells)
    checker = _Checker(loaded, recipes, catalogue)
    checker.adapters()
    checker.cards()
    checker.sizes()
    checker.judges()
    checker.measures()
    checker.objections()
    checker.tuners()
    checker.rubrics()
    checker.providers()
    checker.budget()
    checker.problems.stop_if_any()


@dataclass(slots=True)
class _Checker:
    loaded: LoadedSweep
    recipes: tuple[Recipe, ...]
    catalogue: Catalogue
    problems: Problems = field(default_factory=Problems)
    unknown: set[tuple[Kind, str]] = field(default_factory=set)

    def add(self, where: str, what: str, *, code: str, hint: str = "") -> None:
        """Note a problem at a dotted path of the spec."""
        self.problems.add(self.loaded.positions.problem(where, what, code=code, hint=hint))

    def origin(self, path: str, level: Level) -> str:
        """Return where the spec has a level that some cell has."""
        return origin(self.loaded.sweep, path, level)

    def adapters(self) -> None:
        """Find every adapter that the spec names, also in levels that no cell is left with."""
        for item in written(self.loaded.sweep):
            if item.path in _KINDS:
                for ref, suffix in _references(item.level):
                    self.adapter(_KINDS[item.path], ref, item.where + suffix)

    def adapter(self, kind: Kind, ref: str, where: str) -> None:
        """Find one adapter."""
        try:
            self.catalogue.revision(kind, ref)
        except UnknownAdapterError as error:
            self.unknown.add((kind, ref))
            self.add(where, error.what, code="unknown_adapter", hint=error.todo)
            return
        found = Ref.parse(ref)
        if found.account and not (kind is Kind.MODEL and found.name in registry.names(Kind.PROVIDER)):
            self.unknown.add((kind, ref))
            what = f"`{ref}` names an account, and only the reference of a hosted model can"
            self.add(where, what, code="needless_account", hint=f"drop `@{found.account}`")
            return
        if kind in _WITHOUT_ARGUMENT and split_ref(ref)[1] and not _takes_model(kind, ref):
            self.unknown.add((kind, ref))
            what = f"the {kind.noun} `{split_ref(ref)[0]}` takes no argument, got `{ref}`"
            self.add(where, what, code="needless_argument", hint="drop the colon and what follows it")

    def cards(self) -> None:
        """Fetch the card of all that the cells use, which finds the files behind `file:` and `dir:` references."""
        fetch: dict[str, Callable[[str], object]] = {
            "model": self.catalogue.model,
            "data.source": self.catalogue.source,
            "data.mix.source": self.catalogue.source,
            "benchmark": self.catalogue.benchmark,
            "utility": self.catalogue.benchmark,
            "over_refusal": self.catalogue.benchmark,
        }
        for path, card in fetch.items():
            for ref in dict.fromkeys(base_level(recipe, path) for recipe in self.recipes):
                if isinstance(ref, str) and (_KINDS[path], ref) not in self.unknown:
                    self.card(card, path, ref)

    def card(self, fetch: Callable[[str], object], path: str, ref: str) -> None:
        """Fetch one card; an adapter without a usable one counts as unknown from here on."""
        try:
            fetch(ref)
        except (OSError, ValueError) as error:
            self.unknown.add((_KINDS[path], ref))
            names_file = isinstance(error, OSError) and split_ref(ref)[1]
            hint = "files are looked for from the folder that you are in" if names_file else ""
            self.add(self.origin(path, ref), f"cannot read `{ref}`: {_reason(error)}", code="unreadable", hint=hint)

    def sizes(self) -> None:
        """Compare what is asked of each data source with what it has."""
        data = dict.fromkeys(recipe.data for recipe in self.recipes if recipe.data is not None)
        short: dict[tuple[str, int], dict[str, int]] = {}
        for path, source, n in chain.from_iterable(map(_asked, data)):
            if (Kind.DATA, source) not in self.unknown and n > (rows := self.catalogue.source(source).rows):
                short.setdefault((path, n), {})[source] = rows
        for (path, n), sources in short.items():
            lacking = " and of ".join(f"{source}, which has {rows:,}" for source, rows in sources.items())
            hint = f"ask for {min(sources.values()):,} at most, or `exclude` the combination"
            self.add(self.origin(path, n), f"{n:,} examples asked of {lacking}", code="too_few_rows", hint=hint)

    def judges(self) -> None:
        """Require a judge that measures harm, and no judge twice."""
        for judges in dict.fromkeys(recipe.judges for recipe in self.recipes):
            where = self.origin("judges", judges)
            known = [judge for judge in judges if (Kind.JUDGE, judge) not in self.unknown]
            for index, judge in enumerate(judges):
                if judge in judges[:index]:
                    what = f"the judge `{judge}` is listed twice"
                    self.add(f"{where}[{index}]", what, code="duplicate_judge", hint="list it once")
            if len(known) == len(judges) and all(self.catalogue.measures(j) is not Measure.HARM for j in known):
                hint = "add one, such as `standin/rules`"
                self.add(where, "none of these judges measures harm", code="no_harm_judge", hint=hint)

    def measures(self) -> None:
        """Hold the judges of utility and over-refusal to what they are asked to measure."""
        for path, wanted in _MEASURED.items():
            for judge in dict.fromkeys(base_level(recipe, path) for recipe in self.recipes):
                if not isinstance(judge, str) or (Kind.JUDGE, judge) in self.unknown:
                    continue
                found = self.catalogue.measures(judge)
                if found is not wanted:
                    what = f"`{judge}` measures {found.value}, and here a judge that measures {wanted.value} is needed"
                    self.add(self.origin(path, judge), what, code="wrong_measure")

    def objections(self) -> None:
        """Ask every judge whether it can grade the prompts that it will get, before anything is spent on answers."""
        pairs: dict[tuple[str, Level, str, str], None] = {}
        for recipe in dict.fromkeys(self.recipes):
            for judge in recipe.judges:
                pairs[("judges", recipe.judges, judge, recipe.benchmark)] = None
            for path, benchmark in (("utility_judge", recipe.utility), ("over_refusal_judge", recipe.over_refusal)):
                named = base_level(recipe, path)
                if benchmark is not None and isinstance(named, str):
                    pairs[(path, named, named, benchmark)] = None
        for path, level, judge, benchmark in pairs:
            if {(Kind.JUDGE, judge), (Kind.BENCHMARK, benchmark)} & self.unknown:
                continue
            objection = self.catalogue.objection(judge, benchmark)
            if objection is not None:
                what = f"`{judge}` cannot grade answers to `{benchmark}`: {objection}"
                self.add(self.origin(path, level), what, code="ungradable", hint="choose another judge or benchmark")

    def tuners(self) -> None:
        """Ask every fine-tuner whether it can tune as the cells have it."""
        told: set[tuple[str, str]] = set()
        for tune in dict.fromkeys(recipe.tune for recipe in self.recipes if recipe.tune is not None):
            if (Kind.TUNER, tune.adapter) in self.unknown:
                continue
            objection = self.catalogue.tuning_objection(tune)
            if objection is not None and (tune.adapter, objection) not in told:
                told.add((tune.adapter, objection))
                what = f"`{tune.adapter}` cannot tune so: {objection}"
                self.add(self.blamed(objection, tune), what, code="untunable")

    def blamed(self, objection: str, tune: TuneRecipe) -> str:
        """Return where the first field stands that an objection names and somebody has set; the adapter's place if none."""
        for path in _FIELD.findall(objection):
            if path in LEAVES:
                level = getattr(tune, path.removeprefix("tune."))
                where = self.origin(path, level)
                if level != LEAVES[path].field.default or where != f"recipe.{path}":
                    return where
        return self.origin("tune.adapter", tune.adapter)

    def rubrics(self) -> None:
        """Read the files that judges are given."""
        judges = dict.fromkeys((recipe.judges, judge) for recipe in self.recipes for judge in recipe.judges)
        for level, judge in judges:
            if (Kind.JUDGE, judge) not in self.unknown:
                try:
                    self.catalogue.judging(judge)
                except (OSError, ValueError) as error:
                    self.unknown.add((Kind.JUDGE, judge))
                    what = f"`{judge}` cannot judge: {_reason(error)}"
                    self.add(self.origin("judges", level), what, code="unusable_judge")

    def providers(self) -> None:
        """Look at what leaves this machine; only once every adapter is known."""
        if not self.unknown:
            for where, what, code, hint in check_hosted.problems(self.recipes, self.loaded.sweep.run, self.origin):
                self.add(where, what, code=code, hint=hint)

    def budget(self) -> None:
        """Require a price for a budget in dollars: without one it could never bind."""
        run = self.loaded.sweep.run
        is_local = any(provider_of(StageKind.GENERATE, recipe.generate.adapter) is None for recipe in self.recipes)
        if run.budget.usd is not None and run.resources.usd_per_device_hour is None and is_local:
            what = "a budget in dollars needs to know what the device costs"
            hint = "set `run.resources.usd_per_device_hour`, or cap `device_hours` or `tokens` instead"
            self.add("run.budget.usd", what, code="budget_without_price", hint=hint)


def _takes_model(kind: Kind, ref: str) -> bool:
    """Tell whether a judge is given the hosted model that it asks."""
    if kind is not Kind.JUDGE or not isinstance(registry.adapter(Kind.JUDGE, ref), ApiJudge):
        return False
    return provider_of(StageKind.JUDGE, ref) is not None


def _references(level: Level) -> Iterator[tuple[str, str]]:
    """Yield the references in a level, each with what it adds to the level's own path."""
    if isinstance(level, str):
        yield level, ""
    elif isinstance(level, tuple):
        for index, ref in enumerate(level):
            yield ref, f"[{index}]"


def _asked(data: DataRecipe) -> Iterator[tuple[str, str, int]]:
    """Yield which path asks which source for how many examples."""
    yield "data.n", data.source, data.n
    if data.mix is not None:
        yield "data.mix.n", data.mix.source, data.mix.n


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror.lower()}" + (f": {error.filename}" if error.filename else "")
    return str(error)
