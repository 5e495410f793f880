"""The stage book: makes keyed stages from recipes, each distinct one once, and takes the pins that they need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from engine.domain.stage import Binding, Evaluation, JudgeKey, Pin, Role, Stage, StageKind
from engine.domain.sweep import DataRecipe, GenerateRecipe, Recipe, TuneRecipe
from engine.plan.catalogue import Catalogue
from engine.plan.fingerprint import canonical, payload, stage_key
from engine.plugins import Kind, split_ref

LORA_ONLY = ("rank", "alpha", "dropout", "targets")
T = TypeVar("T")


@dataclass(slots=True)
class StageBook:
    """Makes stages and remembers them; settings texts are kept too, because cells share most of them.

    Attributes:
        catalogue: The adapters' cards.
        stages: Every distinct stage by key, inputs before what needs them.
    """

    catalogue: Catalogue
    stages: dict[str, Stage] = field(default_factory=dict)
    _pins: dict[tuple[str, str], Pin] = field(default_factory=dict)
    _memo: dict[object, str] = field(default_factory=dict)

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
        return self._add(
            StageKind.SAMPLE,
            (split_ref(data.source)[0], self.catalogue.revision(Kind.DATA, data.source)),
            canonical(settings),
            (),
            Binding(data=data.source, mix="" if data.mix is None else data.mix.source),
        )

    def tune(self, recipe: Recipe, tune: TuneRecipe, sample: str) -> str:
        """Return the key of the stage that tunes `recipe.model` on `sample`."""
        text = self._once(("tune", tune), lambda: canonical(_without_adapter(_effective(tune)), "tune"))
        pin = self._model_pin(recipe.model)
        bound = self.stages[sample].binding
        return self._add(
            StageKind.TUNE,
            (split_ref(tune.adapter)[0], self.catalogue.revision(Kind.TUNER, tune.adapter)),
            f'{{"model":"{pin}","seed":{recipe.seed},"tune":{text}}}',  # canonical: names in order, parts canonical
            (sample,),
            Binding(model=recipe.model, data=bound.data, mix=bound.mix),
        )

    def evaluate(self, recipe: Recipe, system: str | None, tune: str | None) -> tuple[Evaluation, ...]:
        """Return the evaluations of the tuned model (of the base model when `tune` is None)."""
        asked = [(Role.HARM, recipe.benchmark, recipe.judges)]
        if recipe.utility is not None:
            asked.append((Role.UTILITY, recipe.utility, (recipe.utility_judge,)))
        if recipe.over_refusal is not None:
            asked.append((Role.OVER_REFUSAL, recipe.over_refusal, (recipe.over_refusal_judge,)))
        evaluations = []
        for role, benchmark, judges in asked:
            generate = self._generate(recipe, benchmark, system, tune)
            keys = tuple(
                JudgeKey(judge, self.catalogue.measures(judge), self._judge(judge, benchmark, generate))
                for judge in judges
            )
            evaluations.append(Evaluation(role, benchmark, self._n_prompts(benchmark), generate, keys))
        return tuple(evaluations)

    def _generate(self, recipe: Recipe, benchmark: str, system: str | None, tune: str | None) -> str:
        decoding = recipe.generate
        # Greedy answers do not depend on the seed, so cells share them across seeds where the model is the same.
        seed = recipe.seed if decoding.temperature > 0 else None
        memo = ("generate", decoding, recipe.model, benchmark, system, seed)
        text = self._once(memo, lambda: self._generate_settings(decoding, recipe.model, benchmark, system, seed))
        return self._add(
            StageKind.GENERATE,
            (split_ref(decoding.adapter)[0], self.catalogue.revision(Kind.GENERATOR, decoding.adapter)),
            text,
            () if tune is None else (tune,),
            Binding(model=recipe.model, benchmark=benchmark),
        )

    def _generate_settings(  # what decides the answers
        self, decoding: GenerateRecipe, model: str, benchmark: str, system: str | None, seed: int | None
    ) -> str:
        settings: dict[str, object] = {
            "benchmark": self._benchmark_pin(benchmark),
            "generate": decoding.model_dump(exclude_defaults=True, exclude={"adapter", "system"}),
            "model": self._model_pin(model),
            "system": system,
        }
        if seed is not None:
            settings["seed"] = seed
        return canonical(settings)

    def _judge(self, judge: str, benchmark: str, generate: str) -> str:
        name, argument = split_ref(judge)
        text = self._once(("judge", argument), lambda: canonical({"argument": argument} if argument else {}))
        return self._add(
            StageKind.JUDGE,
            (name, self.catalogue.revision(Kind.JUDGE, judge)),
            text,
            (generate,),
            Binding(benchmark=benchmark, judge=judge),
        )

    def _n_prompts(self, benchmark: str) -> int:
        return self.catalogue.benchmark(benchmark).prompts

    def _source_pin(self, ref: str) -> str:
        card = self.catalogue.source(ref)
        return self._pin("data", ref, card.pin, f"{card.rows} rows, tier {card.tier}, licence {card.licence}")

    def _benchmark_pin(self, ref: str) -> str:
        card = self.catalogue.benchmark(ref)
        return self._pin("benchmark", ref, card.pin, f"{card.prompts} prompts, licence {card.licence}")

    def _model_pin(self, ref: str) -> str:
        card = self.catalogue.model(ref)
        return self._pin("model", ref, card.pin, card.detail)

    def _pin(self, kind: str, ref: str, pin: str, detail: str) -> str:
        self._pins.setdefault((kind, ref), Pin(kind, ref, pin, detail))
        return pin

    def _once(self, memo: object, make: Callable[[], str]) -> str:
        if memo not in self._memo:
            self._memo[memo] = make()
        return self._memo[memo]

    def _add(
        self, kind: StageKind, adapter: tuple[str, int], settings: str, inputs: tuple[str, ...], binding: Binding
    ) -> str:
        name, revision = adapter
        key = stage_key(kind, payload(kind, name, revision, settings, inputs))
        if key not in self.stages:
            self.stages[key] = Stage(key, kind, name, revision, settings, inputs, binding)
        return key


def _effective(tune: TuneRecipe) -> TuneRecipe:
    """Drop what has no effect, so that recipes that do the same work have the same key."""
    if tune.method == "full":
        return tune.model_copy(update={name: TuneRecipe.model_fields[name].default for name in LORA_ONLY})
    return tune.model_copy(update={"alpha": None}) if tune.alpha == 2 * tune.rank else tune


def _without_adapter(tune: TuneRecipe) -> dict[str, object]:
    return tune.model_dump(exclude_defaults=True, exclude={"adapter"})
