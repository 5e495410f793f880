"""Chat completions: reading a request, having it answered, and the reply's form."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response as Reply

from adapters.hosted.rehearsal.api import ApiError, Json, json_reply, read_body
from adapters.hosted.rehearsal.backend import echo, grading
from adapters.hosted.rehearsal.backend.parts import settings_of
from adapters.hosted.rehearsal.backend.training_file import SPEAKERS
from adapters.hosted.rehearsal.limits.quotas import charge
from adapters.hosted.rehearsal.settings import ECHO, JUDGE, FaultKind
from adapters.hosted.rehearsal.state.account import MockAccount
from adapters.hosted.rehearsal.state.audit import Entry
from adapters.hosted.rehearsal.state.records import GREATEST_SEED
from engine.domain.conversation import Prompt, Turn
from engine.domain.results import Finish
from engine.domain.sweep import Decoding
from engine.ports import GenerateTask


class Message(BaseModel):
    """One turn; its content is a text."""

    role: str
    content: str


class ChatBody(BaseModel):
    """The body of a chat completion, as far as anything here looks at it."""

    model_config = ConfigDict(extra="ignore")

    model: str
    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    n: int | None = Field(default=None, ge=1, le=128)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = None
    response_format: dict[str, Any] | None = None
    stream: bool | None = None

    @property
    def longest(self) -> int:
        """The longest answer that the request allows, in tokens; 0 where it does not say."""
        return self.max_completion_tokens or self.max_tokens or 0

    @property
    def samples(self) -> int:
        """Answers wanted."""
        return self.n or 1

    @property
    def characters(self) -> int:
        """Characters of all turns."""
        return sum(len(message.content) for message in self.messages)

    @property
    def question(self) -> str:
        """The last user turn, or the last turn where no user has one."""
        asked = [message.content for message in self.messages if message.role == "user"]
        return asked[-1] if asked else self.messages[-1].content

    @property
    def wanted(self) -> tuple[str, ...]:
        """The fields of the JSON schema that the answer must follow; none for free text."""
        schema = (self.response_format or {}).get("json_schema", {}).get("schema", {}) if self.wants_json else {}
        return tuple(schema.get("properties", ()))

    @property
    def wants_json(self) -> bool:
        """Whether the answer must follow a JSON schema."""
        return (self.response_format or {}).get("type") == "json_schema"


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """The answers to a request as choices, with the tokens that were read and made."""

    choices: Sequence[Json]
    read: int
    made: int


async def create(account: MockAccount, request: Request) -> Reply:
    """POST /v1/chat/completions."""
    body = await read_body(request, ChatBody)
    entry: Entry = request.state.entry
    model = entry.model = model_of(account, body)
    account.check_money()
    hold = account.quotas.admit(model, charge(body.longest, body.samples, body.characters))
    entry.charged = hold.tokens
    answer = await answered(account, body, model, entry.call)
    account.quotas.settle(hold, answer.read + answer.made)
    entry.charged, entry.read, entry.made = hold.tokens, answer.read, answer.made
    account.audit.bill(model, read=answer.read, made=answer.made)
    return json_reply(shown(account, body.model, answer))


def model_of(account: MockAccount, body: ChatBody) -> str:
    """Return the model that a request means, once it may be asked.

    Raises:
        ApiError: 404 where there is no such model, 400 where it cannot do what is asked.
    """
    model = account.deployments[body.model].model if body.model in account.deployments else body.model
    if account.is_azure and not _is_deployed(account, body.model):
        message = "The API deployment for this resource does not exist. If you created it lately, wait a moment."
        raise ApiError(404, message, code="DeploymentNotFound")
    if model not in account.settings.models and model not in account.tuned:
        message = f"The model `{body.model}` does not exist or you do not have access to it."
        raise ApiError(404, message, code="model_not_found", param="model")
    if body.stream:
        raise ApiError(400, "This server does not stream.", code="unsupported_value", param="stream")
    if body.wants_json and not grades(account, body, model):
        message = "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model."
        raise ApiError(400, message, param="response_format")
    return model


def grades(account: MockAccount, body: ChatBody, model: str) -> bool:
    """Whether a request is for a grade: of the judge, or of a model of another name that is asked as a judge is."""
    is_other = model in account.settings.plays and grading.blocks(body.question) is not None
    return account.settings.part(model) == JUDGE or is_other


async def answered(account: MockAccount, body: ChatBody, model: str, call: str) -> ChatAnswer:
    """Have a request answered, after as long as answers take here.

    Raises:
        ApiError: The request does not suit the model, or the model failed.
    """
    await asyncio.sleep(account.draw.uniform(*account.settings.latency))
    answer = await _made(account, body, model)
    if account.faults.strikes(FaultKind.FILTERED, call):
        return replace(answer, choices=[_choice("", "content_filter")] * len(answer.choices))
    return answer


def shown(account: MockAccount, model: str, answer: ChatAnswer) -> Json:
    """Return a chat completion."""
    return {
        "id": account.new_id("chatcmpl-"),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": index, **choice} for index, choice in enumerate(answer.choices)],
        "usage": {
            "prompt_tokens": answer.read,
            "completion_tokens": answer.made,
            "total_tokens": answer.read + answer.made,
        },
    }


def _is_deployed(account: MockAccount, name: str) -> bool:
    """Whether a name answers on Azure: base models do by their own, tuned ones by that of a deployment."""
    deployment = account.deployments.get(name)
    return name not in account.tuned if deployment is None else deployment.is_ready


async def _made(account: MockAccount, body: ChatBody, model: str) -> ChatAnswer:
    longest = body.longest or account.settings.default_max_tokens
    part = account.settings.part(model)
    if part == ECHO:
        given = [echo.answer(body.question, sample, longest) for sample in range(body.samples)]
        choices = [_choice(text, "length" if is_cut else "stop") for text, _, is_cut in given]
        return ChatAnswer(choices, _estimated(body), sum(count for _, count, _ in given))
    if grades(account, body, model):
        grade = grading.grade(account.backend, body.question, body.wanted)
        judged = _choice(None, refusal=grade.refusal) if grade.refusal else _choice(grade.text)
        made = echo.tokens(grade.refusal or grade.text) * body.samples
        return ChatAnswer([judged] * body.samples, _estimated(body), made)
    return await _asked(account, body, model, longest)


async def _asked(account: MockAccount, body: ChatBody, model: str, longest: int) -> ChatAnswer:
    """Have the stand-in answer, base or tuned."""
    warmth = 1.0 if body.temperature is None else body.temperature
    seed = account.draw.randrange(GREATEST_SEED) if body.seed is None else body.seed % GREATEST_SEED
    sampled = Decoding(longest, warmth, body.top_p or 1.0, body.samples)
    settings = sampled if warmth > 0 else Decoding(longest)
    system, turns = _chat(body)
    weights, own = account.backend.model(account.tuned.get(model)), settings_of(account.backend.generator)()
    task = GenerateTask("", weights, [Prompt("", "", turns)], system, settings, own, seed)
    try:
        responses = await account.answerer.ask(task)
    except RuntimeError as error:
        message = f"The server had an error while processing your request: {error}"
        raise ApiError(500, message, "server_error") from error
    times = body.samples if len(responses) == 1 else 1  # greedy answers are all the same one
    choices = [_choice(one.text, "length" if one.finish is Finish.LENGTH else "stop") for one in responses]
    tokens = sum(one.generated_tokens for one in responses) * times
    return ChatAnswer(choices * times, responses[0].prompt_tokens, tokens)


def _chat(body: ChatBody) -> tuple[str | None, tuple[Turn, ...]]:
    """Return the system prompt, and the turns of users and assistants.

    Raises:
        ApiError: 400, when there are others, or the last turn is not a user's.
    """
    roles = [SPEAKERS.get(message.role) for message in body.messages]
    turns = [Turn(role, one.content) for role, one in zip(roles, body.messages, strict=True) if role is not None]
    if roles[-1] != "user" or None in roles or "system" in roles[1:]:
        shown = ", ".join(message.role for message in body.messages)
        message = f"This model takes turns of users and assistants, a user's last, after a system prompt or none; got {shown}."
        raise ApiError(400, message, code="invalid_value", param="messages")
    return (turns.pop(0).text if roles[0] == "system" else None), tuple(turns)


def _choice(text: str | None, finish: str = "stop", refusal: str | None = None) -> Json:
    return {"message": {"role": "assistant", "content": text, "refusal": refusal}, "finish_reason": finish}


def _estimated(body: ChatBody) -> int:
    return sum(echo.tokens(message.content) for message in body.messages)
