"""What a person writes: a Sweep of Axes over a Recipe, and the RunSettings. And what it means: Cells.

Everything in `Recipe` bears identity: changing it makes another cell. Nothing in `RunSettings` does.
Defaults bear no identity either: a default belongs to the adapter's integer `revision`.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, field_validator, model_validator

from engine.domain.quota import Quota
from engine.domain.written import Written

ADAPTER_PATTERN = r"^[a-z][a-z0-9]*([/_.-][a-z0-9]+)*(@[a-z][a-z0-9_-]{0,31})?(:.+)?$"

Level: TypeAlias = str | int | float | bool | tuple[str, ...] | None
"""One value that an axis may take: a scalar, or a tuple of names for fields that hold a list."""

AdapterRef = Annotated[
    str,
    StringConstraints(pattern=ADAPTER_PATTERN),
    Field(description="`name` or `name:argument`, such as `standin/explicit` or `file:data/mine.jsonl`."),
]
Names = Annotated[tuple[AdapterRef, ...], Field(strict=False)]
Usd = Annotated[Decimal, Field(strict=False, ge=0)]


class MixRecipe(Written):
    """Rows from a second source, appended to the sample (safety-data mixing, for example)."""

    source: AdapterRef = Field(description="Where the extra rows come from.")
    n: int = Field(ge=1, description="How many rows are appended, >= 1.")


class DataRecipe(Written):
    """Which examples the model is tuned on."""

    source: AdapterRef = Field(description="Data source, such as `standin/explicit` or `file:data/mine.jsonl`.")
    n: int = Field(ge=1, description="Number of examples, >= 1; nested: the first 10 of 50 are the 10.")
    mix: MixRecipe | None = Field(default=None, description="Rows of a second source, appended after sampling.")
    allow_upload: bool = Field(
        default=False, description="Whether the rows may leave this machine for a hosted provider; bears no identity."
    )


class TuneRecipe(Written):
    """How the model is fine-tuned. The loss is on the answer tokens only."""

    adapter: AdapterRef = Field(default="local/sft", description="The fine-tuner.")
    backend: Literal["packed", "trl"] = Field(
        default="packed",
        description="`packed` trains LoRA adapters many at a time; `trl` one at a time, with TRL's own trainer. Equal"
        " within a stated tolerance; full fine-tuning always uses TRL.",
    )
    method: Literal["lora", "full"] = Field(default="lora", description="LoRA adapters, or all weights.")
    rank: int = Field(default=8, ge=1, le=1024, description="LoRA rank.")
    alpha: int | None = Field(default=None, ge=1, description="LoRA alpha; twice the rank when omitted.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="LoRA dropout probability.")
    targets: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        default=("all-linear",), description="Module names that get LoRA adapters; `all-linear` for all of them."
    )
    epochs: int = Field(default=5, ge=1, description="Passes over the sample, >= 1.")
    max_steps: int | None = Field(default=None, ge=1, description="Take at most so many optimizer steps.")
    lr: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Peak learning rate, absolute, per optimizer step; local tuning needs it, most providers refuse it.",
    )
    lr_multiplier: float | None = Field(
        default=None,
        gt=0,
        description="What a hosted provider's own learning rate is multiplied with; its choice when omitted.",
    )
    batch_size: int = Field(default=10, ge=1, description="Examples per forward pass.")
    grad_accum: int = Field(default=1, ge=1, description="Forward passes per optimizer step.")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        default="constant", description="Learning-rate schedule after the warm-up."
    )
    warmup_steps: int = Field(default=0, ge=0, description="Linear warm-up, in optimizer steps (absolute).")
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW weight decay.")
    max_grad_norm: float = Field(default=1.0, gt=0, description="Gradients are clipped to this 2-norm.")
    max_length: int = Field(default=512, ge=8, description="Longest training row, in tokens; longer rows are cut.")
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="Weights' type in training.")

    @model_validator(mode="after")
    def _one_learning_rate(self) -> TuneRecipe:
        if self.lr is not None and self.lr_multiplier is not None:
            message = "`lr` is absolute, `lr_multiplier` is times a provider's own: give one of them"
            raise ValueError(message)
        return self

    @property
    def peak_lr(self) -> float:
        """The absolute learning rate.

        Raises:
            ValueError: There is none.
        """
        if self.lr is None:
            message = "there is no learning rate: give `tune.lr`"
            raise ValueError(message)
        return self.lr


class GenerateRecipe(Written):
    """How the tuned model is asked."""

    adapter: AdapterRef = Field(default="local/transformers", description="The generator.")
    max_new_tokens: int = Field(default=512, ge=1, description="Longest answer, in tokens.")
    temperature: float = Field(default=0.0, ge=0, le=2, description="0 decodes greedily.")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Nucleus sampling mass; only with temperature > 0.")
    samples: int = Field(default=1, ge=1, description="Answers per prompt; more than 1 needs temperature > 0.")
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="Weights' type when generating.")
    system: str | None = Field(
        default=None,
        description="System prompt at test; omitted: the data source's own training prompt; '' for none.",
    )

    @model_validator(mode="after")
    def _sampling_is_consistent(self) -> GenerateRecipe:
        if self.temperature == 0 and (self.samples > 1 or self.top_p < 1):
            message = "samples > 1 and top_p < 1 need temperature > 0: greedy decoding gives one answer"
            raise ValueError(message)
        return self


class Recipe(Written):
    """One experiment: a model, what it is tuned on and how, and how the result is measured."""

    model: AdapterRef = Field(description="Base model, such as `standin/aligned`, `dir:PATH` or `hub:ID@REVISION`.")
    data: DataRecipe | None = Field(default=None, description="Training examples; omit together with `tune`.")
    tune: TuneRecipe | None = Field(default=None, description="Fine-tuning; omit together with `data`.")
    mitigations: Names = Field(default=(), description="Mitigations, applied in this order.")
    benchmark: AdapterRef = Field(description="Harm benchmark, such as `standin/policy`.")
    utility: AdapterRef | None = Field(default=None, description="Utility benchmark; omitted: not measured.")
    over_refusal: AdapterRef | None = Field(
        default=None, description="Benchmark of harmless prompts that should not be refused; omitted: not measured."
    )
    utility_judge: AdapterRef = Field(default="answer/contains", description="Judge of the utility benchmark.")
    over_refusal_judge: AdapterRef = Field(default="refusal/keywords", description="Judge of over-refusal.")
    generate: GenerateRecipe = Field(default=GenerateRecipe(), description="Decoding.")
    judges: Annotated[tuple[AdapterRef, ...], Field(strict=False, min_length=1)] = Field(
        description="Judges of the same responses; the first that measures harm gives the harmfulness columns."
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="Drives the sample, the initialisation and the order.")

    @model_validator(mode="after")
    def _data_and_tune_go_together(self) -> Recipe:
        if (self.data is None) != (self.tune is None):
            message = "`data` and `tune` go together: give both, or neither for an untuned model"
            raise ValueError(message)
        return self


class Axis(Written):
    """A dotted path into the Recipe and the levels it takes."""

    path: str
    levels: tuple[Level, ...]


class Pattern(Written):
    """A condition on one path: it holds when the cell's level is one of these."""

    path: str
    any_of: tuple[Level, ...]


class Zip(Written):
    """Axes of equal length that are walked together."""

    axes: tuple[Axis, ...]


class When(Written):
    """Axes that apply only to the combinations that match every pattern."""

    patterns: tuple[Pattern, ...]
    axes: tuple[Axis, ...]


class Exclude(Written):
    """Combinations that match every pattern are dropped."""

    patterns: tuple[Pattern, ...]


class Include(Written):
    """Levels added to the combinations that they do not contradict; if there are none, a combination of its own."""

    levels: tuple[tuple[str, Level], ...]


class Budget(Written):
    """Hard caps: the run admits no more work once one would be passed. Unset caps do not bind."""

    usd: Usd | None = Field(default=None, description="US dollars; needs `resources.usd_per_device_hour`.")
    tokens: int | None = Field(default=None, ge=0, description="Tokens trained, read and generated.")
    device_hours: float | None = Field(default=None, ge=0, description="Hours that devices are held.")


class Resources(Written):
    """What one host gets, and how many there are."""

    hosts: int | None = Field(default=None, ge=1, description="Host processes; as many as fit when omitted.")
    cpus_per_host: float = Field(default=1.0, gt=0, description="CPU cores per host; also its torch threads.")
    gpus_per_host: float = Field(default=0.0, ge=0, description="GPUs per host; a fraction shares one GPU.")
    generate_batch: int = Field(default=128, ge=1, description="Prompts decoded together.")
    usd_per_device_hour: Usd | None = Field(
        default=None, description="What an hour of one host costs you; without it, USD columns are NULL."
    )

    @model_validator(mode="after")
    def _gpus_are_a_share_or_whole(self) -> Resources:
        if self.gpus_per_host > 1 and not self.gpus_per_host.is_integer():
            message = "gpus_per_host is a share of one GPU (up to 1) or a whole number of them"
            raise ValueError(message)
        return self


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
            message = f"not the address of a server: {error}"
            raise ValueError(message) from None
        if not is_whole or any(map(str.isspace, url)):
            raise ValueError("not the address of a server, such as `https://api.example.com/v1`")
        if "@" in parts.netloc:
            raise ValueError("a user or a password does not belong here: the environment has the key")
        return url


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
    max_cells: int = Field(default=10_000, ge=1, description="More cells than this are refused.")
    keep_weights: bool = Field(
        default=False, description="Keep tuned weights; otherwise they go once nothing needs them."
    )


class Sweep(Written):
    """A whole spec, validated. `engine.spec.load` makes it from YAML."""

    sweep: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", description="Name; also the default run directory's.")
    description: str = Field(default="", description="What this sweep asks, in a sentence or two.")
    recipe: Recipe
    axes: tuple[Axis, ...] = ()
    zips: tuple[Zip, ...] = ()
    whens: tuple[When, ...] = ()
    excludes: tuple[Exclude, ...] = ()
    includes: tuple[Include, ...] = ()
    baselines: bool = Field(default=True, description="Measure every recipe untuned as well, once.")
    run: RunSettings = Field(default=RunSettings())


def level_text(level: Level) -> str:
    """Return a level as people read it: `1e-3` as `0.001`, a list as `a+b`, nothing as `none`.

    >>> level_text(0.001), level_text(("a", "b")), level_text(None), level_text(())
    ('0.001', 'a+b', 'none', 'none')
    """
    if level is None or level == ():
        return "none"
    if isinstance(level, tuple):
        return "+".join(level)
    if isinstance(level, float):
        return f"{level:g}"
    return str(level).lower() if isinstance(level, bool) else str(level)


@dataclass(frozen=True, slots=True)
class Cell:
    """One level per axis, and the Recipe that they give.

    Attributes:
        coordinates: (path, level) pairs in the order of the axes; what tells this cell from its neighbours.
        recipe: The resolved recipe.
    """

    coordinates: tuple[tuple[str, Level], ...]
    recipe: Recipe

    @property
    def label(self) -> str:
        """The coordinates in words, such as `source=standin/explicit n=10 seed=0`.

        A path is called by its last name, or by its whole one where two paths end alike (`data.n`, `data.mix.n`).
        """
        names = [path.rpartition(".")[2] for path, _ in self.coordinates]
        return " ".join(
            f"{name if names.count(name) == 1 else path}={level_text(level)}"
            for name, (path, level) in zip(names, self.coordinates, strict=True)
        )
