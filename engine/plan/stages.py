"""The stage book: makes keyed stages from recipes, each distinct one once, and takes the pins that they need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from engine.domain.results import Measure
from engine.domain.stage import Binding, Evaluation, JudgeKey, Pin, Role, Stage, StageKind
from engine.domain.sweep import DataRecipe, Recipe, TuneRecipe
from engine.plan.accounts import without_account
from engine.plan.catalogue import Catalogue
from engine.plan.fingerprint import canonical, payload, pinned, stage_key
from engine.registry import Kind, split_ref

_PINNED = {Kind.DATA: "data", Kind.BENCHMARK: "benchmark", Kind.MODEL: "model"}
LORA_ONLY = ("rank", "alpha", "dropout", "targets", "backend")


@dataclass(frozen=True, slots=True)
class _Work:
    """A stage without its inputs."""

    kind: StageKind
    adapter: str
    revision: int
    settings: str
    binding: Binding


@dataclass(frozen=True, slots=True)
class _Asked:
    """An evaluation without the model that is asked."""

    role: Role
    benchmark: str
    n_prompts: int
    work: _Work
    judges: tuple[tuple[str, Measure, _Work], ...]


@dataclass(slots=True)
class StageBook:
    """Makes stages and remembers them; what cells share is worked out once.

    Attributes:
        catalogue: The adapters' cards.
        stages: Every distinct stage by key, inputs before what needs them.
    """

    catalogue: Catalogue
    stages: dict[str, Stage] = field(default_factory=dict)
    _pins: dict[tuple[str, str], Pin] = field(default_factory=dict)
    _memo: dict[object, str] = field(default_factory=dict)
    _asked_memo: dict[tuple[object, ...], tuple[_Asked, ...]] = field(default_factory=dict)

    @property
    def standin(self) -> bool:
        """Whether a model among the pins is the made-up one."""
        return any(self.catalogue.model(ref).standin for kind, ref in self._pins if kind == "model")

    @property
    def pins(self) -> tuple[Pin, ...]:
        """Everything that was pinned, in the order in which it was needed."""
        return tuple(self._pins.values())

    def sample(self, data: DataRecipe, seed: int) -> str:
        """Return the key of the stage that draws the sample."""
        return self._once(("sample", data, seed), lambda: self._sample(data, seed))

    def _sample(self, data: DataRecipe, seed: int) -> str:
        settings: dict[str, object] = {"n": data.n, "seed": seed, "source": self._source_pin(data.source)}
        if data.mix is not None:
            settings["mix"] = {"n": data.mix.n, "source": self._source_pin(data.mix.source)}
        work = _Work(
            StageKind.SAMPLE,
            split_ref(data.source)[0],
            self.catalogue.revision(Kind.DATA, data.source),
            canonical(settings),
            Binding(data=data.source, mix="" if data.mix is None else data.mix.source),
        )
        return self._add(work, ())

    def tune(self, recipe: Recipe, tune: TuneRecipe, sample: str) -> str:
        """Return the key of the stage that tunes `recipe.model` on `sample`."""
        text = self._once(("tune", tune), lambda: canonical(_without_adapter(_effective(tune)), "tune"))
        pin = self._model_pin(recipe.model)
        work = _Work(
            StageKind.TUNE,
            split_ref(tune.adapter)[0],
            self.catalogue.revision(Kind.TUNER, tune.adapter),
            f'{{"model":"{pin}","seed":{recipe.seed},"tune":{text}}}',  # canonical: names in order, parts canonical
            Binding(model=recipe.model),
        )
        return self._add(work, (sample,))

    def evaluate(self, recipe: Recipe, system: str | None, tune: str | None) -> tuple[Evaluation, ...]:
        """Return the evaluations of the tuned model (of the base model when `tune` is None)."""
        inputs = () if tune is None else (tune,)
        return tuple(self._evaluation(asked, inputs) for asked in self._asked(recipe, system))

    def _evaluation(self, asked: _Asked, inputs: tuple[str, ...]) -> Evaluation:
        generate = self._add(asked.work, inputs)
        judges = tuple(
            JudgeKey(judge, measures, self._add(work, (generate,))) for judge, measures, work in asked.judges
        )
        return Evaluation(asked.role, asked.benchmark, asked.n_prompts, generate, judges)

    def _asked(self, recipe: Recipe, system: str | None) -> tuple[_Asked, ...]:
        """What is asked of a model, whatever it was tuned on: cells share it, so it is worked out once."""
        # Greedy answers do not depend on the seed, so cells share them across seeds where the model is the same.
        seed = recipe.seed if recipe.generate.temperature > 0 else None
        measured = (recipe.benchmark, recipe.judges, recipe.utility, recipe.over_refusal)
        judged = (recipe.utility_judge, recipe.over_refusal_judge)
        memo = (recipe.model, recipe.generate, system, seed, *measured, *judged)
        if memo not in self._asked_memo:
            roles = [(Role.HARM, recipe.benchmark, recipe.judges)]
            if recipe.utility is not None:
                roles.append((Role.UTILITY, recipe.utility, (recipe.utility_judge,)))
            if recipe.over_refusal is not None:
                roles.append((Role.OVER_REFUSAL, recipe.over_refusal, (recipe.over_refusal_judge,)))
            self._asked_memo[memo] = tuple(
                _Asked(
                    role,
                    benchmark,
                    self.catalogue.benchmark(benchmark).prompts,
                    self._generate(recipe, benchmark, system, seed),
                    tuple((judge, self.catalogue.measures(judge), self._judge(judge, benchmark)) for judge in judges),
                )
                for role, benchmark, judges in roles
            )
        return self._asked_memo[memo]

    def _generate(self, recipe: Recipe, benchmark: str, system: str | None, seed: int | None) -> _Work:
        decoding = recipe.generate
        settings: dict[str, object] = {
            "benchmark": self._benchmark_pin(benchmark),
            "generate": decoding.model_dump(exclude_defaults=True, exclude={"adapter", "system"}),
            "model": self._model_pin(recipe.model),
            "system": system,
        }
        if seed is not None:
            settings["seed"] = seed
        return _Work(
            StageKind.GENERATE,
            split_ref(decoding.adapter)[0],
            self.catalogue.revision(Kind.GENERATOR, decoding.adapter),
            canonical(settings),
            Binding(model=recipe.model, benchmark=benchmark, benchmark_pin=self._benchmark_pin(benchmark)),
        )

    def _judge(self, judge: str, benchmark: str) -> _Work:
        return _Work(
            StageKind.JUDGE,
            without_account(judge),
            self.catalogue.revision(Kind.JUDGE, judge),
            canonical(self.catalogue.judging(judge)),
            Binding(benchmark=benchmark, benchmark_pin=self._benchmark_pin(benchmark), judge=judge),
        )

    def _source_pin(self, ref: str) -> str:
        card = self.catalogue.source(ref)
        return self._pin(
            Kind.DATA,
            ref,
            card.pin,
            f"{card.rows} {'row' if card.rows == 1 else 'rows'}, tier {card.tier}, licence {card.licence}",
        )

    def _benchmark_pin(self, ref: str) -> str:
        card = self.catalogue.benchmark(ref)
        return self._pin(
            Kind.BENCHMARK,
            ref,
            card.pin,
            f"{card.prompts} {'prompt' if card.prompts == 1 else 'prompts'}, licence {card.licence}",
        )

    def _model_pin(self, ref: str) -> str:
        card = self.catalogue.model(ref)
        return self._pin(Kind.MODEL, ref, card.pin, card.detail)

    def _pin(self, kind: Kind, ref: str, pin: str, detail: str) -> str:
        word = _PINNED[kind]
        self._pins.setdefault((word, ref), Pin(word, ref, pin, detail))
        return pinned(pin, self.catalogue.revision(kind, ref))

    def _once(self, memo: object, make: Callable[[], str]) -> str:
        if memo not in self._memo:
            self._memo[memo] = make()
        return self._memo[memo]

    def _add(self, work: _Work, inputs: tuple[str, ...]) -> str:
        key = stage_key(work.kind, payload(work.kind, work.adapter, work.revision, work.settings, inputs))
        if key not in self.stages:
            self.stages[key] = Stage(key, work.kind, work.adapter, work.revision, work.settings, inputs, work.binding)
        return key


def _effective(tune: TuneRecipe) -> TuneRecipe:
    """Drop what has no effect, so that recipes that do the same work have the same key."""
    if tune.method == "full":
        return tune.model_copy(update={name: TuneRecipe.model_fields[name].default for name in LORA_ONLY})
    return tune.model_copy(update={"alpha": None}) if tune.alpha == 2 * tune.rank else tune


def _without_adapter(tune: TuneRecipe) -> dict[str, object]:
    return tune.model_dump(exclude_defaults=True, exclude={"adapter"})
