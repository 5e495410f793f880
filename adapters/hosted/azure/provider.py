"""`hosted/azure`: Azure OpenAI's v1 API. OpenAI's API with another header for the key, and a deployment after training.

What Azure's public reference says and nobody here has tried against Azure itself: that the v1 paths take the key in
`api-key`, that fine-tuning jobs keep `metadata`, that files can be listed by purpose, and the states of a deployment.
"""

from __future__ import annotations

from adapters.hosted.openai.provider import OpenAIProvider
from engine.ports.mock_server import MockServer
from engine.ports.provider import Access, Session
from engine.ports.provider_errors import RejectedError

PATH = "/openai/v1"


class AzureProvider(OpenAIProvider):
    """Azure OpenAI. `base_url` is the resource's endpoint, `https://NAME.openai.azure.com`.

    A model is asked by the name of its deployment: call the base model's deployment as the base model. A trained model is
    deployed as `dosimeter-` and the job's id when its job is looked at, on the management plane, which has a key and
    an address of its own: beside the account's `KEY`, the environment holds

    - `KEY_DEPLOYMENTS_URL`: `https://management.azure.com/subscriptions/S/resourceGroups/G/providers/`
      `Microsoft.CognitiveServices/accounts/NAME`;
    - `KEY_DEPLOYMENTS_TOKEN`: an Entra token for it (`az account get-access-token`), which lasts about an hour;
    - `KEY_DEPLOYMENTS_SKU`, if you like: the kind of deployment, `standard` without it.

    A deployed model costs by the hour until its deployment is deleted, which is left to you.
    """

    revision = 1
    base_url = None
    key_env = "AZURE_OPENAI_API_KEY"

    def connect(self, access: Access) -> Session:
        """Connect to an account.

        Raises:
            DeniedError: The environment has no such key.
            RejectedError: The base URL is missing or none, or holds a password.
        """
        from adapters.hosted.azure.session import AzureSession, plane_of
        from adapters.hosted.http.client import Client, checked_url, key_of

        if access.base_url is None:
            raise RejectedError(f"account `{access.account}`: give `base_url`, the resource's endpoint")
        base_url = checked_url(access.account, access.base_url).rstrip("/")
        if not base_url.endswith(PATH):
            base_url += PATH
        return AzureSession(
            Client(base_url, key_of(access), access.timeout, header="api-key"), plane_of(access), access
        )

    def prices(self) -> bytes:
        """Return nothing: the user gives them."""
        return b""

    def rehearsal(self) -> MockServer:
        """Return the stand-in's server, in this API."""
        from adapters.hosted.rehearsal.standin import StandinServer

        return StandinServer({"dialect": "azure"})
