"""The mock server that providers bring: its settings follow from the account, and the provider reaches it as its own."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from adapters.hosted.azure.provider import AzureProvider
from adapters.hosted.openai.provider import OpenAIProvider
from adapters.hosted.rehearsal.server import serving
from adapters.hosted.rehearsal.settings import Limits, Price, ServerSettings
from adapters.hosted.rehearsal.standin import backend
from adapters.hosted.together.provider import TogetherProvider
from engine.cli.serve_verb import chosen, tools
from engine.domain.price import PriceUnit
from engine.domain.quota import Quota
from engine.domain.stage import StageKind
from engine.ports.chat import ChatRequest, Turn
from engine.ports.mock_server import MockModel, MockOrder
from engine.ports.provider import Access, Job, JobOrder

from .conftest import Instant

USD = {PriceUnit.TRAIN_MTOK: Decimal("3.00"), PriceUnit.IN_MTOK: Decimal("0.15")}
KEY_ENV = "STANDIN_TEST_KEY"


def order(folder: Path) -> MockOrder:
    models = (
        MockModel("base-8b", StageKind.TUNE, usd=USD),
        MockModel("base-8b", StageKind.GENERATE, is_tuned=True, usd={PriceUnit.OUT_MTOK: Decimal("1.20")}),
        MockModel("grader", StageKind.JUDGE),
        MockModel("standin-echo", StageKind.GENERATE),
    )
    return MockOrder(Quota(tokens_per_minute=9000, concurrent_jobs=2, output_settles=True), models, folder, 600.0)


def test_its_settings_follow_from_what_the_account_is_to_be_like(tmp_path: Path) -> None:
    found = ServerSettings.model_validate(AzureProvider().rehearsal().settings_for(order(tmp_path)))
    assert (found.dialect, found.folder, found.time_scale) == ("azure", tmp_path, 600.0)
    assert found.plays == {"base-8b": "standin-aligned", "grader": "standin-judge"}
    assert found.quota.of("base-8b") == Limits(tpm=9000, running_jobs=2)
    assert (found.quota.charge, found.quota.day_seconds) == ("settled", 144.0)
    assert found.prices["base-8b"] == Price(train=3_000_000, input=150_000)
    assert found.prices["ft:base-8b"] == Price(output=1_200_000)


@pytest.mark.parametrize("kind", [OpenAIProvider, AzureProvider, TogetherProvider])
def test_its_provider_reaches_it_and_its_tuned_models(
    kind: type[OpenAIProvider], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider, server = kind(), kind().rehearsal()
    settings = {**server.settings_for(order(tmp_path)), "time_scale": 10_000.0}
    absolute = kind is TogetherProvider
    wanted = JobOrder(
        "tune-" + "a" * 32, "base-8b", "", 1, 5, None if absolute else 1.0, 0, "s", 1e-3 if absolute else None
    )

    async def tuned(url: str) -> Job:
        session = provider.connect(Access("lab", url, KEY_ENV))
        try:
            rows = tools().adapter("data", "standin/explicit").rows("")[:10]
            file_id = await session.upload("a.jsonl", provider.training_file(rows))
            job = await session.create_job(replace(wanted, file_id=file_id))
            while not job.state.is_over:
                await asyncio.sleep(0.02)
                job = await session.job(job.job_id)
            assert (await session.complete(ChatRequest(job.tuned_model or "", (Turn("user", "hi"),), 4))).choices
            return job
        finally:
            await session.close()

    with serving(ServerSettings.model_validate(settings), backend(tools()), process=Instant) as url:
        for name, value in server.environment(url, KEY_ENV).items():
            monkeypatch.setenv(name, value)
        job = asyncio.run(tuned(url))
        audit = server.audit(url)
    assert job.tuned_model
    assert audit.requests > 3
    assert audit.usd > 0


def test_without_a_providers_name_the_plain_form_is_served() -> None:
    assert chosen(None).defaults == {}
    assert chosen("hosted/together").defaults == {"dialect": "together"}
