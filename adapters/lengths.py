"""Tokens of rows and prompts, as training and generation will read them: one tokenizer, one template, without torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

from adapters import chat
from engine.domain.conversation import ChatRow, Prompt

NO_LIMIT = 2**31


def row_lengths(folder: Path, rows: Sequence[ChatRow]) -> list[int]:
    """Return the tokens of each training row, whole, by the chat template of the model in a folder.

    Raises:
        OSError: The tokenizer cannot be read.
        ValueError: The template cannot render a row, or the row cannot be trained on.
    """
    tokenizer = _tokenizer(folder)
    with _explained("its chat template cannot render them"):
        return [len(row["input_ids"]) for row in chat.training_rows(tokenizer, rows, NO_LIMIT)]


def prompt_lengths(folder: Path, prompts: Sequence[Prompt], system: str | None) -> list[int]:
    """Return the tokens of each prompt with a system prompt before it (None for none), by the same template.

    Raises:
        OSError: The tokenizer cannot be read.
        ValueError: The template cannot render a prompt.
    """
    tokenizer = _tokenizer(folder)
    with _explained("its chat template cannot render them"):
        return [len(ids) for ids in chat.prompt_tokens(tokenizer, [one.turns for one in prompts], system)]


_READING = Lock()


def _tokenizer(folder: Path) -> Any:
    with _READING:  # two threads must not load the library at the same time
        return _read(folder)


@cache
def _read(folder: Path) -> Any:
    from transformers import PreTrainedTokenizerFast  # unlike AutoTokenizer, it needs no torch

    with _explained("its tokenizer cannot be read"):
        return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn whatever a template or a tokenizer raises into ValueError: these have errors of their own."""
    try:
        yield
    except (OSError, ValueError):
        raise
    except Exception as error:
        raise ValueError(f"{what}: {type(error).__name__}: {error}") from error
