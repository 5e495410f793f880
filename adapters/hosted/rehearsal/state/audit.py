"""The ground truth: what the server did, as no client can tell it. Money is whole pico-dollars (1e-12 USD)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from adapters.hosted.rehearsal.settings import TUNED, Price, base_of

PICO = 10**12
LOG_LIMIT = 200_000
"""Requests that the log remembers."""


@dataclass(slots=True)
class Entry:
    """One request, as it went.

    Attributes:
        at: Seconds since the server started.
        call: `METHOD /path`.
        model: The model that it names; empty for none.
        status: HTTP status, or 0 when no reply was sent.
        code: The error's code, or which fault befell it; empty for none.
        charged: Tokens that it was charged against the limits.
        read: Prompt tokens billed.
        made: Completion tokens billed.
        seconds: How long it took.
        dropped: Whether the connection was broken on purpose.
    """

    at: float
    call: str
    model: str = ""
    status: int = 0
    code: str = ""
    charged: int = 0
    read: int = 0
    made: int = 0
    seconds: float = 0.0
    dropped: bool = False

    def line(self) -> list[object]:
        """Return it in a compact form; the audit names the columns."""
        numbers = [self.charged, self.read, self.made, round(self.seconds, 4)]
        return [round(self.at, 4), self.call, self.model, self.status, self.code, *numbers]


COLUMNS = ("at", "call", "model", "status", "code", "charged", "read", "made", "seconds")


def price_of(prices: Mapping[str, Price], model: str) -> Price:
    """Return a model's price; a tuned one's is that of `ft:` and its base, or of its base."""
    base = base_of(model)
    names = (model, f"{TUNED}{base}", base) if base != model else (model,)
    return next((prices[name] for name in names if name in prices), Price())


class Audit:
    """Counts.

    Args:
        prices: By model.
        batch_percent: Price of a batched token, in % of the usual one.

    Attributes:
        pico_dollars: Money billed so far.
    """

    def __init__(self, prices: Mapping[str, Price], batch_percent: int) -> None:
        """Start at nothing."""
        self._prices = dict(prices)
        self._batch_percent = batch_percent
        self._begun = time.monotonic()
        self._log: list[Entry] = []
        self._statuses: Counter[int] = Counter()
        self._refusals: Counter[str] = Counter()
        self._billed: Counter[tuple[str, str]] = Counter()
        self._charged: Counter[str] = Counter()
        self._in_flight = self._peak = 0
        self.pico_dollars = 0

    @contextmanager
    def flight(self, call: str) -> Iterator[Entry]:
        """Note a request from its beginning to its end; the entry is filled on the way."""
        began = time.monotonic()
        entry = Entry(began - self._begun, call)
        self._in_flight += 1
        self._peak = max(self._peak, self._in_flight)
        try:
            yield entry
        finally:
            self._in_flight -= 1
            entry.seconds = time.monotonic() - began
            self._note(entry)

    def bill(self, model: str, *, trained: int = 0, read: int = 0, made: int = 0, batched: bool = False) -> None:
        """Bill tokens of a model; training is billed by the base model's name."""
        price, percent = price_of(self._prices, model), self._batch_percent if batched else 100
        for kind, tokens, each in (
            ("train", trained, price.train),
            ("input", read, price.input),
            ("output", made, price.output),
        ):
            if tokens:
                self._billed[model, f"batch_{kind}" if batched else kind] += tokens
                self.pico_dollars += tokens * each * percent // 100

    def recall(self, billed: Mapping[str, Mapping[str, int]], pico_dollars: int) -> None:
        """Go on from what was billed before: `tokens_billed` and `pico_dollars`."""
        for model, tokens in billed.items():
            self._billed.update({(model, kind): count for kind, count in tokens.items()})
        self.pico_dollars += pico_dollars

    @property
    def tokens_billed(self) -> dict[str, dict[str, int]]:
        """Tokens billed so far, by model and kind."""
        billed: dict[str, dict[str, int]] = {}
        for (model, kind), tokens in sorted(self._billed.items()):
            billed.setdefault(model, {})[kind] = tokens
        return billed

    def shown(self, *, with_log: bool) -> dict[str, object]:
        """Return everything, as JSON."""
        accepted = sum(count for status, count in self._statuses.items() if 200 <= status < 300)  # noqa: PLR2004
        total = sum(self._statuses.values())
        dropped = self._statuses[0]
        body: dict[str, object] = {
            "tokens_billed": self.tokens_billed,
            "tokens_charged": dict(self._charged),
            "pico_dollars": self.pico_dollars,
            "usd": f"{self.pico_dollars // PICO}.{self.pico_dollars % PICO:012d}",
            "requests": total,
            "accepted": accepted,
            "rejected": total - accepted - dropped,
            "dropped": dropped,
            "rate_limited": self._statuses[429],
            "by_status": {str(status): count for status, count in sorted(self._statuses.items())},
            "by_code": dict(sorted(self._refusals.items())),
            "in_flight": self._in_flight,
            "peak_in_flight": self._peak,
        }
        return body | ({"columns": COLUMNS, "log": [entry.line() for entry in self._log]} if with_log else {})

    def _note(self, entry: Entry) -> None:
        self._statuses[entry.status] += 1
        if entry.code:
            self._refusals[entry.code] += 1
        if entry.charged:
            self._charged[base_of(entry.model)] += entry.charged
        if len(self._log) < LOG_LIMIT:
            self._log.append(entry)
