"""What goes wrong at a provider, in the engine's words. Every error is plain and picklable, without a request in it."""

from __future__ import annotations

from engine.domain.cost import Usage


class ProviderError(Exception):
    """What a provider answered instead, or that it did not.

    ProviderError
    ├── Throttled      asked too fast; nothing was done
    ├── Unavailable    the server failed or is overloaded; nothing was done
    ├── Unanswered     the reply never came: it may have been done
    ├── Blocked        moderation refused it: a result
    ├── Rejected       the request is wrong; it will be next time
    ├── Denied         the key or the account may not
    └── Exhausted      the account's money or hard limit is used up

    Attributes:
        used: What had been paid for, or may have been, before this ended it; None for nothing.
    """

    used: Usage | None = None


class Throttled(ProviderError):  # noqa: N818 - what happened, in one word
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


class Unavailable(ProviderError):  # noqa: N818
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


class Unanswered(ProviderError):  # noqa: N818
    """The connection broke, or the time ran out: nobody knows whether it was done."""


class Blocked(ProviderError):  # noqa: N818
    """The provider's moderation refused."""


class Rejected(ProviderError):  # noqa: N818
    """The request is wrong, or names what is not there."""


class Denied(ProviderError):  # noqa: N818
    """The key is wrong, or the account may not do this."""


class Exhausted(ProviderError):  # noqa: N818
    """The account has no money left, or has reached its hard limit."""
