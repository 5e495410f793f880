"""Plan → Forecast: tokens, device-seconds and US dollars, before anything runs, against what is already there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache, reduce
from operator import add

from engine import registry
from engine.domain.adapters import Kind, Use
from engine.domain.cost import Range, Usage
from engine.domain.plan import Plan
from engine.domain.stage import GenerateWork, JudgeWork, RowsWork, SampleWork, Stage, StageKind, TuneWork, WeightsWork
from engine.domain.sweep import Decoding, Length
from engine.plan.catalogue import Catalogue, Lengths
from engine.plan.tariff import Tariff
from engine.ports import Fit, Machine, Pairs, SizedGenerator, SizedTuner, Workload

NOTHING = Range(Usage(), Usage(), Usage())
UNKNOWN = Machine()
CALIBRATION_SPREAD = (0.6, 1.6)
"""Once stages of a kind have run, the rest are forecast between these multiples of what those took."""

QUICK = Range(Usage(device_seconds=0.001), Usage(device_seconds=0.01), Usage(device_seconds=0.1))
"""Drawing or changing a sample and screening answers touch at most some thousand rows."""

EDIT_SECONDS = (1.0, 3.0, 20.0)
"""Editing weights reads and writes them: low, expected and high seconds for 1e9 weights; none takes less than a hundredth."""


@dataclass(frozen=True, slots=True)
class KindForecast:
    """The forecast of one kind of stage.

    Attributes:
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


def stage_forecasts(
    plan: Plan, catalogue: Catalogue, machine: Machine = UNKNOWN, *, measure: bool = True
) -> dict[str, Range]:
    """Return the forecast of every distinct stage, by key; tokens are counted with each model's own tokenizer and template.

    Args:
        plan: The plan.
        catalogue: The adapters' cards.
        machine: What each worker has.
        measure: Whether adapters may measure it, which takes seconds.

    Raises:
        PlanError: A model's tokenizer or template cannot take its rows or prompts.
    """
    estimator = _Estimator(plan.stages, catalogue, machine, measure=measure)
    return {key: estimator(stage) for key, stage in plan.stages.items()}


def stage_fits(plan: Plan, catalogue: Catalogue, machine: Machine, keys: Iterable[str]) -> dict[str, Fit]:
    """Return what some stages take of their workers' memory, by key; those are left out of which it is not known.

    Args:
        plan: The plan.
        catalogue: The adapters' cards.
        machine: What each worker has.
        keys: The stages.
    """
    estimator = _Estimator(plan.stages, catalogue, machine, measure=False)
    found = {key: estimator.fit(plan.stages[key]) for key in keys}
    return {key: fit for key, fit in found.items() if fit is not None}


def calibration(forecasts: Mapping[str, Range], plan: Plan, seconds: Mapping[str, float]) -> dict[StageKind, float]:
    """Return, by kind of stage, how many times the forecast device-seconds its finished stages took."""
    factors = {}
    for kind in StageKind:
        done = [key for key in seconds if key in plan.stages and plan.stages[key].kind is kind]
        expected = sum(forecasts[key].expected.device_seconds for key in done)
        if expected > 0:
            factors[kind] = sum(seconds[key] for key in done) / expected
    return factors


def calibrated(forecasts: Mapping[str, Range], plan: Plan, factors: Mapping[StageKind, float]) -> dict[str, Range]:
    """Return the forecasts with device-seconds corrected by what `calibration` returns."""
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
    """Return the forecast of what is still to run: of the stages whose keys are not in `cached`."""
    kinds = []
    for kind in StageKind:
        keys = [key for key, stage in plan.stages.items() if stage.kind is kind]
        new = [key for key in keys if key not in cached]
        kinds.append(KindForecast(kind, len(keys), len(new), total(forecasts[key] for key in new)))
    return Forecast(
        kinds=tuple(kinds),
        total=total(entry.usage for entry in kinds),
        usd=usd_of((key for key in plan.stages if key not in cached), forecasts, tariff),
        alone=sum(len(cell.stages) for cell in plan.cells),
        calibrated=is_calibrated,
    )


def _corrected(forecast_: Range, factor: float) -> Range:
    seconds = forecast_.expected.device_seconds * factor
    low, high = CALIBRATION_SPREAD
    return Range(
        replace(forecast_.low, device_seconds=seconds * low),
        replace(forecast_.expected, device_seconds=seconds),
        replace(forecast_.high, device_seconds=seconds * high),
    )


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
    return reduce(add, (entry.scaled(count) for entry, count in counted.values()), NOTHING)


class _Estimator:
    """Forecasts stages of one plan; each adapter is asked once per distinct settings and workload."""

    def __init__(self, stages: Mapping[str, Stage], catalogue: Catalogue, machine: Machine, *, measure: bool) -> None:
        self._stages = stages
        self._catalogue = catalogue
        self._machine = machine
        self._measure = measure
        self.tune = cache(self._tune)
        self.generate = cache(self._generate)
        self.judge = cache(self._judge)
        self.weights = cache(self._weights)
        self.tune_fit = cache(self._tune_fit)
        self.generate_fit = cache(self._generate_fit)

    def fit(self, stage: Stage) -> Fit | None:
        """Return what a stage takes of its worker's memory, or None where that is unknown."""
        match stage.work:
            case TuneWork() as work:
                return self.tune_fit(work.base.use, work.use, tuple(self._samples(stage.need("rows"))))
            case GenerateWork() as work:
                return self.generate_fit(work.base.use, work.use, work.decoding, work.benchmark.use, work.system)
            case _:
                return None

    def __call__(self, stage: Stage) -> Range:
        """Return the forecast of a stage."""
        match stage.work:
            case TuneWork() as work:
                samples = tuple(self._samples(stage.need("rows")))
                return self.tune(work.base.use, work.use, work.length, samples)
            case GenerateWork() as work:
                return self.generate(work.base.use, work.use, work.decoding, work.benchmark.use, work.system)
            case JudgeWork() as work:
                answers = self._answers(stage)
                return self.judge(work.use, work.benchmark.use, answers.base.use, answers.decoding)
            case WeightsWork() as work:
                return self.weights(work.base.use)
            case _:
                return QUICK

    def _tune(self, base: Use, tuner: Use, length: Length, samples: tuple[tuple[Use, int], ...]) -> Range:
        drawn = [(self._catalogue.row_lengths(base, source), n) for source, n in samples]
        workload = self._workload(base, drawn)
        return registry.adapter(Kind.TUNER, tuner.name).forecast(tuner.settings, length, workload)

    def _tune_fit(self, base: Use, tuner: Use, samples: tuple[tuple[Use, int], ...]) -> Fit | None:
        adapter = registry.adapter(Kind.TUNER, tuner.name)
        if not isinstance(adapter, SizedTuner):
            return None
        drawn = [(self._catalogue.row_lengths(base, source), n) for source, n in samples]
        return adapter.fit(tuner.settings, self._workload(base, drawn))

    def _generate_fit(
        self, base: Use, generator: Use, decoding: Decoding, benchmark: Use, system: str | None
    ) -> Fit | None:
        adapter = registry.adapter(Kind.GENERATOR, generator.name)
        if not isinstance(adapter, SizedGenerator):
            return None
        drawn = [
            (self._catalogue.prompt_lengths(base, benchmark, system), self._catalogue.benchmark(benchmark).prompts)
        ]
        return adapter.fit(generator.settings, decoding, self._workload(base, drawn))

    def _workload(self, base: Use, drawn: Sequence[tuple[Lengths, int]]) -> Workload:
        """Describe items of some lengths, and how many of each are drawn."""
        card = self._catalogue.model(base)
        return Workload(
            parameters=card.parameters,
            tokens=round(sum(lengths.mean * n for lengths, n in drawn)),
            items=sum(n for _, n in drawn),
            most=sum(lengths.most(n) for lengths, n in drawn),
            longest=max((lengths.longest for lengths, _ in drawn), default=0),
            base=registry.adapter(Kind.MODEL, base.name).locate(base.settings),
            machine=self._machine,
            lengths=tuple(length for lengths, n in drawn for length in lengths.of(n)),
            answer=card.answer,
            measure=self._measure,
        )

    def _samples(self, key: str | None) -> Iterator[tuple[Use, int]]:
        """Yield the sources that rows come from, and how many of each at most: a mitigation may drop some."""
        if key is None:
            return
        work = self._stages[key].work
        if isinstance(work, SampleWork):
            yield work.source.use, work.draw.n
            if work.mix is not None:
                yield work.mix[0].use, work.mix[1].n
        elif isinstance(work, RowsWork):
            for need in self._stages[key].needs:
                yield from self._samples(need)

    def _generate(self, base: Use, generator: Use, decoding: Decoding, benchmark: Use, system: str | None) -> Range:
        prompts = self._catalogue.benchmark(benchmark).prompts
        workload = self._workload(base, [(self._catalogue.prompt_lengths(base, benchmark, system), prompts)])
        return registry.adapter(Kind.GENERATOR, generator.name).forecast(generator.settings, decoding, workload)

    def _judge(self, judge: Use, benchmark: Use, base: Use, decoding: Decoding) -> Range:
        items = self._catalogue.benchmark(benchmark).prompts * decoding.samples
        tokens = round(self._catalogue.prompt_lengths(base, benchmark, None).mean * items)
        pairs = Pairs(items, tokens, decoding.max_new_tokens)
        return registry.adapter(Kind.JUDGE, judge.name).forecast(judge.settings, pairs)

    def _answers(self, stage: Stage) -> GenerateWork:
        """Return how the responses came about that a stage judges, through all screens."""
        while not isinstance(stage.work, GenerateWork):
            key = stage.need("responses")
            if key is None:
                raise ValueError(f"{stage.key} has no responses to judge")
            stage = self._stages[key]
        return stage.work

    def _weights(self, base: Use) -> Range:
        billions = max(0.01, (self._catalogue.model(base).parameters or 1e9) / 1e9)
        low, expected, high = (Usage(device_seconds=seconds * billions) for seconds in EDIT_SECONDS)
        return Range(low, expected, high)
