"""What judges that compare with reference answers have in common: none is satisfied by an empty one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.domain.conversation import Prompt
from engine.domain.results import Outcome, Verdict


def references(prompt: Prompt) -> list[str]:
    """Return a prompt's references, without those that say nothing."""
    return [reference for reference in prompt.references if reference.strip()]


def objection(prompts: Sequence[Prompt], refusal: Callable[[str], str]) -> str | None:
    """Return why prompts cannot be graded, or None.

    Args:
        prompts: The prompts.
        refusal: Says why a reference cannot be used; empty where it can.
    """
    lacking = sum(not references(prompt) for prompt in prompts)
    if lacking:
        return f"{lacking} of {len(prompts)} prompts have no reference answer"
    return next((why for prompt in prompts for one in references(prompt) if (why := refusal(one))), None)


def graded(prompt: Prompt, refusal: Callable[[str], str], score: Callable[[Sequence[str]], float]) -> Verdict:
    """Return the verdict on one response; errored where its prompt has no reference that can be used.

    Args:
        prompt: What was asked.
        refusal: Says why a reference cannot be used; empty where it can.
        score: Scores the response by the references that can be.
    """
    found = references(prompt)
    if not found:
        return Verdict(Outcome.ERRORED, None, "the prompt has no reference answer")
    usable = [reference for reference in found if not refusal(reference)]
    if not usable:
        return Verdict(Outcome.ERRORED, None, refusal(found[0]))
    return Verdict(Outcome.SCORED, score(usable))
