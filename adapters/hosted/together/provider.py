"""`hosted/together`: Together AI. It answers as OpenAI does; files, fine-tunes and batches have forms of their own.

What its public reference says and nobody here has tried against Together itself: that a job's `suffix` comes back as it was
sent, that `token_count` has all epochs in it, and that files can be uploaded in one request.
"""

from __future__ import annotations

from collections.abc import Sequence

from adapters.hosted import training
from adapters.hosted.openai.provider import OpenAIProvider
from engine.domain.conversation import ChatRow
from engine.ports.mock_server import MockServer
from engine.ports.provider import Access, Session

URL = "https://api.together.ai/v1"

BOUNDS = training.Bounds(fewest_rows=1, most_rows=None, most_bytes=50 * 2**30, most_tokens=None, has_special=False)
"""Source: the `together` SDK's own check of files (3.1.1). The longest example is the model's."""


class TogetherProvider(OpenAIProvider):
    """Together AI: files, LoRA fine-tunes, chat completions and batches; it has no moderation endpoint.

    A learning rate is absolute there: the tuner takes `tune.lr`. What else the provider would choose is sent as the defaults
    of `local/sft` have it. A trained model answers where it is served; deploying it is left to you.
    """

    revision = 1
    base_url = URL
    key_env = "TOGETHER_API_KEY"

    def connect(self, access: Access) -> Session:
        """Connect to an account.

        Raises:
            DeniedError: The environment has no such key.
            RejectedError: The base URL is none, or holds a password.
        """
        from adapters.hosted.http.client import Client, checked_url, key_of
        from adapters.hosted.openai.bodies import Limit
        from adapters.hosted.together.session import TogetherSession

        base_url = checked_url(access.account, access.base_url or URL)
        return TogetherSession(Client(base_url, key_of(access), access.timeout), Limit.OLD)

    def objections(self, rows: Sequence[ChatRow]) -> Sequence[str]:
        """Say what will be refused in a sample: one sentence each, which begins with the row's place."""
        return training.objections(rows, BOUNDS)

    def prices(self) -> bytes:
        """Return nothing: the user gives them."""
        return b""

    def rehearsal(self) -> MockServer:
        """Return the stand-in's server, in this API."""
        from adapters.hosted.rehearsal.standin import StandinServer

        return StandinServer({"dialect": "together"})
