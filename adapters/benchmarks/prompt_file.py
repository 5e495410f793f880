"""`file:PATH`: the user's own benchmark prompts, such as a gated set that may not be redistributed.

JSON Lines, one prompt a line: `{"prompt": "...", "category": "...", "id": "...", "reference": "..."}`; only `prompt` is
required. The file is pinned by its bytes; relative paths are relative to the working directory.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from adapters.user_file import pin, refuse_half_characters
from engine.domain.results import Prompt
from engine.ports import BenchmarkCard

FIELDS = frozenset({"prompt", "category", "id", "reference", "cluster"})
UNCATEGORISED = "all"


class PromptFile:
    """A JSON Lines file of prompts."""

    revision = 1

    def card(self, argument: str) -> BenchmarkCard:
        """Describe and pin the file.

        Raises:
            FileNotFoundError: When it is not there.
            ValueError: When a line is not a prompt; the message names the line.
        """
        prompts = self.prompts(argument)
        categories = tuple(dict.fromkeys(prompt.category for prompt in prompts))
        return BenchmarkCard(pin(Path(argument)), len(prompts), categories, "the user's own", argument)

    def prompts(self, argument: str) -> Sequence[Prompt]:
        """Return every prompt, in the order of the lines."""
        path = Path(argument).expanduser()
        return _prompts(path, pin(path))


@cache
def _prompts(path: Path, content: str) -> tuple[Prompt, ...]:
    del content  # only makes a changed file a new question
    lines = path.read_text(encoding="utf-8").splitlines()
    prompts = tuple(_prompt(line, path, number) for number, line in enumerate(lines, start=1) if line.strip())
    if not prompts:
        message = f"{path} has no prompts"
        raise ValueError(message)
    if len({prompt.prompt_id for prompt in prompts}) < len(prompts):
        message = f"{path}: two prompts have the same id"
        raise ValueError(message)
    return prompts


def _prompt(line: str, path: Path, number: int) -> Prompt:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        message = f"{path}:{number}: not JSON: {error}"
        raise ValueError(message) from error
    refuse_half_characters(entry, f"{path}:{number}")
    if not isinstance(entry, dict) or not isinstance(entry.get("prompt"), str) or not entry.keys() <= FIELDS:
        message = f"{path}:{number}: expected an object with `prompt` and at most {sorted(FIELDS - {'prompt'})}"
        raise ValueError(message)
    return Prompt(
        prompt_id=str(entry.get("id", f"line-{number}")),
        category=str(entry.get("category", UNCATEGORISED)),
        text=entry["prompt"],
        reference=entry.get("reference"),
        cluster=entry.get("cluster"),
    )
