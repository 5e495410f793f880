"""The stand-in as a provider's local mock server: what the engine starts, and where its settings come from."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

from adapters.hosted.rehearsal.settings import ANY, BASE, DAY_SECONDS, JUDGE, MODELS, TUNED, ServerSettings
from engine.domain.conversation import Prompt
from engine.domain.price import PriceUnit
from engine.domain.quota import Quota
from engine.domain.stage import StageKind
from engine.domain.written import Written
from engine.ports.mock_server import MockAudit, MockModel, MockOrder, Tools

if TYPE_CHECKING:
    from adapters.hosted.rehearsal.backend.parts import Backend

JUDGED = (("standin/policy", "100"), ("standin/overrefusal", "100"))
"""The benchmarks, and their arguments, whose requests the judge can grade; smaller ones are contained in these."""

AUDIT_SECONDS = 60.0
MICRO = 1_000_000
PRICES = {"train": PriceUnit.TRAIN_MTOK, "input": PriceUnit.IN_MTOK, "output": PriceUnit.OUT_MTOK}


MANAGED = "/subscriptions/s/resourceGroups/g/providers/Microsoft.CognitiveServices/accounts/rehearsal"
"""Where Azure's deployments are managed, on any server of this kind."""


@dataclass(frozen=True, slots=True)
class StandinServer:
    """Serves the stand-in; implements `engine.ports.mock_server.MockServer`.

    Attributes:
        defaults: The dialect, where it is not OpenAI's.
    """

    defaults: Mapping[str, object] = field(default_factory=dict)

    settings = ServerSettings
    key = "sk-test-rehearsal"

    def settings_for(self, order: MockOrder) -> Mapping[str, object]:
        """Return the settings with which it stands for an account: its limits, prices and models."""
        plays = _plays(order)
        return {
            **self.defaults,
            "folder": str(order.folder),
            "time_scale": order.speed,
            **({"plays": plays} if plays else {}),
            "prices": _prices(order),
            "quota": {
                "limits": {ANY: _limits(order.quota)},
                "day_seconds": DAY_SECONDS / order.speed,
                "charge": "settled" if order.quota.output_settles else "reserved",
            },
        }

    def serve(self, settings: Written, port: int, tools: Tools, ready: Callable[[str], None]) -> None:
        """Serve until KeyboardInterrupt is raised.

        Raises:
            OSError: The port is taken.
            StoreError: The folder of the settings cannot be used.
            TypeError: The settings are another server's.
        """
        from adapters.hosted.rehearsal.server import base_url, listen, serve

        if not isinstance(settings, ServerSettings):
            raise TypeError(settings)
        bound = listen(port)
        url = base_url(bound, settings)
        serve(bound, settings, backend(tools), lambda: ready(url))

    def environment(self, base_url: str, key_env: str) -> Mapping[str, str]:
        """Return the variables that an account needs to reach a running server."""
        found = {key_env: self.key}
        if self.defaults.get("dialect") == "azure":
            found[f"{key_env}_DEPLOYMENTS_URL"] = _root(base_url) + MANAGED
            found[f"{key_env}_DEPLOYMENTS_TOKEN"] = self.key
        return found

    def audit(self, base_url: str) -> MockAudit:
        """Return what a running server has done so far."""
        root = _root(base_url)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on this machine
        with opener.open(f"{root}/__audit", timeout=AUDIT_SECONDS) as reply:
            found = json.load(reply)
        return MockAudit(found["requests"], found["rate_limited"], found["peak_in_flight"], Decimal(found["usd"]))


def _root(base_url: str) -> str:
    """Return a server's address, without the path of its API."""
    return base_url.rpartition("/v1")[0].removesuffix("/openai")


def backend(tools: Tools) -> Backend:
    """Return what trains, answers and grades behind the API."""
    from adapters.hosted.rehearsal.backend.parts import Backend, settings_of

    prompts: dict[str, Prompt] = {}
    for name, argument in JUDGED:
        benchmark = tools.adapter("benchmarks", name)
        settings = settings_of(benchmark)
        known = benchmark.prompts(settings.model_validate(settings.of_argument(argument)))
        prompts |= {prompt.text: prompt for prompt in known}
    return Backend(
        tuner=tools.adapter("tuners", "local/sft"),
        generator=tools.adapter("generators", "local/transformers"),
        judge=tools.adapter("judges", "standin/rules"),
        source=tools.adapter("models", "standin/aligned"),
        prompts=prompts,
        warm=tools.warm,
    )


def _limits(quota: Quota) -> dict[str, int]:
    limits = {
        "rpm": quota.requests_per_minute,
        "tpm": quota.tokens_per_minute,
        "tpd": quota.tokens_per_day,
        "running_jobs": quota.concurrent_jobs,
        "daily_jobs": quota.jobs_per_day,
    }
    return {name: limit for name, limit in limits.items() if limit is not None}


def _plays(order: MockOrder) -> dict[str, str]:
    """Say which of its models plays which of the sweep's; a model that is only a judge grades where it is asked to."""
    answering = {model.name for model in order.models if model.kind is not StageKind.JUDGE}
    names = {model.name for model in order.models} - set(MODELS)
    return {name: BASE if name in answering else JUDGE for name in sorted(names)}


def _prices(order: MockOrder) -> dict[str, dict[str, int]]:
    """Return prices in whole micro-dollars a million tokens, by model; `ft:` and the base model for tuned ones."""
    found: dict[str, dict[str, int]] = {}
    for model in order.models:
        known = {name: int(model.usd[unit] * MICRO) for name, unit in PRICES.items() if unit in model.usd}
        found.setdefault(_priced(model), {}).update(known)
    return found


def _priced(model: MockModel) -> str:
    return f"{TUNED}{model.name}" if model.is_tuned else model.name
