"""Tokens of rows and prompts, as training and generation will read them: one tokenizer, one template, without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

from adapters import chat, templates, vision
from adapters.model_folder import chat_template, read_json
from engine.domain.conversation import ChatRow, Prompt

NO_LIMIT = 2**31


def row_lengths(folder: Path, rows: Sequence[ChatRow], template: Sequence[str] = ()) -> list[int]:
    """Return the tokens of each training row, whole, by the chat template of the model in a folder.

    Raises:
        OSError: The tokenizer cannot be read.
        ValueError: The template cannot render a row, or the row cannot be trained on.
    """
    tokenizer = _tokenizer(folder, tuple(template))
    with _explained("its chat template cannot render them"):
        trained = chat.training_rows(tokenizer, rows, NO_LIMIT, vision.image_tokens(folder))
    return [len(row["input_ids"]) for row in trained]


def prompt_lengths(
    folder: Path, prompts: Sequence[Prompt], system: str | None, template: Sequence[str] = ()
) -> list[int]:
    """Return the tokens of each prompt with a system prompt before it (None for none), by the same template.

    Raises:
        OSError: The tokenizer cannot be read.
        ValueError: The template cannot render a prompt.
    """
    tokenizer = _tokenizer(folder, tuple(template))
    with _explained("its chat template cannot render them"):
        return [len(ids) for ids in chat.prompt_tokens(tokenizer, [one.turns for one in prompts], system)]


def look(folder: Path, rows: Sequence[ChatRow], max_length: int, template: Sequence[str] = ()) -> list[str]:
    """Render and tokenize training rows by the chat template of the model in a folder, and say what is wrong with them.

    Args:
        folder: The model's.
        rows: The rows.
        max_length: Longer rows are cut at the end.
        template: What the chat template is told.
    """
    try:
        faults, most = list(model_faults(folder)), positions(folder)
    except (OSError, ValueError) as error:
        return [str(error)]
    if faults:
        return faults
    for row in rows:
        length, place, fault = _seen(folder, tuple(template), row)
        if most is not None and min(length, max_length) > most:
            fault = f"row {row.row_id} has {length} tokens, and the model has {most} positions: set `tune.max_length` to {most}"
        if fault := fault or chat.cut_fault(row.row_id, place, max_length):
            faults.append(fault)
    return faults


@lru_cache(maxsize=100_000)
def _seen(folder: Path, template: tuple[str, ...], row: ChatRow) -> tuple[int, int, str]:
    """Return the tokens of a row, the place of the one that it needs, and why the row cannot be trained on; empty if it can."""
    try:
        images = vision.image_tokens(folder)
        with _explained(f"row {row.row_id}: its chat template cannot render it"):
            (encoded,) = chat.training_rows(_tokenizer(folder, template), [row], NO_LIMIT, images)
    except ValueError as error:
        return 0, -1, str(error)
    return len(encoded["labels"]), chat.needed(encoded, images), ""


@cache
def model_faults(folder: Path) -> tuple[str, ...]:
    """Return what is wrong with the tokenizer of a model: no chat template, no end, or more tokens than the model has."""
    tokenizer = _tokenizer(folder)
    faults = []
    if not tokenizer.chat_template:
        faults.append("its tokenizer has no chat template: add one to the folder, as `chat_template.jinja`")
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is None:
        faults.append(
            "its tokenizer has neither a padding token nor an end of sequence: name one in tokenizer_config.json"
        )
    known, highest = _text_config(folder).get("vocab_size"), max(tokenizer.get_vocab().values(), default=0)
    if isinstance(known, int) and highest >= known:
        faults.append(
            f"its tokenizer has tokens up to {highest}, and the model {known} in all: the tokenizer is another model's"
        )
    return tuple(faults)


def asking_fault(folder: Path, longest: int) -> str | None:
    """Return why a model cannot be asked prompts of so many tokens, or None. That answers end in time is not known."""
    if faults := model_faults(folder):
        return faults[0]
    most = positions(folder)
    if most is None or longest < most:
        return None
    return f"its longest prompt has {longest} tokens, and the model has {most} positions: leave such prompts out"


def has_end(folder: Path, template: Sequence[str] = ()) -> bool:
    """Tell whether the chat template of a model writes a token after an answer, which training teaches it to end with.

    Raises:
        OSError: The tokenizer cannot be read.
        ValueError: The template cannot render an exchange.
    """
    tokenizer = _tokenizer(folder, tuple(template))
    with _explained("its chat template cannot render an exchange"):
        return not tokenizer.chat_template or chat.end_token(tokenizer) is not None


def positions(folder: Path) -> int | None:
    """Return how many tokens a model can read and write at once, by its config.json; None where it does not say."""
    found = _text_config(folder).get("max_position_embeddings")
    return found if isinstance(found, int) and found > 0 else None


def _text_config(folder: Path) -> Mapping[str, object]:
    config = read_json(folder / "config.json")
    inner = config.get("text_config")
    return inner if isinstance(inner, Mapping) else config


def tokenizer_of(folder: Path, template: Sequence[str] = ()) -> Any:
    """Return the tokenizer of the model in a folder, whose chat template is told its options, and a date.

    Raises:
        OSError: It is not there.
        ValueError: It cannot be read.
    """
    return _tokenizer(folder, tuple(template))


_READING = Lock()


def _tokenizer(folder: Path, template: tuple[str, ...] = ()) -> Any:
    with _READING:  # two threads must not load the library at the same time
        return _read(folder, template)


@cache
def _read(folder: Path, template: tuple[str, ...]) -> Any:
    from transformers import PreTrainedTokenizerFast  # unlike AutoTokenizer, it needs no torch

    with _explained("its tokenizer cannot be read"):
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
        if not tokenizer.chat_template:
            tokenizer.chat_template = chat_template(folder)
        return templates.set_up(tokenizer, template)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn whatever a template or a tokenizer raises into ValueError: these have errors of their own."""
    try:
        yield
    except (OSError, ValueError):
        raise
    except Exception as error:
        raise ValueError(f"{what}: {type(error).__name__}: {error}") from error
