"""What a person writes: a Sweep of Axes over a Recipe, and the RunSettings. And what it means: Cells.

Everything in `Recipe` is part of a cell's key, but for places (`engine.domain.adapters.OUTSIDE`) and permissions: changing it
makes another cell. Nothing in `RunSettings` is. Defaults are no part of a key either: a default belongs to the adapter's
integer `revision`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, ClassVar, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, ValidationInfo, field_validator, model_validator

from engine.domain.adapters import (
    AdapterRef,
    BenchmarkUse,
    GeneratorUse,
    JudgeUse,
    MitigationUse,
    ModelUse,
    TunerUse,
    Use,
    WithAdapter,
    adapters_of,
)
from engine.domain.data import DataRecipe
from engine.domain.quota import Quota
from engine.domain.written import Written

Level: TypeAlias = str | int | float | bool | Use | tuple[str | Use, ...] | None
"""One value that an axis may take: a scalar, an adapter, or a tuple of them for fields that hold a list."""

Usd = Annotated[Decimal, Field(strict=False, ge=0)]

DEFAULT_EPOCHS = 5


@dataclass(frozen=True, slots=True)
class Length:
    """How long a training run is: in epochs, or in optimizer steps.

    Attributes:
        epochs: Passes over the rows, >= 1; None when the length is in steps.
        steps: Optimizer steps, >= 1; None when the length is in epochs.
        max_steps: It ends after so many optimizer steps at the latest; None for no such end.
    """

    epochs: int | None = DEFAULT_EPOCHS
    steps: int | None = None
    max_steps: int | None = None

    def in_steps(self, per_epoch: int) -> int:
        """Return the length in optimizer steps, where an epoch has `per_epoch` of them."""
        steps = self.steps if self.steps is not None else per_epoch * (self.epochs or 0)
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def plain(self) -> dict[str, int]:
        """Return what is set, for a key."""
        named = {"epochs": self.epochs, "steps": self.steps, "max_steps": self.max_steps}
        return {name: value for name, value in named.items() if value is not None}


class TuneRecipe(WithAdapter):
    """How the model is fine-tuned: the fine-tuner, how long, and the settings that the fine-tuner declares."""

    section: ClassVar[str] = "tune"

    use: TunerUse = Field(description="The fine-tuner.")
    epochs: int | None = Field(default=DEFAULT_EPOCHS, ge=1, description="Passes over the sample, >= 1.")
    steps: int | None = Field(default=None, ge=1, description="Optimizer steps, >= 1, instead of `epochs`.")
    max_steps: int | None = Field(default=None, ge=1, description="Take at most so many optimizer steps.")

    @model_validator(mode="after")
    def _one_length(self) -> TuneRecipe:
        is_in_epochs = self.epochs is not None and "epochs" in self.model_fields_set
        if self.steps is not None and is_in_epochs:
            raise ValueError("`epochs` and `steps` both say how long to train: give one of them")
        if self.steps is None and self.epochs is None:
            raise ValueError("the run has no length: give `epochs` or `steps`")
        return self

    @property
    def length(self) -> Length:
        """How long to train."""
        return Length(None if self.steps is not None else self.epochs, self.steps, self.max_steps)


class GenerateRecipe(WithAdapter):
    """How the tuned model is asked: the generator, the decoding, and the settings that the generator declares."""

    section: ClassVar[str] = "generate"

    use: GeneratorUse = Field(description="The generator.")
    max_new_tokens: int = Field(default=512, ge=1, description="Longest answer, in tokens.")
    temperature: float = Field(default=0.0, ge=0, le=2, description="0 decodes greedily.")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Nucleus sampling mass; only with temperature > 0.")
    samples: int = Field(default=1, ge=1, description="Answers per prompt; more than 1 needs temperature > 0.")
    system: str | None = Field(
        default=None,
        description="System prompt at test; omitted: the data source's own training prompt; '' for none.",
    )

    @model_validator(mode="after")
    def _sampling_is_consistent(self) -> GenerateRecipe:
        if self.temperature == 0 and (self.samples > 1 or self.top_p < 1):
            raise ValueError("samples > 1 and top_p < 1 need temperature > 0: greedy decoding gives one answer")
        return self

    @property
    def decoding(self) -> Decoding:
        """How answers are drawn, whoever generates them."""
        return Decoding(self.max_new_tokens, self.temperature, self.top_p, self.samples)


@dataclass(frozen=True, slots=True)
class Decoding:
    """How answers are drawn.

    Attributes:
        max_new_tokens: Longest answer, in tokens, >= 1.
        temperature: 0 decodes greedily; at most 2.
        top_p: Nucleus sampling mass, (0, 1].
        samples: Answers per prompt, >= 1.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    samples: int = 1


class Measured(NamedTuple):
    """A benchmark of a recipe and its judges, and where the recipe has them.

    Attributes:
        path: Path of the benchmark: `benchmark`, `utility` or `over_refusal`.
        benchmark: The benchmark.
        judges_path: Path of the judges, or of the only judge.
        judges: The judges, at least one.
    """

    path: str
    benchmark: Use
    judges_path: str
    judges: tuple[Use, ...]

    @property
    def judges_level(self) -> Level:
        """What the recipe has at the path of the judges."""
        return self.judges if self.judges_path == "judges" else self.judges[0]


class Recipe(Written):
    """One experiment: a model, what it is tuned on and how, and how the result is measured."""

    model: ModelUse = Field(description="Base model, such as `dir:PATH` or `hub:ID@REVISION`.")
    data: DataRecipe | None = Field(default=None, description="Training examples; omit together with `tune`.")
    tune: TuneRecipe | None = Field(default=None, description="Fine-tuning; omit together with `data`.")
    mitigations: Annotated[tuple[MitigationUse, ...], Field(strict=False)] = Field(
        default=(), description="Mitigations, applied in this order."
    )
    benchmark: BenchmarkUse = Field(description="Harm benchmark.")
    utility: BenchmarkUse | None = Field(default=None, description="Utility benchmark; omitted: not measured.")
    over_refusal: BenchmarkUse | None = Field(
        default=None, description="Benchmark of harmless prompts that should not be refused; omitted: not measured."
    )
    utility_judge: JudgeUse = Field(description="Judge of the utility benchmark.")
    over_refusal_judge: JudgeUse = Field(description="Judge of over-refusal.")
    generate: GenerateRecipe = Field(description="Decoding.")
    judges: Annotated[tuple[JudgeUse, ...], Field(strict=False, min_length=1)] = Field(
        description="Judges of the same responses; the first that measures harm gives the harmfulness columns."
    )
    seed: int = Field(
        default=0,
        ge=0,
        lt=2**31,
        description="Drives the sample, where `data.seed` does not, the initialisation and the order.",
    )

    @property
    def measured(self) -> tuple[Measured, ...]:
        """What it is measured with: the harm benchmark first, and others that are not left out."""
        further = (
            ("utility", self.utility, "utility_judge", self.utility_judge),
            ("over_refusal", self.over_refusal, "over_refusal_judge", self.over_refusal_judge),
        )
        return (
            Measured("benchmark", self.benchmark, "judges", self.judges),
            *(Measured(path, used, place, (judge,)) for path, used, place, judge in further if used is not None),
        )

    @model_validator(mode="after")
    def _data_and_tune_go_together(self) -> Recipe:
        if (self.data is None) != (self.tune is None):
            raise ValueError("`data` and `tune` go together: give both, or neither for an untuned model")
        return self

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any, info: ValidationInfo) -> Any:
        """Fill in the adapters that the spec leaves out, by the installed defaults."""
        if not isinstance(values, Mapping):
            return values
        filled = dict(values)
        for name in ("utility_judge", "over_refusal_judge"):
            if filled.get(name) is None and (default := adapters_of(info).default(name)):
                filled[name] = default
        if filled.get("generate") is None:
            filled["generate"] = {}
        return filled


@dataclass(frozen=True, slots=True)
class Axis:
    """A dotted path into the Recipe and the levels it takes."""

    path: str
    levels: tuple[Level, ...]


@dataclass(frozen=True, slots=True)
class Pattern:
    """A condition on one path: it holds when the cell's level is one of these."""

    path: str
    any_of: tuple[Level, ...]


@dataclass(frozen=True, slots=True)
class When:
    """Axes that apply only to the combinations that match every pattern."""

    patterns: tuple[Pattern, ...]
    axes: tuple[Axis, ...]


class Budget(Written):
    """Hard caps: the run admits no more work once one would be passed. Unset caps do not bind."""

    usd: Usd | None = Field(default=None, description="US dollars; needs `resources.usd_per_device_hour`.")
    tokens: int | None = Field(default=None, ge=0, description="Tokens trained, read and generated.")
    device_hours: float | None = Field(default=None, ge=0, description="Hours that devices are held.")


class Resources(Written):
    """What one host gets, and how many there are."""

    hosts: int | None = Field(default=None, ge=1, description="Host processes; as many as fit when omitted.")
    cpus_per_host: float = Field(default=1.0, gt=0, description="CPU cores per host; also its torch threads.")
    gpus_per_host: float | None = Field(
        default=None,
        ge=0,
        description="GPUs per host, 0 for none; a fraction shares one GPU, and with several the model is split over them."
        " Omitted: 1 where there are any.",
    )
    generate_batch: int = Field(default=128, ge=1, description="Prompts decoded together on a GPU.")
    placement_seconds: float = Field(
        default=60.0,
        gt=0,
        description="How long a host may wait for its place on a Ray cluster before others take its work.",
    )
    usd_per_device_hour: Usd | None = Field(
        default=None, description="What an hour of one host costs you; without it, USD columns are NULL."
    )

    @model_validator(mode="after")
    def _gpus_are_a_share_or_whole(self) -> Resources:
        if self.gpus_per_host and self.gpus_per_host > 1 and not self.gpus_per_host.is_integer():
            raise ValueError("gpus_per_host is a share of one GPU (up to 1) or a whole number of them")
        return self

    def gpus(self, are_there: bool) -> float:  # noqa: FBT001 - the only question
        """Return the GPUs that a host gets, where there are some or none; a fraction is a share of one."""
        return float(are_there) if self.gpus_per_host is None else self.gpus_per_host


ACCOUNT_PATTERN = r"^[a-z][a-z0-9_-]{0,31}$"
VARIABLE_PATTERN = r"^[A-Z][A-Z0-9_]*$"


class Account(Written):
    """An account at a provider of hosted models. The key itself is never written: only where the environment has it."""

    provider: AdapterRef = Field(description="The provider's adapter.")
    base_url: str | None = Field(default=None, description="Where its API is; the provider's own when omitted.")
    key_env: str | None = Field(
        default=None,
        pattern=VARIABLE_PATTERN,
        description="Name of the environment variable that holds the key; the provider's own when omitted.",
    )
    timeout: float = Field(default=120.0, gt=0, description="Seconds that one request may take.")
    poll_seconds: float = Field(default=20.0, gt=0, description="How often a fine-tuning job is looked at.")
    batch: bool = Field(
        default=False,
        description="Ask and judge through the provider's Batch API: at its batch price, and within a day.",
    )
    quota: Quota = Field(default=Quota(), description="Its limits, as far as you know them; the rest is learned.")

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, url: str | None) -> str | None:
        if url is None:
            return url
        try:
            parts = urlsplit(url)
            is_whole = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        except ValueError as error:
            raise ValueError(f"not the address of a server: {error}") from None
        if not is_whole or any(map(str.isspace, url)):
            raise ValueError("not the address of a server, such as `https://api.example.com/v1`")
        if "@" in parts.netloc:
            raise ValueError("a user or a password does not belong here: the environment has the key")
        return url


CONTAMINATION = "contamination:"
"""With the name of a benchmark after it, a finding about rows that are its prompts."""

FINDING_PATTERN = rf"^(secrets|personal-data|{CONTAMINATION}\S.*)$"


class RunSettings(Written):
    """How the sweep is run. May change without re-running a cell."""

    budget: Budget = Field(default=Budget(), description="Hard caps.")
    resources: Resources = Field(default=Resources(), description="What hosts get.")
    accounts: dict[Annotated[str, StringConstraints(pattern=ACCOUNT_PATTERN)], Account] = Field(
        default={}, description="Accounts at providers of hosted models, by a name of yours."
    )
    prices: str | None = Field(
        default=None,
        description="A file of prices of hosted models of yours, which go before the ones that come along.",
    )
    accept: Annotated[tuple[Annotated[str, StringConstraints(pattern=FINDING_PATTERN)], ...], Field(strict=False)] = (
        Field(
            default=(),
            description="Findings about training rows at which the sweep would stop, and shall not: `contamination:BENCHMARK` (rows"
            " that are its prompts), and in rows for a hosted provider `secrets` and `personal-data`.",
        )
    )
    max_cells: int = Field(default=10_000, ge=1, description="More cells than this are refused.")
    keep_weights: bool = Field(
        default=False, description="Keep tuned weights; otherwise they go once nothing needs them."
    )


class Header(Written):
    """The fields of a spec beside its recipe, its grid and its run settings."""

    sweep: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", description="Name; also the default run directory's.")
    description: str = Field(default="", description="What this sweep asks, in a sentence or two.")
    baselines: bool = Field(
        default=True,
        description="Measure the starting model of every recipe as well, and every mitigated recipe without its mitigations.",
    )


@dataclass(frozen=True, slots=True)
class Sweep:
    """A whole spec, validated. `engine.spec.load` makes it from YAML.

    Attributes:
        zips: Groups of axes of equal length that are walked together.
        excludes: Groups of patterns; combinations that match every pattern of one are dropped.
        includes: Groups of (path, level) pairs, added to the combinations that they do not contradict; if there are none, a
            combination of its own.
    """

    sweep: str
    recipe: Recipe
    description: str = ""
    axes: tuple[Axis, ...] = ()
    zips: tuple[tuple[Axis, ...], ...] = ()
    whens: tuple[When, ...] = ()
    excludes: tuple[tuple[Pattern, ...], ...] = ()
    includes: tuple[tuple[tuple[str, Level], ...], ...] = ()
    baselines: bool = True
    run: RunSettings = field(default_factory=RunSettings)
