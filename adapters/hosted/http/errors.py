"""From what a provider answered instead to the `ProviderError` tree: one table, for live replies and lines of a batch.

| Reply | Becomes |
|---|---|
| 429, and 400, of an account without money or over its hard limit; 402 | `ExhaustedError` |
| 429 `daily_rate_limit_exceeded`, `slow_down`, any other | `ThrottledError`, scope `day`, `ramp`, `rate` |
| 400 and 403 in words of moderation | `BlockedError` |
| 401, 403 | `DeniedError` |
| 408, 409; no reply; a reply that cannot be read | `NoReplyError` |
| 503, 529; no connection | `UnavailableError` |
| any other 5xx | `NoReplyError` where the request makes something that costs money, else `UnavailableError` |
| any other | `RejectedError` |

Nothing of the vendor's exceptions is kept: they hold the request, and the request holds the key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from adapters.hosted.http.limits import wait
from engine.ports.provider_errors import (
    BlockedError,
    DeniedError,
    ExhaustedError,
    NoReplyError,
    ProviderError,
    RejectedError,
    ThrottledError,
    UnavailableError,
)

MODERATED = re.compile(
    r"(?:blocked|flagged) by our moderation|moderation (?:system|eval|check)|flagged as potentially violating"
    r"|usage polic|content (?:management )?polic|unsafe training file|safety check",
    re.IGNORECASE,
)
MODERATION_CODES = frozenset(
    {"content_filter", "content_policy_violation", "invalid_prompt", "moderation_blocked", "unsafe_training_file"}
)
MONEY_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
MONEY = re.compile(r"exceeded your current quota|spend(?:ing)? limit|billing", re.IGNORECASE)
BATCH_ENDED = frozenset({"batch_expired", "batch_cancelled"})
PLAIN: Mapping[int, type[ProviderError]] = MappingProxyType(
    {401: DeniedError, 403: DeniedError, 408: NoReplyError, 409: NoReplyError}
)
SCOPES: Mapping[str, str] = MappingProxyType({"daily_rate_limit_exceeded": "day", "slow_down": "ramp"})
LONGEST = 500
"""Characters of a provider's message that are kept."""


def problem(
    status: int, body: object, headers: Mapping[str, str], clean: Callable[[str], str], *, costs: bool = False
) -> ProviderError:
    """Say what a refusal means.

    Args:
        status: The HTTP status.
        body: `{"error": {"message", "type", "code"}}`, or the inner mapping, or anything else.
        headers: The reply's headers.
        clean: Makes a provider's text fit to be kept.
        costs: Whether the request makes something that costs money, so that doubt about it matters.
    """
    inner = body.get("error", body) if isinstance(body, Mapping) else body
    said = inner if isinstance(inner, Mapping) else {"message": inner}
    told = _text(said.get("message") or said.get("detail"))
    code, kind, message = clean(_text(said.get("code"))), clean(_text(said.get("type"))), clean(told)
    words = " ".join(part for part in (f"{status}", code or kind, message or "the server gave no reason") if part)
    seconds = wait(headers, told)
    if _is_about_money(status, {code, kind}, message):
        return ExhaustedError(words)
    if status == 429:  # noqa: PLR2004 - statuses are their own names
        return ThrottledError(words, seconds, SCOPES.get(code, "rate"))
    if status >= 500:  # noqa: PLR2004
        in_doubt = costs and status not in {503, 529}
        return NoReplyError(words) if in_doubt else UnavailableError(words, seconds)
    if status in {400, 403} and is_moderation(code, message):
        return BlockedError(words)
    return PLAIN.get(status, RejectedError)(words)


def batch_problem(code: str, message: str) -> ProviderError:
    """Say what the error of a batch, or of a request in one that was never sent, means."""
    words = " ".join(part for part in (code, message) if part)
    if code in BATCH_ENDED:
        return UnavailableError(words)
    if code in {"token_limit_exceeded", "rate_limit_exceeded"}:  # tokens waiting in batches, freed as batches end
        return ThrottledError(words, None, "day")
    return BlockedError(words) if is_moderation(code, message) else RejectedError(words)


def is_moderation(code: str, message: str) -> bool:
    """Tell whether an error is a refusal by moderation: a result, not a failure."""
    return code in MODERATION_CODES or MODERATED.search(message) is not None


def scrubbed(text: str, *secrets: str) -> str:
    """Return a provider's text as one line of bounded length, without the secrets."""
    for secret in secrets:
        text = text.replace(secret, "***") if secret else text
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def _is_about_money(status: int, codes: set[str], message: str) -> bool:
    if status in {400, 429} and MONEY_CODES & codes:
        return True
    return status == 402 or (status == 429 and MONEY.search(message) is not None)  # noqa: PLR2004


def _text(value: object) -> str:
    return "" if value is None else str(value)
