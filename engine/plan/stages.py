"""The stage book: makes keyed stages from what cells ask, each distinct one once, and takes the pins that they need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache

from engine.domain.adapters import OUTSIDE, Kind, Use, kind_of
from engine.domain.data import DataRecipe
from engine.domain.plan import Pin
from engine.domain.stage import (
    KINDS,
    GenerateWork,
    JudgeWork,
    Pinned,
    RowsWork,
    SampleWork,
    ScreenWork,
    Stage,
    TuneWork,
    WeightsWork,
    Work,
    WorkerKind,
)
from engine.domain.sweep import Decoding, GenerateRecipe, TuneRecipe
from engine.plan.catalogue import Catalogue
from engine.plan.fingerprint import canonical, payload, pinned, stage_key

Inputs = Sequence[tuple[str, str | None]]

_PINNED = {Kind.DATA: "data", Kind.BENCHMARK: "benchmark", Kind.MODEL: "model"}
_GREEDY = Decoding()


@dataclass(frozen=True, slots=True)
class Generate:
    """How a benchmark is answered: the work, and the canonical JSON of its settings."""

    work: GenerateWork
    settings: str


class StageBook:
    """Makes stages and remembers them; what cells share is worked out once.

    Attributes:
        catalogue: The adapters' cards.
        stages: Every distinct stage by key, inputs before what needs them.
        sample: Returns the key of the stage that draws a sample, from its section of the recipe and the seed.
        generate: Returns how a benchmark is answered, whichever model on a base answers.
        pin: Returns a model, data source or benchmark with its pin, which is noted.
        settings: Returns the canonical JSON of an adapter's settings for a key: no defaults, no places, other adapters pinned.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        """Begin with no stage."""
        self.catalogue = catalogue
        self.stages: dict[str, Stage] = {}
        self._pins: dict[tuple[Kind, Use], Pin] = {}
        self.sample = cache(self._sample)
        self.generate = cache(self._generate)
        self.pin = cache(self._pin)
        self.settings = cache(self._canonical)

    @property
    def standin(self) -> bool:
        """Whether a model among the pins is a made-up one."""
        return any(self.catalogue.model(use).standin for kind, use in self._pins if kind is Kind.MODEL)

    @property
    def pins(self) -> tuple[Pin, ...]:
        """Everything that was pinned, in the order in which it was needed."""
        return tuple(self._pins.values())

    def _sample(self, data: DataRecipe, seed: int) -> str:
        (_, draw), *mixed = data.draws(self.catalogue.size, seed)
        source = self.pin(Kind.DATA, data.source)
        settings: dict[str, object] = {"n": draw.n, "seed": draw.seed, "source": source.pin}
        if draw.is_stratified:
            settings["stratify"] = True
        mix = None
        for use, drawn in mixed:
            mix = self.pin(Kind.DATA, use), drawn
            settings["mix"] = {"n": drawn.n, "source": mix[0].pin}
        work = SampleWork(source, draw, mix)
        return self._add(Kind.DATA, data.source.name, work, canonical(settings), ())

    def rows(self, use: Use, seed: int, rows: str, further: Mapping[str, str]) -> str:
        """Return the key of the stage in which a mitigation changes rows."""
        settings = f'{{"seed":{seed},"settings":{self.settings(Kind.MITIGATION, use)}}}'
        inputs = (("rows", rows), *further.items())
        return self._add(Kind.MITIGATION, use.name, RowsWork(use, seed), settings, inputs)

    def tune(self, base: Use, tune: TuneRecipe, seed: int, rows: str, model: str | None) -> str:
        """Return the key of the stage that tunes a model (the base when None) on rows."""
        pin = self.pin(Kind.MODEL, base)
        length = canonical(tune.length.plain())
        text = self.settings(Kind.TUNER, tune.use)
        settings = f'{{"length":{length},"model":"{pin.pin}","seed":{seed},"settings":{text}}}'
        work = TuneWork(pin, tune.use, tune.length, seed)
        return self._add(Kind.TUNER, tune.use.name, work, settings, (("rows", rows), ("model", model)))

    def weights(self, base: Use, use: Use, model: str | None, start: str | None) -> str:
        """Return the key of the stage in which a mitigation edits a model's weights."""
        pin = self.pin(Kind.MODEL, base)
        settings = f'{{"model":"{pin.pin}","settings":{self.settings(Kind.MITIGATION, use)}}}'
        inputs = (("model", model), ("start", start))
        return self._add(Kind.MITIGATION, use.name, WeightsWork(pin, use), settings, inputs)

    def _generate(self, base: Use, benchmark: Use, asked: GenerateRecipe, system: str | None, seed: int) -> Generate:
        # Greedy answers do not depend on the seed, so cells share them across seeds where the model is the same.
        drawn = seed if asked.temperature > 0 else None
        pin, prompts = self.pin(Kind.MODEL, base), self.pin(Kind.BENCHMARK, benchmark)
        decoding = {name: value for name, value in asdict(asked.decoding).items() if value != getattr(_GREEDY, name)}
        settings: dict[str, object] = {
            "benchmark": prompts.pin,
            "decoding": decoding,
            "model": pin.pin,
            "settings": self._values(Kind.GENERATOR, asked.use),
            "system": system,
        }
        if drawn is not None:
            settings["seed"] = drawn
        return Generate(GenerateWork(pin, prompts, asked.use, asked.decoding, system, drawn), canonical(settings))

    def answers(self, how: Generate, model: str | None) -> str:
        """Return the key of the stage in which a model (the base when None) answers."""
        return self._add(Kind.GENERATOR, how.work.use.name, how.work, how.settings, (("model", model),))

    def screen(self, use: Use, benchmark: Use, responses: str, verdicts: str | None) -> str:
        """Return the key of the stage in which a mitigation screens responses."""
        work = ScreenWork(use, self.pin(Kind.BENCHMARK, benchmark))
        settings = f'{{"settings":{self.settings(Kind.MITIGATION, use)}}}'
        inputs = (("responses", responses), ("verdicts", verdicts))
        return self._add(Kind.MITIGATION, use.name, work, settings, inputs)

    def judge(self, use: Use, benchmark: Use, responses: str) -> str:
        """Return the key of the stage in which responses are judged."""
        needs = self.catalogue.needs(use)
        work = JudgeWork(use, self.pin(Kind.BENCHMARK, benchmark), needs.model, needs.pin)
        settings = f'{{"settings":{self.settings(Kind.JUDGE, use)}}}'
        return self._add(Kind.JUDGE, use.name, work, settings, (("responses", responses),))

    def _pin(self, kind: Kind, use: Use) -> Pinned:
        pin, detail = self._card(kind, use)
        self._pins[kind, use] = Pin(_PINNED[kind], str(use), pin, detail)
        return Pinned(use, pinned(pin, self.catalogue.revision(kind, use.name)))

    def _card(self, kind: Kind, use: Use) -> tuple[str, str]:
        if kind is Kind.DATA:
            source = self.catalogue.source(use)
            shape = f"{source.shape} shape, " if source.shape else ""
            return source.pin, f"{shape}{_count(source.rows, 'row')}, tier {source.tier}, licence {source.licence}"
        if kind is Kind.BENCHMARK:
            benchmark = self.catalogue.benchmark(use)
            return benchmark.pin, f"{_count(benchmark.prompts, 'prompt')}, licence {benchmark.licence}"
        model = self.catalogue.model(use)
        return model.pin, model.detail

    def _canonical(self, kind: Kind, use: Use) -> str:
        return canonical(self._values(kind, use))

    def _values(self, kind: Kind, use: Use) -> dict[str, object]:
        effective = use.settings.effective()
        fields = type(effective).model_fields
        values = {
            name: self._value(kind_of(fields[name]), value)
            for name, value in effective.written().items()
            if OUTSIDE not in fields[name].metadata
        }
        if kind is Kind.JUDGE and (pin := self.catalogue.needs(use).pin):
            values["pin"] = pin
        return values

    def _value(self, kind: Kind | None, value: object) -> object:
        if isinstance(value, tuple):
            return [self._value(kind, item) for item in value]
        if not isinstance(value, Use) or kind is None:
            return value
        if kind in _PINNED:
            return self.pin(kind, value).pin
        named = {"use": value.name, "revision": self.catalogue.revision(kind, value.name)}
        return {**named, "settings": self._values(kind, value)}

    def _add(self, kind: Kind, adapter: str, work: Work, settings: str, inputs: Inputs) -> str:
        revision = self.catalogue.revision(kind, adapter)
        given = tuple((name, key) for name, key in inputs if key is not None)
        stage_kind = KINDS[type(work)]
        text = payload(stage_kind, adapter, revision, settings, given)
        key = stage_key(stage_kind, text)
        if key not in self.stages:
            self.stages[key] = Stage(key, adapter, revision, work, given, text, self._runs_on(work))
        return key

    def _runs_on(self, work: Work) -> WorkerKind:
        """Return the kind of worker that does some work."""
        if isinstance(work, JudgeWork):
            return self.catalogue.needs(work.use).worker
        return WorkerKind.MODEL if isinstance(work, TuneWork | WeightsWork | GenerateWork) else WorkerKind.CPU


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
