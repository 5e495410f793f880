"""Stage → forecast of its usage: each adapter is asked once per distinct settings and workload."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from engine import registry
from engine.domain.adapters import Kind, Use
from engine.domain.cost import Range, Usage
from engine.domain.stage import GenerateWork, JudgeWork, RowsWork, SampleWork, Stage, TuneWork, WeightsWork
from engine.plan.catalogue import Catalogue
from engine.ports import Pairs, Workload

QUICK = Range(Usage(device_seconds=0.001), Usage(device_seconds=0.01), Usage(device_seconds=0.1))
"""Drawing or changing a sample and screening answers touch at most some thousand rows."""

EDIT_SECONDS = (0.5, 2.0, 20.0)
"""Editing weights reads and writes them: low, expected and high seconds for a model of up to 1e9 weights; more take longer."""


class Estimator:
    """Forecasts stages of one plan.

    Args:
        stages: Every distinct stage by key.
        catalogue: The adapters' cards.
    """

    def __init__(self, stages: Mapping[str, Stage], catalogue: Catalogue) -> None:
        """Start with nothing forecast."""
        self._stages = stages
        self._catalogue = catalogue
        self._memo: dict[object, Range] = {}

    def __call__(self, stage: Stage) -> Range:
        """Return the forecast of a stage."""
        match stage.work:
            case TuneWork() as work:
                return self._tune(stage, work)
            case GenerateWork() as work:
                return self._generate(work)
            case JudgeWork() as work:
                return self._judge(stage, work)
            case WeightsWork() as work:
                return self._weights(work)
            case _:
                return QUICK

    def _tune(self, stage: Stage, work: TuneWork) -> Range:
        samples = tuple(self._samples(stage.need("rows")))
        memo = ("tune", work.base, work.use, work.length, samples)
        if memo not in self._memo:
            tokens = sum(self._catalogue.mean_row_tokens(work.base.use, source) * n for source, n in samples)
            parameters = self._catalogue.model(work.base.use).parameters
            workload = Workload(parameters, round(tokens), sum(n for _, n in samples))
            tuner = registry.adapter(Kind.TUNER, work.use.name)
            self._memo[memo] = tuner.forecast(work.use.settings, work.length, workload)
        return self._memo[memo]

    def _samples(self, key: str | None) -> Iterator[tuple[Use, int]]:
        """Yield the sources that rows come from, and how many of each at most: a mitigation may drop some."""
        if key is None:
            return
        work = self._stages[key].work
        if isinstance(work, SampleWork):
            yield work.source.use, work.n
            if work.mix is not None:
                yield work.mix[0].use, work.mix[1]
        elif isinstance(work, RowsWork):
            for need in self._stages[key].needs:
                yield from self._samples(need)

    def _generate(self, work: GenerateWork) -> Range:
        memo = ("generate", work.base, work.use, work.decoding, work.benchmark, work.system)
        if memo not in self._memo:
            tokens = self._catalogue.prompt_tokens(work.base.use, work.benchmark.use, work.system)
            prompts = self._catalogue.benchmark(work.benchmark.use).prompts
            workload = Workload(self._catalogue.model(work.base.use).parameters, tokens, prompts)
            generator = registry.adapter(Kind.GENERATOR, work.use.name)
            self._memo[memo] = generator.forecast(work.use.settings, work.decoding, workload)
        return self._memo[memo]

    def _judge(self, stage: Stage, work: JudgeWork) -> Range:
        answers = self._answers(stage)
        samples, longest = answers.decoding.samples, answers.decoding.max_new_tokens
        memo = ("judge", work.use, answers.base, work.benchmark, samples, longest)
        if memo not in self._memo:
            tokens = self._catalogue.prompt_tokens(answers.base.use, work.benchmark.use, None)
            items = self._catalogue.benchmark(work.benchmark.use).prompts * samples
            judge = registry.adapter(Kind.JUDGE, work.use.name)
            self._memo[memo] = judge.forecast(work.use.settings, Pairs(items, tokens * samples, longest))
        return self._memo[memo]

    def _answers(self, stage: Stage) -> GenerateWork:
        """Return how the responses came about that a stage judges, through all screens."""
        while not isinstance(stage.work, GenerateWork):
            key = stage.need("responses")
            if key is None:
                message = f"{stage.key} has no responses to judge"
                raise ValueError(message)
            stage = self._stages[key]
        return stage.work

    def _weights(self, work: WeightsWork) -> Range:
        billions = max(1.0, (self._catalogue.model(work.base.use).parameters or 0) / 1e9)
        memo = ("weights", billions)
        if memo not in self._memo:
            low, expected, high = (Usage(device_seconds=seconds * billions) for seconds in EDIT_SECONDS)
            self._memo[memo] = Range(low, expected, high)
        return self._memo[memo]
