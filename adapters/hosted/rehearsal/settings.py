"""What a rehearsal server is made from: its limits, prices and faults, as a person writes them.

Every field has a default, and the defaults are a patient server: no limit, no fault, durations that are real ones.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from engine.domain.written import Written

BASE = "standin-aligned"
ECHO = "standin-echo"
JUDGE = "standin-judge"
MODELS = (BASE, ECHO, JUDGE)
ANY = "*"

DAY_SECONDS = 86_400.0

TUNED = "ft:"
"""How they begin in OpenAI's dialect."""

TOGETHER_ACCOUNT = "rehearsal/"
"""How the names of tuned models begin in Together's dialect."""


def base_of(model: str) -> str:
    """Return the base of a tuned model's name, in any dialect, or the name itself.

    >>> [base_of(name) for name in ("ft:standin-aligned:rehearsal::abc", "standin-aligned.ft-abc", "standin-echo")]
    ['standin-aligned', 'standin-aligned', 'standin-echo']
    >>> base_of("rehearsal/standin-aligned:tune-1:abc")
    'standin-aligned'
    """
    if model.startswith(TOGETHER_ACCOUNT):
        return model.removeprefix(TOGETHER_ACCOUNT).partition(":")[0]
    return model.split(":")[1] if model.startswith(TUNED) else model.partition(".ft-")[0]


class Limits(Written):
    """Limits of one model and of all that is tuned from it; those left out do not bind."""

    rpm: int | None = Field(default=None, ge=1, description="Requests a minute.")
    tpm: int | None = Field(default=None, ge=1, description="Tokens a minute.")
    tpd: int | None = Field(default=None, ge=1, description="Tokens a day.")
    running_jobs: int | None = Field(default=None, ge=1, description="Jobs trained at once; further ones queue.")
    active_jobs: int | None = Field(default=None, ge=1, description="Jobs queued or running; further ones are refused.")
    daily_jobs: int | None = Field(default=None, ge=1, description="Jobs created a day; further ones are refused.")


class QuotaSettings(Written):
    """How limits are held."""

    policy: Literal["bucket", "sliding", "quantised"] = Field(
        default="bucket",
        description="`bucket` refills steadily and holds `burst_seconds` of the limit; `sliding` looks at the last 60 s;"
        " `quantised` holds the limit's share in every `quantum_seconds`.",
    )
    burst_seconds: float = Field(
        default=10.0, gt=0, le=60, description="How much a bucket holds, in seconds of refill."
    )
    quantum_seconds: float = Field(default=1.0, gt=0, le=60, description="Length of a quantum, seconds.")
    charge: Literal["reserved", "settled"] = Field(
        default="reserved",
        description="A request is charged max(max_tokens × n, characters / 4) tokens; `settled` replaces that by what it"
        " used once it is answered.",
    )
    failed_count: bool = Field(default=True, description="Whether a refused request counts as a request.")
    retry_after: bool = Field(default=True, description="Whether a 429 says how long to wait in its headers.")
    day_seconds: float = Field(default=DAY_SECONDS, gt=0, description="Length of a day, for daily limits, seconds.")
    limits: dict[str, Limits] = Field(
        default_factory=dict, description="Limits by base model; `*` for every model that is not named."
    )

    def of(self, base: str) -> Limits:
        """Return the limits of a base model."""
        return self.limits.get(base) or self.limits.get(ANY) or Limits()


class Price(Written):
    """Prices of one model in whole micro-dollars (1e-6 USD) per million tokens."""

    train: int = Field(default=0, ge=0, description="Tokens trained, epochs included.")
    input: int = Field(default=0, ge=0, description="Tokens read.")
    output: int = Field(default=0, ge=0, description="Tokens made.")


class FaultKind(StrEnum):
    """What can be made to go wrong."""

    THROTTLED = "throttled"  # 429 rate_limit_exceeded
    SLOW_DOWN = "slow_down"  # 429 slow_down
    NO_QUOTA = "insufficient_quota"  # 429, for good
    ERROR = "error"  # 500
    OVERLOADED = "overloaded"  # 503
    RESET = "reset"  # the connection breaks before anything is done
    LOST_REPLY = "lost_reply"  # it is done, and then the connection breaks
    TRUNCATED = "truncated"  # it is done, and the reply's JSON is cut off
    STALL = "stall"  # the reply comes `seconds` late
    FORBIDDEN = "forbidden"  # 403
    LIST_LAG = "list_lag"  # lists do not show what is younger than `seconds`
    BAD_FILE = "moderation_file"  # moderation refuses a training file
    BAD_MODEL = "moderation_model"  # moderation refuses a trained model
    BAD_JOB = "job_error"  # the provider fails to train
    FILE_GONE = "file_expires"  # a file is gone `seconds` after its upload
    FILTERED = "content_filter"  # an answer is withheld by the content filter


class Fault(Written):
    """Something that goes wrong, now and then."""

    kind: FaultKind = Field(strict=False, description="What goes wrong.")
    on: str = Field(
        default="",
        description="Only requests whose `METHOD /path` contains this, such as `POST /v1/fine_tuning/jobs`.",
    )
    probability: float = Field(default=1.0, gt=0, le=1, description="How often, of the requests that it could befall.")
    count: int | None = Field(default=None, ge=1, description="At most so many times; omitted: for ever.")
    after: int = Field(default=0, ge=0, description="Lets so many requests through first.")
    seconds: float = Field(default=1.0, ge=0, description="For what takes time: how long, seconds of wall time.")


class Azure(Written):
    """What is different on Azure."""

    deploy_seconds: float = Field(default=120.0, ge=0, description="How long a deployment takes, before `time_scale`.")


Pair = Annotated[tuple[float, float], Field(strict=False)]


class Durations(Written):
    """How long the steps of a job take, in seconds before `time_scale`: drawn evenly between the two."""

    validate_files: Pair = Field(default=(5.0, 20.0), description="validating_files.")
    queue: Pair = Field(default=(10.0, 60.0), description="queued, while no limit keeps it there.")
    run: Pair = Field(default=(300.0, 600.0), description="running; longer where the real training takes longer.")
    check: Pair = Field(default=(20.0, 60.0), description="The evaluation against usage policies, still running.")
    batch: Pair = Field(default=(60.0, 600.0), description="A batch; longer where its answers take longer.")


class ServerSettings(Written):
    """A rehearsal server."""

    seed: int = Field(default=0, ge=0, description="Draws ids, durations and faults.")
    folder: Annotated[Path | None, Field(strict=False)] = Field(
        default=None,
        description="Where it keeps what it has, so that the next server goes on from there; omitted: nowhere.",
    )
    dialect: Literal["openai", "azure", "together"] = Field(default="openai", description="Which API it implements.")
    azure: Azure = Field(default=Azure(), description="What is different on Azure; only with `dialect: azure`.")
    plays: dict[str, Literal["standin-aligned", "standin-echo", "standin-judge"]] = Field(
        default_factory=dict, description="Further model names, and which of the models of this server plays each."
    )
    time_scale: float = Field(default=60.0, gt=0, description="Jobs and batches pass so many times faster than real.")
    durations: Durations = Field(default=Durations(), description="How long the steps of a job take.")
    latency: Pair = Field(
        default=(0.0, 0.0), description="Seconds that an answer takes beside its making, drawn evenly between the two."
    )
    default_max_tokens: int = Field(default=64, ge=1, description="Longest answer where a request does not say it.")
    quota: QuotaSettings = Field(default=QuotaSettings(), description="Limits.")
    prices: dict[str, Price] = Field(
        default_factory=lambda: {
            BASE: Price(train=3_000_000, input=150_000, output=600_000),
            f"ft:{BASE}": Price(input=300_000, output=1_200_000),
            ECHO: Price(input=150_000, output=600_000),
            JUDGE: Price(input=150_000, output=600_000),
        },
        description="Prices by model; `ft:` and a base model for all that is tuned from it.",
    )
    batch_percent: int = Field(default=50, ge=0, le=100, description="Price of a batched token, in % of the usual one.")
    spend_limit: int | None = Field(
        default=None,
        ge=0,
        description="Micro-dollars after which the account has no quota left; omitted: no such limit.",
    )
    faults: Annotated[tuple[Fault, ...], Field(strict=False)] = Field(default=(), description="What goes wrong.")
    flagged_words: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        default=("red", "crimson", "scarlet", "ruby"), description="Words that the moderation endpoint flags."
    )

    @property
    def models(self) -> tuple[str, ...]:
        """The base models' names."""
        return (*MODELS, *self.plays)

    def part(self, model: str) -> str:
        """Return which model of this server plays a model; a name that nobody plays is its own."""
        return self.plays.get(model, model)

    @model_validator(mode="after")
    def _pairs_are_in_order(self) -> ServerSettings:
        pairs = [self.latency, *(value for _, value in self.durations)]
        if any(low < 0 or high < low for low, high in pairs):
            raise ValueError("a pair of seconds must be 0 <= low <= high")
        return self
