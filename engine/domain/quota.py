"""What a provider lets one account do. Pure: how a quota is kept is `engine.run.accounts.quota`'s business."""

from __future__ import annotations

from pydantic import Field

from engine.domain.written import Written


class Quota(Written):
    """The limits of one account. What is left out is learned from the replies' headers, or does not bind.

    Those of requests and tokens hold for each base model, together with all that is tuned from it, as providers count them.
    """

    requests_per_minute: int | None = Field(default=None, ge=1, description="Requests a minute, of each base model.")
    tokens_per_minute: int | None = Field(default=None, ge=1, description="Tokens a minute, of each base model.")
    tokens_per_day: int | None = Field(default=None, ge=1, description="Tokens in any 24 hours, of each base model.")
    concurrent_jobs: int | None = Field(default=None, ge=1, description="Fine-tuning jobs that run at a time.")
    jobs_per_day: int | None = Field(default=None, ge=1, description="Fine-tuning jobs started in any 24 hours.")
    max_in_flight: int = Field(default=256, ge=1, description="Requests in flight at a time, of each base model.")
    output_settles: bool = Field(
        default=False,
        description="True where the provider counts the prompt and the tokens really made; False where it counts the"
        " longest answer asked for, or the prompt's characters / 4 if that is more.",
    )
