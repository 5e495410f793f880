"""A part of a benchmark, stratified by category: the smaller part is always within the larger one."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from engine.domain.conversation import Prompt


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
    sizes = Counter(prompt.category for prompt in prompts)
    seen: Counter[str] = Counter()
    places = []
    for prompt in sorted(prompts, key=_order):
        places.append(((seen[prompt.category] + 0.5) / sizes[prompt.category], _order(prompt), prompt.prompt_id))
        seen[prompt.category] += 1
    chosen = {prompt_id for *_, prompt_id in sorted(places)[:n]}
    return tuple(prompt for prompt in prompts if prompt.prompt_id in chosen)


def _order(prompt: Prompt) -> str:
    return hashlib.sha256(prompt.prompt_id.encode()).hexdigest()
