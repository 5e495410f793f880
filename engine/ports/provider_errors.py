"""What goes wrong at a provider, in the engine's words. Every error is plain and picklable, without a request in it."""

from __future__ import annotations

from engine.domain.cost import Usage


class ProviderError(Exception):
    """What a provider answered instead, or that it did not.

    ProviderError
    ├── ThrottledError    asked too fast; nothing was done
    ├── UnavailableError  the server failed or is overloaded; nothing was done
    ├── NoReplyError      the reply never came: it may have been done
    ├── BlockedError      moderation refused it: a result
    ├── RejectedError     the request is wrong; it will be next time
    ├── DeniedError       the key or the account may not
    └── ExhaustedError    the account's money or hard limit is used up

    Attributes:
        used: What had been paid for, or may have been, before this ended it; None for nothing.
    """

    used: Usage | None = None


class ThrottledError(ProviderError):
    """Asked too fast.

    Attributes:
        seconds: How long to wait, as the provider says; None when it does not.
        scope: Which limit: `rate` (requests or tokens a minute), `ramp` (growing too fast), `day` (jobs a day).
    """

    def __init__(self, message: str, seconds: float | None = None, scope: str = "rate") -> None:
        """Keep all three as arguments, so that it can be pickled."""
        super().__init__(message, seconds, scope)
        self.seconds, self.scope = seconds, scope

    def __str__(self) -> str:
        return str(self.args[0])


class UnavailableError(ProviderError):
    """The server failed, or is overloaded.

    Attributes:
        seconds: How long to wait, as the provider says; None when it does not.
    """

    def __init__(self, message: str, seconds: float | None = None) -> None:
        """Keep both as arguments, so that it can be pickled."""
        super().__init__(message, seconds)
        self.seconds = seconds

    def __str__(self) -> str:
        return str(self.args[0])


class NoReplyError(ProviderError):
    """The connection broke, or the time ran out: nobody knows whether it was done."""


class BlockedError(ProviderError):
    """The provider's moderation refused."""


class RejectedError(ProviderError):
    """The request is wrong, or names what is not there."""


class DeniedError(ProviderError):
    """The key is wrong, or the account may not do this."""


class ExhaustedError(ProviderError):
    """The account has no money left, or has reached its hard limit."""
