"""What stages read from outside the run directory, held to its pin: rows, prompts and base models, once a worker.

Every function raises ValueError when that has changed since it was planned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from engine import registry
from engine.domain.adapters import Kind, Use
from engine.domain.conversation import ChatRow, Prompt
from engine.domain.stage import JudgeWork, ModelRef, Pinned
from engine.plan.fingerprint import pinned
from engine.ports import Warm

T = TypeVar("T")


def rows(warm: Warm, source: Pinned) -> Mapping[str, ChatRow]:
    """Return the rows of a data source by their ids."""
    adapter = registry.adapter(Kind.DATA, source.use.name)
    return _read(warm, "rows", source, adapter, lambda found: {row.row_id: row for row in adapter.rows(found)})


def prompts(warm: Warm, benchmark: Pinned) -> Sequence[Prompt]:
    """Return the prompts of a benchmark."""
    adapter = registry.adapter(Kind.BENCHMARK, benchmark.use.name)
    return _read(warm, "prompts", benchmark, adapter, adapter.prompts)


def base(warm: Warm, model: Pinned) -> ModelRef:
    """Say where a base model is."""
    adapter = registry.adapter(Kind.MODEL, model.use.name)
    return _read(warm, "place", model, adapter, adapter.locate)


def judge_is_pinned(warm: Warm, work: JudgeWork) -> None:
    """Make sure that a judge reads what it read when it was planned, such as a policy or a folder of weights."""
    judge = registry.adapter(Kind.JUDGE, work.use.name)
    found = warm.get(f"pin of {work.use}", work.pin, lambda: judge.needs(work.use.settings).pin)
    _still(work.use, work.pin, found)


def _read(warm: Warm, what: str, planned: Pinned, adapter: Any, read: Callable[[Any], T]) -> T:
    """Read something once, if its card is the one that was planned with."""
    settings = planned.use.settings

    def checked() -> T:
        _still(planned.use, planned.pin, pinned(adapter.card(settings).pin, adapter.revision))
        return read(settings)

    return warm.get(f"{what} of {planned.use}", planned.pin, checked)


def _still(use: Use, planned: str, found: str) -> None:
    if found != planned:
        raise ValueError(
            f"what `{use}` reads has changed since it was planned (planned {planned}, found {found}); plan again"
        )
