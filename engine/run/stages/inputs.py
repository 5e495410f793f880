"""What stages read from outside the run directory, held to its pin: rows, prompts and base models, once a host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine import registry
from engine.domain.conversation import ChatRow, Prompt
from engine.domain.stage import ModelRef, Stage
from engine.plan.fingerprint import pinned
from engine.ports import Warm
from engine.registry import Kind, split_ref


def rows(warm: Warm, ref: str, pin: str) -> Mapping[str, ChatRow]:
    """Return the rows of a data source by their ids.

    Args:
        warm: Where they are kept.
        ref: The source's reference.
        pin: What it was planned as.

    Raises:
        ValueError: When it has changed since.
    """

    def read() -> dict[str, ChatRow]:
        source = registry.adapter(Kind.DATA, ref)
        argument = split_ref(ref)[1]
        _still_pinned(ref, pinned(source.card(argument).pin, source.revision), pin)
        return {row.row_id: row for row in source.rows(argument)}

    return warm.get(f"rows of {ref}", pin, read)


def prompts(warm: Warm, stage: Stage) -> Sequence[Prompt]:
    """Return the prompts of the benchmark that a stage is bound to.

    Raises:
        ValueError: When it has changed since it was planned.
    """
    ref, pin = stage.binding.benchmark, stage.binding.benchmark_pin

    def read() -> Sequence[Prompt]:
        benchmark = registry.adapter(Kind.BENCHMARK, ref)
        argument = split_ref(ref)[1]
        _still_pinned(ref, pinned(benchmark.card(argument).pin, benchmark.revision), pin)
        return benchmark.prompts(argument)

    return warm.get(f"prompts of {ref}", pin, read)


def base(warm: Warm, stage: Stage, pin: str) -> ModelRef:
    """Say where the base model is that a stage is bound to.

    Raises:
        ValueError: When it has changed since it was planned.
    """
    ref = stage.binding.model

    def find() -> ModelRef:
        source = registry.adapter(Kind.MODEL, ref)
        argument = split_ref(ref)[1]
        _still_pinned(ref, pinned(source.card(argument).pin, source.revision), pin)
        return source.locate(argument)

    return warm.get(f"place of {ref}", pin, find)


def _still_pinned(ref: str, found: str, planned: str) -> None:
    if found != planned:
        message = f"`{ref}` has changed since it was planned (planned {planned}, found {found}); plan again"
        raise ValueError(message)
