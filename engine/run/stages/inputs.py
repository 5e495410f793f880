"""What stages read from outside the run directory, held to its pin: rows, prompts and base models, once a worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.conversation import ChatRow, Prompt
from engine.domain.stage import JudgeWork, ModelRef, Pinned
from engine.plan.fingerprint import pinned
from engine.ports import Warm


def rows(warm: Warm, source: Pinned) -> Mapping[str, ChatRow]:
    """Return the rows of a data source by their ids.

    Raises:
        ValueError: When it has changed since it was planned.
    """

    def read() -> dict[str, ChatRow]:
        adapter = registry.adapter(Kind.DATA, source.use.name)
        _still_pinned(source, adapter.card(source.use.settings).pin, adapter.revision)
        return {row.row_id: row for row in adapter.rows(source.use.settings)}

    return warm.get(f"rows of {source.use}", source.pin, read)


def prompts(warm: Warm, benchmark: Pinned) -> Sequence[Prompt]:
    """Return the prompts of a benchmark.

    Raises:
        ValueError: When it has changed since it was planned.
    """

    def read() -> Sequence[Prompt]:
        adapter = registry.adapter(Kind.BENCHMARK, benchmark.use.name)
        _still_pinned(benchmark, adapter.card(benchmark.use.settings).pin, adapter.revision)
        return adapter.prompts(benchmark.use.settings)

    return warm.get(f"prompts of {benchmark.use}", benchmark.pin, read)


def base(warm: Warm, model: Pinned) -> ModelRef:
    """Say where a base model is.

    Raises:
        ValueError: When it has changed since it was planned.
    """

    def find() -> ModelRef:
        adapter = registry.adapter(Kind.MODEL, model.use.name)
        _still_pinned(model, adapter.card(model.use.settings).pin, adapter.revision)
        return adapter.locate(model.use.settings)

    return warm.get(f"place of {model.use}", model.pin, find)


def judge_is_pinned(warm: Warm, work: JudgeWork) -> None:
    """Make sure that a judge reads what it read when it was planned, such as a policy or a folder of weights.

    Raises:
        ValueError: It has changed since.
    """

    def find() -> str:
        return registry.adapter(Kind.JUDGE, work.use.name).needs(work.use.settings).pin

    found = warm.get(f"pin of {work.use}", work.pin, find)
    if found != work.pin:
        message = (
            f"what `{work.use}` reads has changed since it was planned (planned {work.pin}, found {found}); plan again"
        )
        raise ValueError(message)


def _still_pinned(planned: Pinned, pin: str, revision: int) -> None:
    found = pinned(pin, revision)
    if found != planned.pin:
        message = f"`{planned.use}` has changed since it was planned (planned {planned.pin}, found {found}); plan again"
        raise ValueError(message)
