"""Plan → Forecast: tokens, device-seconds and US dollars, before anything runs, against what is already there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import reduce
from operator import add

from engine import registry
from engine.domain.cost import Usage
from engine.domain.stage import Evaluation, Plan, PlannedCell, Range, StageKind
from engine.domain.sweep import DataRecipe, Recipe, TuneRecipe
from engine.plan.catalogue import Catalogue
from engine.plan.tariff import Tariff
from engine.ports import Pairs, Workload
from engine.registry import Kind

NOTHING = Range(Usage(), Usage(), Usage())
SAMPLE = Range(Usage(device_seconds=0.001), Usage(device_seconds=0.01), Usage(device_seconds=0.1))
"""Drawing a sample reads a file of at most some thousand rows."""

CALIBRATION_SPREAD = (0.6, 1.6)
"""Once stages of a kind have run, the rest are forecast between these multiples of what those took."""


@dataclass(frozen=True, slots=True)
class KindForecast:
    """The forecast of one kind of stage.

    Attributes:
        kind: The kind.
        stages: Distinct stages of this kind in the plan.
        new: Those that have not run yet.
        usage: What the new ones will use.
    """

    kind: StageKind
    stages: int
    new: int
    usage: Range


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the stages that have not run yet will use.

    Attributes:
        kinds: By kind of stage, in order.
        total: Their sum.
        usd: (low, expected, high) US dollars; None when no price is known.
        alone: Stages that the cells would need if none were shared: what sharing saves against.
        calibrated: True when device-seconds come from finished stages of this run, not from the adapters' defaults.
    """

    kinds: tuple[KindForecast, ...]
    total: Range
    usd: tuple[Decimal, Decimal, Decimal] | None
    alone: int
    calibrated: bool

    @property
    def stages(self) -> int:
        """Distinct stages."""
        return sum(entry.stages for entry in self.kinds)

    @property
    def new(self) -> int:
        """Stages that have not run yet."""
        return sum(entry.new for entry in self.kinds)


def stage_forecasts(plan: Plan, catalogue: Catalogue) -> dict[str, Range]:
    """Return the forecast of every distinct stage, by key.

    Args:
        plan: The plan.
        catalogue: The adapters' cards; tokens are counted with each model's own tokenizer.
    """
    estimator = _Estimator(catalogue)
    forecasts: dict[str, Range] = {}
    for cell in plan.cells:
        for key, forecast in estimator.cell(cell):
            forecasts.setdefault(key, forecast)
    return forecasts


def calibration(forecasts: Mapping[str, Range], plan: Plan, seconds: Mapping[str, float]) -> dict[StageKind, float]:
    """Return, by kind of stage, how many times the forecast device-seconds its finished stages took.

    Args:
        forecasts: Forecast by stage key.
        plan: The plan.
        seconds: Measured device-seconds by stage key.
    """
    factors = {}
    for kind in StageKind:
        done = [key for key in seconds if key in plan.stages and plan.stages[key].kind is kind]
        expected = sum(forecasts[key].expected.device_seconds for key in done)
        if expected > 0:
            factors[kind] = sum(seconds[key] for key in done) / expected
    return factors


def calibrated(forecasts: Mapping[str, Range], plan: Plan, factors: Mapping[StageKind, float]) -> dict[str, Range]:
    """Return the forecasts with device-seconds corrected by what finished stages of the same kind took.

    Args:
        forecasts: Forecast by stage key.
        plan: The plan.
        factors: As `calibration` returns them.
    """
    return {
        key: _corrected(forecast, factors[plan.stages[key].kind]) if plan.stages[key].kind in factors else forecast
        for key, forecast in forecasts.items()
    }


def forecast(
    plan: Plan,
    forecasts: Mapping[str, Range],
    cached: AbstractSet[str],
    tariff: Tariff,
    *,
    is_calibrated: bool = False,
) -> Forecast:
    """Return the forecast of what is still to run.

    Args:
        plan: The plan.
        forecasts: Forecast by stage key.
        cached: Keys of the stages that need not run.
        tariff: What stages cost.
        is_calibrated: Whether the forecasts were corrected by finished stages.
    """
    kinds = []
    for kind in StageKind:
        keys = [key for key, stage in plan.stages.items() if stage.kind is kind]
        new = [key for key in keys if key not in cached]
        kinds.append(KindForecast(kind, len(keys), len(new), total(forecasts[key] for key in new)))
    return Forecast(
        kinds=tuple(kinds),
        total=total(entry.usage for entry in kinds),
        usd=usd_of((key for key in plan.stages if key not in cached), forecasts, tariff),
        alone=sum(1 for cell in plan.cells for _ in cell.stage_keys()),
        calibrated=is_calibrated,
    )


class _Estimator:
    """Asks each adapter once per distinct settings, because cells repeat them."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._memo: dict[object, Range] = {}

    def cell(self, cell: PlannedCell) -> Iterator[tuple[str, Range]]:
        recipe = cell.cell.recipe
        if cell.sample is not None:
            yield cell.sample, SAMPLE
        if cell.tune is not None and recipe.data is not None and recipe.tune is not None:
            yield cell.tune, self._tune(recipe.model, recipe.data, recipe.tune)
        for evaluation in cell.evaluations:
            yield evaluation.generate, self._generate(recipe, evaluation, cell.system)
            for judge in evaluation.judges:
                yield judge.key, self._judge(judge.judge, recipe, evaluation)

    def _tune(self, model: str, data: DataRecipe, tune: TuneRecipe) -> Range:
        memo = ("tune", model, data, tune)
        if memo not in self._memo:
            tokens = self._catalogue.mean_row_tokens(model, data.source) * data.n
            items = data.n
            if data.mix is not None:
                tokens += self._catalogue.mean_row_tokens(model, data.mix.source) * data.mix.n
                items += data.mix.n
            workload = Workload(self._catalogue.model(model).parameters, round(tokens), items)
            self._memo[memo] = registry.adapter(Kind.TUNER, tune.adapter).forecast(tune, workload)
        return self._memo[memo]

    def _generate(self, recipe: Recipe, evaluation: Evaluation, system: str | None) -> Range:
        memo = ("generate", recipe.model, recipe.generate, evaluation.benchmark, system)
        if memo not in self._memo:
            tokens = self._catalogue.prompt_tokens(recipe.model, evaluation.benchmark, system)
            workload = Workload(self._catalogue.model(recipe.model).parameters, tokens, evaluation.n_prompts)
            generator = registry.adapter(Kind.GENERATOR, recipe.generate.adapter)
            self._memo[memo] = generator.forecast(recipe.generate, workload)
        return self._memo[memo]

    def _judge(self, judge: str, recipe: Recipe, evaluation: Evaluation) -> Range:
        samples, longest = recipe.generate.samples, recipe.generate.max_new_tokens
        memo = ("judge", judge, recipe.model, evaluation.benchmark, samples, longest)
        if memo not in self._memo:
            tokens = self._catalogue.prompt_tokens(recipe.model, evaluation.benchmark, None)
            pairs = Pairs(evaluation.n_prompts * samples, tokens * samples, longest)
            self._memo[memo] = registry.adapter(Kind.JUDGE, judge).forecast(pairs)
        return self._memo[memo]


def _corrected(forecast_: Range, factor: float) -> Range:
    seconds = forecast_.expected.device_seconds * factor
    low, high = CALIBRATION_SPREAD
    return Range(
        _with_seconds(forecast_.low, seconds * low),
        _with_seconds(forecast_.expected, seconds),
        _with_seconds(forecast_.high, seconds * high),
    )


def _with_seconds(usage: Usage, seconds: float) -> Usage:
    return replace(usage, device_seconds=seconds)


def usd_of(
    keys: Iterable[str], forecasts: Mapping[str, Range], tariff: Tariff
) -> tuple[Decimal, Decimal, Decimal] | None:
    """Return (low, expected, high) US dollars of stages; None when the price of one is unknown."""
    if not tariff.is_known:
        return None
    counted: dict[tuple[int, object], tuple[str, int]] = {}  # by what is used and at what price
    for key in keys:
        what = id(forecasts[key]), tariff.price(key)
        counted[what] = key, counted.get(what, (key, 0))[1] + 1
    low = expected = high = Decimal()
    for key, count in counted.values():
        ahead = forecasts[key]
        charges = [tariff.charge(key, usage).usd for usage in (ahead.low, ahead.expected, ahead.high)]
        if None in charges:
            return None
        cheap, likely, dear = (count * (usd or 0) for usd in charges)
        low, expected, high = low + cheap, expected + likely, high + dear
    return low, expected, high


def total(ranges: Iterable[Range]) -> Range:
    """Return the sum of forecasts."""
    # Forecasts are shared objects, so counting first makes 800,000 additions a few hundred.
    counted: dict[int, tuple[Range, int]] = {}
    for entry in ranges:
        counted[id(entry)] = (entry, counted.get(id(entry), (entry, 0))[1] + 1)
    return reduce(add, (_times(entry, count) for entry, count in counted.values()), NOTHING)


def _times(entry: Range, count: int) -> Range:
    return Range(entry.low.scaled(count), entry.expected.scaled(count), entry.high.scaled(count))
