"""A part of a benchmark, stratified by category: the smaller part is always within the larger one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from engine.domain.conversation import Prompt
from engine.domain.sampling import in_proportion


def drawn(prompts: Sequence[Prompt], n: int | None) -> tuple[Prompt, ...]:
    """Return `n` prompts in the order of the benchmark, with categories in the proportions of the whole; all where `n` is None.

    Within a category, prompts are taken in the order of the SHA-256 of their ids.

    Raises:
        ValueError: There are fewer.
    """
    if n is None:
        return tuple(prompts)
    if n > len(prompts):
        raise ValueError(f"n is {n}, and the benchmark has {len(prompts)} prompts")
    hashed = sorted(prompts, key=lambda prompt: hashlib.sha256(prompt.prompt_id.encode()).hexdigest())
    places = in_proportion([prompt.category for prompt in hashed])[:n]
    chosen = {hashed[place].prompt_id for place in places}
    return tuple(prompt for prompt in prompts if prompt.prompt_id in chosen)


def pinned_as(n: int | None) -> tuple[str, ...]:
    """Return what a benchmark's pin says of the part that is taken; it has the name of the rule, so that another one shows."""
    return () if n is None else (f"n={n} by quota",)
