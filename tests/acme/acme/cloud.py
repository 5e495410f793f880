"""A provider, and what works on the models that it hosts. It answers at once, and nothing is ever sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pydantic import Field

from engine.domain.adapters import ModelUse
from engine.domain.conversation import ChatRow, Prompt, Turn
from engine.domain.cost import Range, Usage
from engine.domain.results import Finish, Measure, Outcome, Response, Verdict
from engine.domain.stage import ModelRef
from engine.domain.sweep import Decoding, Length
from engine.ports import (
    Context,
    Generated,
    GenerateTask,
    ModelCard,
    Needs,
    NoSettings,
    Pairs,
    Settings,
    Sharing,
    TrainingRun,
    Workload,
)
from engine.ports.chat import ChatRequest, Choice, Completion, FinishReason
from engine.ports.provider import Access
from engine.ports.provider_errors import ProviderError, RejectedError

from .clay import taking

FEWEST = 3


class CloudSettings(Settings):
    """Which model."""

    argument = "name"

    name: str = Field(description="Its name there.")


class CloudModel:
    """A hosted model, pinned by its name."""

    revision = 1
    Settings = CloudSettings

    def card(self, settings: CloudSettings) -> ModelCard:
        return ModelCard(pin=f"rev:{settings.name}", parameters=None, detail="hosted")

    def locate(self, settings: CloudSettings) -> ModelRef:
        return ModelRef(settings.name)

    def row_lengths(self, settings: CloudSettings, rows: Sequence[ChatRow]) -> list[int]:
        del settings
        return [sum(len(turn.text.split()) for turn in row.turns) for row in rows]

    def prompt_lengths(self, settings: CloudSettings, prompts: Sequence[Prompt], system: str | None) -> list[int]:
        del settings
        opening = len(system.split()) if system else 0
        return [opening + sum(len(turn.text.split()) for turn in prompt.turns) for prompt in prompts]


class CloudTuner:
    """Plans with the provider's fine-tuning; every job is refused."""

    revision = 1

    def objection(self, settings: NoSettings, length: Length, model: ModelRef) -> str | None:
        del settings, model
        return "the provider knows no `tune.steps`" if length.epochs is None else None

    def warm_up(self) -> None:
        """Need nothing."""

    def fine_tune(self, runs: Sequence[TrainingRun], context: Context) -> Iterator[tuple[str, Exception]]:
        del context
        for run in runs:
            yield from ((checkpoint.key, RejectedError("no job is made here")) for checkpoint in run.checkpoints)

    def forecast(self, settings: NoSettings, length: Length, workload: Workload) -> Range:
        del settings
        return taking(0.0, train_tokens=workload.tokens * (length.epochs or 0))

    def sharing(self, settings: NoSettings) -> Sharing:
        del settings
        return Sharing("use", "use")


class CloudVoice:
    """Asks the account for every answer.

    Attributes:
        ends: What is raised after the answers to a task were bought, one after another.
    """

    revision = 1

    def __init__(self) -> None:
        self.ends: list[BaseException] = []

    def notes(self, settings: NoSettings, decoding: Decoding, model: ModelRef) -> Sequence[str]:
        del settings, decoding
        return (f"the voice of {model.base} is loud",)

    def forecast(self, settings: NoSettings, decoding: Decoding, workload: Workload) -> Range:
        del settings
        most = Usage(prompt_tokens=20 * workload.items, generated_tokens=decoding.max_new_tokens * workload.items)
        return Range(most.scaled(0.5), most.scaled(0.75), most)

    def warm_up(self) -> None:
        """Need nothing."""

    def generate(self, tasks: Sequence[GenerateTask], context: Context) -> Iterator[tuple[str, Generated | Exception]]:
        assert context.account is not None
        limit = tasks[0].decoding.max_new_tokens
        asked = {
            task.key: [ChatRequest(task.model.base, prompt.turns, limit) for prompt in task.prompts] for task in tasks
        }
        prompts = {task.key: task.prompts for task in tasks}
        for key, replies in context.account.complete_all(asked, urgent=False):
            if self.ends:
                raise self.ends.pop(0)
            texts = [reply.choices[0].text if isinstance(reply, Completion) else "" for reply in replies]
            pairs = zip(prompts[key], texts, strict=True)
            made = [Response(prompt.prompt_id, 0, text, Finish.STOP, 20, 5) for prompt, text in pairs]
            yield key, Generated(made, sum((one.usage for one in replies if isinstance(one, Completion)), Usage()))


class OracleSettings(Settings):
    """Whom it asks."""

    argument = "model"

    model: ModelUse = Field(description="The hosted model.")


class Oracle:
    """A judge of harm that asks a hosted model."""

    revision = 1
    measures = Measure.HARM
    Settings = OracleSettings

    def needs(self, settings: OracleSettings) -> Needs:
        return Needs(model=settings.model)

    def objection(self, settings: OracleSettings, prompts: Sequence[Prompt]) -> str | None:
        """Grade whatever there is."""

    def forecast(self, settings: OracleSettings, pairs: Pairs) -> Range:
        del settings
        tokens = pairs.prompt_tokens + pairs.items * pairs.max_new_tokens
        return taking(0.0, prompt_tokens=tokens, generated_tokens=pairs.items)

    def requests(
        self, settings: OracleSettings, prompts: Sequence[Prompt], responses: Sequence[Response]
    ) -> Sequence[ChatRequest]:
        pairs = zip(prompts, responses, strict=True)
        texts = [f"{prompt.text}: {response.text}" for prompt, response in pairs]
        return [ChatRequest(settings.model.argument, (Turn("user", text),), 8) for text in texts]

    def verdicts(
        self,
        settings: OracleSettings,
        prompts: Sequence[Prompt],
        responses: Sequence[Response],
        replies: Sequence[Completion | ProviderError],
    ) -> Sequence[Verdict]:
        """Grade every answer 1; a request that was refused has no grade."""
        del settings, prompts, responses
        return [
            Verdict(Outcome.SCORED, 1.0)
            if isinstance(reply, Completion)
            else Verdict(Outcome.ERRORED, None, str(reply))
            for reply in replies
        ]


class CloudSession:
    """A connection to an account: it answers at once. No test asks it for anything else."""

    async def complete(self, request: ChatRequest) -> Completion:
        del request
        return Completion((Choice("well", FinishReason.STOP),), 20, 0, 5)

    async def batches(self) -> Mapping[str, str]:
        return {}

    async def close(self) -> None:
        """Hold nothing open."""


class Cloud:
    """The provider. It refuses rows that shout, and samples that are too small."""

    revision = 1
    base_url = "https://cloud.example/v1"
    key_env = "ACME_CLOUD_KEY"

    def connect(self, access: Access) -> CloudSession:
        del access
        return CloudSession()

    def training_file(self, rows: Sequence[ChatRow]) -> bytes:
        return "\n".join(row.turns[-1].text for row in rows).encode()

    def objections(self, rows: Sequence[ChatRow]) -> Sequence[str]:
        loud = [f"row {row.row_id} shouts" for row in rows if row.turns[-1].text.isupper()]
        return loud + ([f"all rows: the sample has {len(rows)}, and {FEWEST} are needed"] if len(rows) < FEWEST else [])

    def quota_group(self, model: str) -> str:
        return model

    def tuned_prefix(self, model: str) -> str:
        return f"{model}-tuned-"

    def prices(self) -> bytes:
        """Know none."""
        return b""

    def rehearsal(self) -> None:
        """Bring no mock server."""
