"""The prompts of a file's records: all that is wrong with them at once, and what people should know of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from adapters.refused import refusal
from engine.domain.conversation import Prompt


def gathered(entries: Iterable[tuple[str, Callable[[], Prompt]]]) -> tuple[Prompt, ...]:
    """Return the prompts of records, in their order.

    Args:
        entries: Of each record its place, for errors, and what makes a prompt of it.

    Raises:
        ValueError: A record is no prompt, or has the id of an earlier one; the message says how many are refused, and where.
    """
    prompts: dict[str, Prompt] = {}
    refused: list[ValueError] = []
    for where, read in entries:
        try:
            prompt = read()
        except ValueError as error:
            refused.append(error)
            continue
        if prompt.prompt_id in prompts:
            refused.append(ValueError(f"{where}: an earlier record has the id `{prompt.prompt_id}` as well"))
        prompts.setdefault(prompt.prompt_id, prompt)
    if refused:
        raise refusal(refused, len(prompts))
    return tuple(prompts.values())


def repeated(prompts: Sequence[Prompt]) -> Iterator[str]:
    """Say how many prompts are there more than once."""
    if again := len(prompts) - len({prompt.turns for prompt in prompts}):
        yield f"{again:,} {'prompt repeats an earlier one' if again == 1 else 'prompts repeat earlier ones'}"
