"""`hosted/openai`: OpenAI, and servers that implement its API (vLLM, llama.cpp, the local mock server), by their `base_url`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.resources import files

from adapters.hosted import training
from engine.domain.conversation import ChatRow
from engine.ports.mock_server import MockServer
from engine.ports.provider import Access, Session

URL = "https://api.openai.com/v1"
PAYER = {"OPENAI_ORG_ID": "OpenAI-Organization", "OPENAI_PROJECT_ID": "OpenAI-Project"}
"""Variables of the environment that say who pays where a key is several organisations', and the headers that carry them."""


class OpenAIProvider:
    """OpenAI: files, supervised fine-tuning jobs, chat completions, moderations and batches.

    The longest answer is called `max_completion_tokens` at OpenAI and `max_tokens` elsewhere, until the server objects.
    """

    revision = 1
    base_url: str | None = URL
    key_env = "OPENAI_API_KEY"

    def connect(self, access: Access) -> Session:
        """Connect to an account.

        Raises:
            DeniedError: The environment has no such key.
            RejectedError: The base URL is none, or holds a password.
        """
        from adapters.hosted.http.client import Client, checked_url, key_of
        from adapters.hosted.openai.bodies import Limit
        from adapters.hosted.openai.session import OpenAISession

        base_url = checked_url(access.account, access.base_url or URL)
        if access.base_url is not None:
            return OpenAISession(Client(base_url, key_of(access), access.timeout), Limit.OLD)
        payer = {header: os.environ[name] for name, header in PAYER.items() if os.environ.get(name)}
        return OpenAISession(Client(base_url, key_of(access), access.timeout, more=payer), Limit.NEW)

    def training_file(self, rows: Sequence[ChatRow]) -> bytes:
        """Return a sample as JSON Lines in the chat format."""
        return training.training_file(rows)

    def objections(self, rows: Sequence[ChatRow]) -> Sequence[str]:
        """Say what will be refused in a sample: one sentence each, which begins with the row's place."""
        return training.objections(rows)

    def quota_group(self, model: str) -> str:
        """Return the base of a tuned model: OpenAI counts them together.

        >>> OpenAIProvider().quota_group("ft:gpt-4.1-mini:org::id"), OpenAIProvider().quota_group("gpt-4.1-mini")
        ('gpt-4.1-mini', 'gpt-4.1-mini')
        """
        return model.split(":")[1] if model.startswith("ft:") else model

    def tuned_prefix(self, model: str) -> str:
        """Return how the names of models tuned from this one begin."""
        return f"ft:{model}:"

    def prices(self) -> bytes:
        """Return the prices that come along, dated and with their sources."""
        return (files("adapters.hosted.openai") / "prices.yaml").read_bytes()

    def rehearsal(self) -> MockServer:
        """Return the stand-in's server."""
        from adapters.hosted.rehearsal.standin import StandinServer

        return StandinServer()
