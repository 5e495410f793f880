"""The bodies of OpenAI's requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

from adapters.hosted.openai.replies import KEY
from adapters.hosted.training import json_line
from engine.ports.chat import ChatRequest
from engine.ports.provider import JobOrder
from engine.ports.provider_errors import RejectedError

CHAT = "/v1/chat/completions"
"""How a batch calls the endpoint."""


class Limit(StrEnum):
    """How a server wants the longest answer written: OpenAI's newer models refuse the old name, older servers the new."""

    NEW = "max_completion_tokens"
    OLD = "max_tokens"

    @property
    def other(self) -> Limit:
        """The other name."""
        return Limit.OLD if self is Limit.NEW else Limit.NEW


def chat(request: ChatRequest, limit: Limit) -> dict[str, object]:
    """Return the body of a chat completion. What the request leaves at its default is not sent."""
    body: dict[str, object] = {
        "model": request.model,
        "messages": [{"role": turn.role, "content": turn.text} for turn in request.turns],
        limit.value: request.max_tokens,
        "temperature": request.temperature,
    }
    if request.top_p != 1:
        body["top_p"] = request.top_p
    if request.samples != 1:
        body["n"] = request.samples
    if request.seed is not None:
        body["seed"] = request.seed
    if request.schema is not None:
        form = {"name": "answer", "schema": dict(request.schema), "strict": _is_closed(request.schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": form}
    return body


def job(order: JobOrder) -> dict[str, object]:
    """Return the body of a fine-tuning job. What is left to the provider's choice is not sent."""
    hyperparameters: dict[str, object] = {"n_epochs": order.epochs}
    if order.batch_size is not None:
        hyperparameters["batch_size"] = order.batch_size
    if order.lr_multiplier is not None:
        hyperparameters["learning_rate_multiplier"] = order.lr_multiplier
    return {
        "model": order.model,
        "training_file": order.file_id,
        "method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
        "metadata": {KEY: order.key},
        "seed": order.seed,
        "suffix": order.suffix,
    }


def lines(values: Iterable[Mapping[str, object]]) -> bytes:
    """Return values as JSON Lines.

    Raises:
        RejectedError: A text holds half of a character.
    """
    try:
        return "".join(map(json_line, values)).encode()
    except UnicodeEncodeError:
        raise RejectedError("a text holds half of a character (a lone surrogate), which cannot be sent") from None


def _is_closed(schema: object) -> bool:
    """Tell whether every object in a schema lists all of its fields as required: only then may it be called strict."""
    if isinstance(schema, Mapping):
        if "properties" in schema:
            named, required = schema["properties"], schema.get("required", ())
            if schema.get("additionalProperties") is not False or set(named) != set(required):
                return False
        return all(_is_closed(part) for part in schema.values())
    return all(_is_closed(part) for part in schema) if isinstance(schema, list | tuple) else True
