"""`hosted/openai`: OpenAI, and servers that implement its API (vLLM, llama.cpp and the rehearsal server, by their `base_url`)."""

from __future__ import annotations

from collections.abc import Sequence

from adapters.hosted import training
from engine.domain.conversation import ChatRow
from engine.ports.provider import Access, Session


class OpenAIProvider:
    """OpenAI: files, supervised fine-tuning jobs, chat completions, moderations and batches.

    The longest answer is called `max_completion_tokens` at OpenAI and `max_tokens` elsewhere, until the server objects.
    """

    revision = 1
    base_url = "https://api.openai.com/v1"

    def connect(self, access: Access) -> Session:
        """Connect to an account.

        Raises:
            DeniedError: The environment has no such key.
            RejectedError: The base URL is none, or holds a password.
        """
        from adapters.hosted.http.client import Client, checked_url, key_of
        from adapters.hosted.openai.bodies import Limit
        from adapters.hosted.openai.session import OpenAISession

        # Named outright: the SDK's own default can be moved by the environment, and the key would go there.
        base_url = checked_url(access.account, access.base_url or self.base_url)
        client = Client(base_url, key_of(access), access.timeout)
        return OpenAISession(client, Limit.NEW if access.base_url is None else Limit.OLD)

    def training_file(self, rows: Sequence[ChatRow]) -> bytes:
        """Return a sample as JSON Lines in the chat format."""
        return training.training_file(rows)

    def objections(self, rows: Sequence[ChatRow]) -> Sequence[str]:
        """Say what will be refused in a sample: one sentence each, which begins with the row's place."""
        return training.objections(rows)
