"""What only the adapters can tell of a sweep: missing files, more examples asked for than there are, judges that cannot grade.

Every problem points at the level in the spec that causes it, and all of them come at once. That every adapter is there, and
that its settings are right, `engine.spec` has seen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from engine.domain.adapters import Kind, Use
from engine.domain.data import Count
from engine.domain.results import Measure
from engine.domain.sampling import Draw
from engine.domain.sweep import GenerateRecipe, Level, Recipe, TuneRecipe
from engine.plan import check_hosted
from engine.plan.accounts import is_hosted
from engine.plan.catalogue import Catalogue
from engine.plan.mitigations import Changes, checked, reason, system_prompt
from engine.spec.expand import Expansion
from engine.spec.load import LoadedSweep
from engine.spec.origins import origin
from engine.spec.positions import Problems

_MEASURED: Mapping[str, Measure] = MappingProxyType(
    {"utility_judge": Measure.CORRECT, "over_refusal_judge": Measure.REFUSAL}
)
_FIELD = re.compile(r"`((?:tune|generate)\.\w+)`")


def check(loaded: LoadedSweep, expansion: Expansion, catalogue: Catalogue) -> None:
    """Check a sweep against what is installed and what is on disk.

    Raises:
        SpecError: With every problem, in file order.
    """
    recipes = tuple(dict.fromkeys(cell.recipe.model_copy(update={"seed": 0}) for cell in expansion.cells))
    checker = _Checker(loaded, recipes, catalogue)
    checker.cards()
    checker.sizes()
    checker.categories()
    checker.judges()
    checker.measures()
    checker.objections()
    checker.tuners()
    checker.rows(expansion)
    checker.generators()
    checker.prompts()
    checker.mitigations()
    checker.providers()
    checker.budget()
    checker.problems.stop_if_any()


@dataclass(slots=True)
class _Checker:
    loaded: LoadedSweep
    recipes: tuple[Recipe, ...]  # distinct, seeds aside
    catalogue: Catalogue
    problems: Problems = field(default_factory=Problems)
    unusable: set[tuple[Kind, Use]] = field(default_factory=set)
    work: dict[Recipe, Changes] = field(default_factory=dict)  # of the recipes with mitigations, where nothing is wrong

    def add(self, where: str, what: str, *, code: str, hint: str = "") -> None:
        """Note a problem at a dotted path of the spec."""
        self.problems.add(self.loaded.positions.problem(where, what, code=code, hint=hint))

    def origin(self, path: str, level: Level) -> str:
        """Return where the spec has a level that some cell has."""
        return origin(self.loaded.sweep, path, level)

    def cards(self) -> None:
        """Fetch the card of all that the cells use, which finds the files and folders behind it."""
        fetch: Mapping[Kind, Callable[[Use], object]] = {
            Kind.MODEL: self.catalogue.model,
            Kind.DATA: self.catalogue.source,
            Kind.BENCHMARK: self.catalogue.benchmark,
            Kind.JUDGE: self.catalogue.needs,
        }
        for kind, path, level, use in dict.fromkeys(one for recipe in self.recipes for one in _named(recipe)):
            if (kind, use) in self.unusable:
                continue
            try:
                fetch[kind](use)
            except (OSError, ValueError) as error:
                self.unusable.add((kind, use))
                is_file = isinstance(error, OSError) and use.argument
                hint = "files are looked for from the folder that you are in" if is_file else ""
                what, code = f"cannot read `{use}`", "unreadable"
                if kind is Kind.JUDGE:
                    what, code = f"`{use}` cannot judge", "unusable_judge"
                self.add(self.origin(path, level), f"{what}: {reason(error)}", code=code, hint=hint)

    def sizes(self) -> None:
        """Compare what is asked of each data source with what it has."""
        short: dict[tuple[str, int], dict[Use, int]] = {}
        for section, source, n in dict.fromkeys(one for recipe in self.recipes for one in _drawn(recipe)):
            if (Kind.DATA, source) in self.unusable or isinstance(n, str):
                continue
            if n > (rows := self.catalogue.size(source)):
                short.setdefault((f"{section}.n", n), {})[source] = rows
        for (path, n), sources in short.items():
            lacking = " and of ".join(f"{source}, which has {rows:,}" for source, rows in sources.items())
            hint = f"ask for {min(sources.values()):,} at most, or `exclude` the combination"
            self.add(self.origin(path, n), f"{n:,} examples asked of {lacking}", code="too_few_rows", hint=hint)

    def categories(self) -> None:
        """Require a category of every row of a source that is drawn by category."""
        stratified = (recipe.data.source for recipe in self.recipes if recipe.data is not None and recipe.data.stratify)
        for source in dict.fromkeys(stratified):
            if (Kind.DATA, source) in self.unusable or not (lacking := self.catalogue.uncategorised(source)):
                continue
            what = f"{lacking:,} of the {self.catalogue.size(source):,} rows of `{source}` have no category to draw by"
            hint = "say which column has it, such as `columns: {category: topic}`, or leave `data.stratify` out"
            self.add(self.origin("data.stratify", True), what, code="no_category", hint=hint)  # noqa: FBT003 - the level

    def judges(self) -> None:
        """Require a judge that measures harm, and no judge twice."""
        for judges in dict.fromkeys(recipe.judges for recipe in self.recipes):
            where = self.origin("judges", judges)
            for index, judge in enumerate(judges):
                if judge in judges[:index]:
                    what = f"the judge `{judge}` is listed twice"
                    self.add(f"{where}[{index}]", what, code="duplicate_judge", hint="list it once")
            if all(self.catalogue.measures(judge) is not Measure.HARM for judge in judges):
                hint = "add one that does: `docs/reference/adapters.md` says what each measures"
                self.add(where, "none of these judges measures harm", code="no_harm_judge", hint=hint)

    def measures(self) -> None:
        """Hold the judges of utility and over-refusal to what they are asked to measure."""
        for path, wanted in _MEASURED.items():
            for judge in dict.fromkeys(getattr(recipe, path) for recipe in self.recipes):
                found = self.catalogue.measures(judge)
                if found is not wanted:
                    what = f"`{judge}` measures {found.value}, and here a judge that measures {wanted.value} is needed"
                    self.add(self.origin(path, judge), what, code="wrong_measure")

    def objections(self) -> None:
        """Ask every judge whether it can grade the prompts that it will get, before anything is spent on answers."""
        pairs = dict.fromkeys(
            (found.judges_path, found.judges_level, judge, found.benchmark)
            for recipe in self.recipes
            for found in recipe.measured
            for judge in found.judges
        )
        for path, level, judge, benchmark in pairs:
            if {(Kind.JUDGE, judge), (Kind.BENCHMARK, benchmark)} & self.unusable:
                continue
            objection = self.catalogue.objection(judge, benchmark)
            if objection is not None:
                what = f"`{judge}` cannot grade answers to `{benchmark}`: {objection}"
                self.add(self.origin(path, level), what, code="ungradable", hint="choose another judge or benchmark")

    def tuners(self) -> None:
        """Ask every fine-tuner whether it can tune as the cells have it."""
        told: set[tuple[str, str]] = set()
        for tune, model in dict.fromkeys((recipe.tune, recipe.model) for recipe in self.recipes):
            if tune is None or (Kind.MODEL, model) in self.unusable:
                continue
            objection = self.catalogue.tuning_objection(tune.use, tune.length, model)
            if objection is not None and (tune.use.name, objection) not in told:
                told.add((tune.use.name, objection))
                what = f"`{tune.use.name}` cannot tune so: {objection}"
                self.add(self.blamed(objection, "tune", tune), what, code="untunable")

    def rows(self, expansion: Expansion) -> None:
        """Have every fine-tuner look at the rows that it will train on, as the cells draw them; those that mitigations change are not known."""
        if self.problems.found:
            return
        wanted: dict[tuple[Use, Use, Use], dict[Draw, Draw]] = {}
        for recipe in (cell.recipe for cell in expansion.cells):
            if recipe.tune is None or recipe.mitigations:
                continue
            for source, draw in recipe.data.draws(self.catalogue.size, recipe.seed) if recipe.data is not None else ():
                draws = wanted.setdefault((recipe.tune.use, recipe.model, source), {})
                kind = draw._replace(n=0)
                draws[kind] = max(draws.get(kind, draw), draw)  # the larger sample has the smaller ones
        told: set[tuple[Use, Use, tuple[str, ...]]] = set()
        for (tuner, model, source), draws in wanted.items():
            faults = self.catalogue.row_faults(tuner, model, source, tuple(draws.values()))
            if faults and (model, source, faults) not in told:
                told.add((model, source, faults))
                more = f"; and {len(faults) - 1} more of its rows, or otherwise" if len(faults) > 1 else ""
                what = f"`{tuner.name}` cannot train `{model}` on `{source}`: {faults[0]}{more}"
                self.add(self.origin("data.source", source), what, code="untrainable")

    def prompts(self) -> None:
        """Ask every generator whether it can ask the models the prompts of the benchmarks."""
        if self.problems.found:
            return
        told: set[str] = set()
        for recipe in self.recipes:
            for found in recipe.measured:
                objection = self.catalogue.asking_objection(
                    recipe.generate, recipe.model, found.benchmark, system_prompt(recipe, self.catalogue)
                )
                if objection is not None and objection not in told:
                    told.add(objection)
                    what = f"`{recipe.model}` cannot be asked `{found.benchmark}`: {objection}"
                    self.add(self.origin(found.path, found.benchmark), what, code="unaskable")

    def generators(self) -> None:
        """Ask every generator whether it can ask the models as the cells have it."""
        told: set[str] = set()
        for asked, model in dict.fromkeys((recipe.generate, recipe.model) for recipe in self.recipes):
            if (Kind.MODEL, model) in self.unusable:
                continue
            try:
                self.catalogue.generating_notes(asked.use, asked.decoding, model)
            except ValueError as error:
                if str(error) not in told:
                    told.add(str(error))
                    what = f"`{asked.use.name}` cannot ask `{model}`: {error}"
                    self.add(self.blamed(str(error), "generate", asked), what, code="unaskable")

    def blamed(self, objection: str, section: str, has: TuneRecipe | GenerateRecipe) -> str:
        """Return where the first field stands that an objection names and somebody has set; the adapter's place if none."""
        for path in _FIELD.findall(objection):
            name = path.partition(".")[2]
            level = getattr(has if name in type(has).model_fields else has.use.settings, name, None)
            where = self.origin(path, level)
            if where in self.loaded.positions.values:
                return where
        return self.origin(f"{section}.use", has.use)

    def mitigations(self) -> None:
        """Ask every mitigation whether it can work on the cells that have it."""
        if self.unusable:
            return
        told = set()
        for recipe in (recipe for recipe in self.recipes if recipe.mitigations):
            found = checked(recipe, self.catalogue)
            if isinstance(found, Changes):
                self.work[recipe] = found
                continue
            where = self.origin("mitigations", recipe.mitigations)
            for text in found:
                if (where, text) not in told:
                    told.add((where, text))
                    self.add(where, text, code="refused_mitigation")

    def providers(self) -> None:
        """Look at what leaves this machine; only once everything can be read."""
        if not self.unusable:
            run = self.loaded.sweep.run
            for where, what, code, hint in check_hosted.problems(
                self.recipes, self.work, run, self.origin, self.catalogue
            ):
                self.add(where, what, code=code, hint=hint)

    def budget(self) -> None:
        """Require a price for a budget in dollars: without one it could never bind."""
        run = self.loaded.sweep.run
        is_local = any(not is_hosted(recipe.model) for recipe in self.recipes)
        if run.budget.usd is not None and run.resources.usd_per_device_hour is None and is_local:
            what = "a budget in dollars needs to know what the device costs"
            hint = "set `run.resources.usd_per_device_hour`, or cap `device_hours` or `tokens` instead"
            self.add("run.budget.usd", what, code="budget_without_price", hint=hint)


def _named(recipe: Recipe) -> Iterator[tuple[Kind, str, Level, Use]]:
    """Yield what a recipe names that has a card: its kind, path, level and use."""
    yield Kind.MODEL, "model", recipe.model, recipe.model
    for section, source, _ in _drawn(recipe):
        yield Kind.DATA, f"{section}.source", source, source
    for found in recipe.measured:
        yield Kind.BENCHMARK, found.path, found.benchmark, found.benchmark
        for judge in found.judges:
            yield Kind.JUDGE, found.judges_path, found.judges_level, judge


def _drawn(recipe: Recipe) -> Iterator[tuple[str, Use, Count]]:
    """Yield each section of a recipe that asks a data source for examples, the source, and how many."""
    if recipe.data is not None:
        yield "data", recipe.data.source, recipe.data.n
        if recipe.data.mix is not None:
            yield "data.mix", recipe.data.mix.source, recipe.data.mix.n
