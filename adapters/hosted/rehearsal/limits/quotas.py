"""Limits of the models: who may pass, what it is charged, what the headers say, and the 429 of who may not."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from adapters.hosted.rehearsal.api import ApiError
from adapters.hosted.rehearsal.limits.windows import Bucket, Taken, Window, window
from adapters.hosted.rehearsal.settings import QuotaSettings, base_of

MINUTE = 60.0
CHARACTERS_A_TOKEN = 4
ORGANIZATION = "org-rehearsal"


@dataclass(frozen=True, slots=True)
class _Gauge:
    """A window with the words of its error."""

    window: Window
    kind: str
    words: str


@dataclass(slots=True)
class Hold:
    """The tokens that a request was charged, and the windows that they were taken from."""

    tokens: int
    taken: tuple[tuple[Window, Taken], ...] = ()


def charge(max_tokens: int, samples: int, characters: int) -> int:
    """Return what a request is charged before it runs.

    Args:
        max_tokens: Longest answer that it allows; 0 where it does not say.
        samples: Answers that it wants, >= 1.
        characters: Of all its turns.

    Source: the vendor's rate-limit guide, 2026: the larger of `max_tokens` and an estimate from the characters.
    """
    return max(max_tokens * samples, math.ceil(characters / CHARACTERS_A_TOKEN))


class Quotas:
    """The limits of all models; what is tuned from one shares its limits.

    Args:
        settings: The limits, and how they are held.
        clock: Seconds, monotonic.
    """

    def __init__(self, settings: QuotaSettings, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with all limits untouched."""
        self._settings = settings
        self._clock, self._begun = clock, clock()
        self._gauges: dict[str, dict[str, _Gauge]] = {}
        self._created: dict[str, deque[float]] = {}

    def admit(self, model: str, tokens: int) -> Hold:
        """Let a request pass and charge it, or refuse it.

        Args:
            model: The model that it names.
            tokens: What it is charged.

        Raises:
            ApiError: 429, when it passes no limit.
        """
        now, gauges = self._now(), self._of(model)
        amounts = {name: 1 if name == "requests" else tokens for name in gauges}
        if any(gauge.window.wait(now, amounts[name]) > 0 for name, gauge in gauges.items()):
            if self._settings.failed_count and "requests" in gauges:
                gauges["requests"].window.fail(now)
            raise self._refusal(model, amounts, now)
        taken = {name: (gauge.window, gauge.window.take(now, amounts[name])) for name, gauge in gauges.items()}
        return Hold(tokens, tuple(pair for name, pair in taken.items() if name != "requests"))

    def settle(self, hold: Hold, used: int) -> None:
        """Replace what a request was charged by the tokens that it used, where that is how limits are held."""
        if self._settings.charge == "settled":
            now = self._now()
            for held, taken in hold.taken:
                held.settle(now, taken, used)
            hold.tokens = used

    def headers(self, model: str) -> dict[str, str]:
        """Return what a reply's headers say of the limits."""
        now, gauges, found = self._now(), self._of(model), {}
        for name in ("requests", "tokens"):
            if name in gauges:
                held = gauges[name].window
                found[f"x-ratelimit-limit-{name}"] = str(held.limit)
                found[f"x-ratelimit-remaining-{name}"] = str(held.left(now))
                found[f"x-ratelimit-reset-{name}"] = duration(held.reset(now))
        return found

    def admit_job(self, model: str, active: int) -> None:
        """Let a job be created and count it, or refuse it.

        Raises:
            ApiError: 429, when too many are active, or were created in the last day.
        """
        limits, now = self._settings.of(model), self._now()
        if limits.active_jobs is not None and active >= limits.active_jobs:
            message = f"Your organization has reached the maximum of {limits.active_jobs} active jobs for {model}."
            raise ApiError(429, message, code="rate_limit_exceeded", headers=self.retry_headers(MINUTE))
        created = self._created.setdefault(model, deque())
        while created and created[0] + self._settings.day_seconds <= now:
            created.popleft()
        if limits.daily_jobs is not None and len(created) >= limits.daily_jobs:
            message = f"Your organization has exceeded the limit of {limits.daily_jobs} jobs per day for {model}."
            seconds = created[0] + self._settings.day_seconds - now
            raise ApiError(429, message, code="daily_rate_limit_exceeded", headers=self.retry_headers(seconds))
        created.append(now)

    def retry_headers(self, seconds: float) -> Mapping[str, str]:
        """Return the headers that say how long to wait, where the settings want any."""
        if not self._settings.retry_after or math.isinf(seconds):
            return {}
        return {"retry-after": str(math.ceil(seconds)), "retry-after-ms": str(math.ceil(seconds * 1000))}

    def _refusal(self, model: str, amounts: Mapping[str, int], now: float) -> ApiError:
        """The 429 of the limit that lasts longest, counting this failure itself."""
        waits = {name: gauge.window.wait(now, amounts[name]) for name, gauge in self._of(model).items()}
        name = max(waits, key=waits.__getitem__)
        gauge, seconds = self._of(model)[name], waits[name]
        where = f"{model} in organization {ORGANIZATION} on {gauge.words}"
        limit, wanted = gauge.window.limit, amounts[name]
        if math.isinf(seconds):
            message = f"Request too large for {where}: Limit {limit}, Requested {wanted}."
        else:
            used = limit - min(limit, gauge.window.left(now))
            message = (
                f"Rate limit reached for {where}: Limit {limit}, Used {used}, Requested {wanted}."
                f" Please try again in {duration(seconds)}."
            )
        return ApiError(429, message, gauge.kind, code="rate_limit_exceeded", headers=self.retry_headers(seconds))

    def _of(self, model: str) -> dict[str, _Gauge]:
        base = base_of(model)
        if base not in self._gauges:
            self._gauges[base] = self._made(base)
        return self._gauges[base]

    def _made(self, base: str) -> dict[str, _Gauge]:
        limits, wanted = self._settings.of(base), self._settings
        gauges = {}
        minute = {"requests": (limits.rpm, "requests per min (RPM)"), "tokens": (limits.tpm, "tokens per min (TPM)")}
        for name, (limit, words) in minute.items():
            if limit is not None:
                held = window(wanted.policy, limit, MINUTE, burst=wanted.burst_seconds, quantum=wanted.quantum_seconds)
                gauges[name] = _Gauge(held, name, words)
        if limits.tpd is not None:
            day = Bucket(limits.tpd, wanted.day_seconds, wanted.day_seconds, wanted.day_seconds)
            gauges["day"] = _Gauge(day, "tokens", "tokens per day (TPD)")
        return gauges

    def _now(self) -> float:
        return self._clock() - self._begun


def duration(seconds: float) -> str:
    """Return a duration as headers have it, rounded up.

    >>> duration(0.0121), duration(360.25)
    ('13ms', '360250ms')
    """
    return f"{math.ceil(seconds * 1000 - 1e-6)}ms"
