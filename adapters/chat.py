"""The one place where a chat template is applied: training and generation cannot disagree.

A conversation is rendered and tokenized whole, so that the tokens of a prompt with its answer are those of the text, whatever the
tokenizer does where two texts meet. Which tokens are trained on is told from their place in the text: from where the model would begin to
answer, up to and with the token that ends its turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from adapters import thoughts
from engine.domain.conversation import ChatRow, Turn

IGNORED = -100
"""Label of a token that the loss leaves out, as in torch's cross-entropy."""

PLACEHOLDER = "Dosimeterplaceholder"
"""Stands for a turn's text where its place in a rendered conversation is looked for. Templates change white space alone, so it has none."""

NO_SYSTEM = "its chat template has no place for a system prompt: `template: {system: fold}` of the model puts it before the first user's turn"

_SYSTEM: dict[str, str | None] = {}
"""What `_without_system` has found, by template."""

_TAKES_TEXT: dict[str, bool] = {}
"""Whether templates write turns that are texts, by template."""


@dataclass(frozen=True, slots=True)
class ImageTokens:
    """What an image is to a model that reads images.

    Attributes:
        token: The token that stands for it where the template has written it.
        number: How many of these the model reads for each image, >= 1.
    """

    token: int
    number: int


def prompt_text(tokenizer: Any, turns: Sequence[Turn], system: str | None) -> str:
    """Return the text up to where the model answers, by the model's own chat template.

    Args:
        tokenizer: A transformers tokenizer with a chat template.
        turns: The conversation so far, without a system turn; the last turn is the user's.
        system: The system prompt, or None for none.

    Raises:
        ValueError: A turn has an image: models on this machine are asked by text alone.
    """
    if any(turn.images for turn in turns):
        raise ValueError("a prompt has an image, and models on this machine are asked by text alone")
    opening = (Turn("system", system),) if system else ()
    return _rendered(tokenizer, (*opening, *turns), is_prompt=True)


def prompt_tokens(tokenizer: Any, prompts: Sequence[Sequence[Turn]], system: str | None) -> list[list[int]]:
    """Return the token ids of prompts in the model's own chat template; the arguments are those of `prompt_text`."""
    texts = [prompt_text(tokenizer, prompt, system) for prompt in prompts]
    return tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []


def closing(tokenizer: Any) -> str:
    """Return what a template writes after an answer, white space at its end aside: the token that ends a turn, if it has one."""
    turns = (Turn("user", "a"), Turn("assistant", PLACEHOLDER))
    return _rendered(tokenizer, turns, is_prompt=False).rpartition(PLACEHOLDER)[2].rstrip()


def end_token(tokenizer: Any) -> int | None:
    """Return the token that ends a turn, as the template writes it; None where it writes none, or a text of several tokens."""
    if not tokenizer.chat_template:
        return None
    found = _tokens(tokenizer, closing(tokenizer).strip())
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    return found[0] if found and found[0] in special else None


def training_rows(
    tokenizer: Any, rows: Sequence[ChatRow], max_length: int, images: ImageTokens | None = None
) -> list[dict[str, list[int]]]:
    """Return `input_ids` and `labels` of each row; only the turns that are trained on, with their end tokens, have labels.

    A row of plain text has no template: all of it is trained on, and the tokenizer's end of sequence after it.

    Args:
        tokenizer: A fast transformers tokenizer, with a chat template for all rows but those of plain text.
        rows: The rows.
        max_length: Longer rows are cut at the end.
        images: What an image is to the model; None where it reads none.

    Raises:
        ValueError: As `whole_rows`, and when an image, or all that a row would be trained on, would be cut away.
    """
    return cut(rows, whole_rows(tokenizer, rows, images), max_length, images)


def whole_rows(
    tokenizer: Any, rows: Sequence[ChatRow], images: ImageTokens | None = None
) -> list[dict[str, list[int]]]:
    """Return what `training_rows` does, with nothing cut.

    Raises:
        ValueError: A row has images that the model or its template does not read, or nothing to train on; or the template does not
            write an answer as it is (then the loss mask cannot be told), or leaves the system prompt out.
    """
    end = closing(tokenizer) if any(not _is_plain(row) for row in rows) else ""
    return [_encoded(tokenizer, row, end, images) for row in rows]


def _is_plain(row: ChatRow) -> bool:
    return all(turn.role == "assistant" for turn in row.turns)


def _encoded(tokenizer: Any, row: ChatRow, end: str, images: ImageTokens | None) -> dict[str, list[int]]:
    """Return a row whole."""
    many = sum(len(turn.images) for turn in row.turns)
    if many and images is None:
        raise ValueError(f"row {row.row_id} has an image, and the model reads none: tune a vision-language model")
    if not any(turn.is_trained for turn in row.turns):
        raise ValueError(f"row {row.row_id} has no turn that is trained on")
    tokens, labels = _plain(tokenizer, row) if _is_plain(row) else _masked(tokenizer, row, end)
    if images is None:
        return {"input_ids": tokens, "labels": labels}
    if (marks := tokens.count(images.token)) != many:
        mark = tokenizer.convert_ids_to_tokens(images.token)
        raise ValueError(
            f"row {row.row_id}: {many} images, and {marks} times `{mark}` in what the chat template writes, which stands for one"
        )
    times = [images.number if token == images.token else 1 for token in tokens]
    return {"input_ids": _repeated(tokens, times), "labels": _repeated(labels, times)}


def _repeated(values: Sequence[int], times: Sequence[int]) -> list[int]:
    return [value for value, number in zip(values, times, strict=True) for _ in range(number)]


def cut(
    rows: Sequence[ChatRow], whole: Sequence[dict[str, list[int]]], max_length: int, images: ImageTokens | None = None
) -> list[dict[str, list[int]]]:
    """Return tokenized rows with `max_length` tokens at most.

    Raises:
        ValueError: Of one, an image would be cut away, or all that it is trained on.
    """
    for row, one in zip(rows, whole, strict=True):
        if fault := cut_fault(row.row_id, needed(one, images), max_length):
            raise ValueError(fault)
    return [{name: ids[:max_length] for name, ids in one.items()} for one in whole]


def are_longer(whole: Sequence[dict[str, list[int]]], max_length: int) -> int:
    """Return how many tokenized rows have more than `max_length` tokens."""
    return sum(len(one["input_ids"]) > max_length for one in whole)


def needed(encoded: dict[str, list[int]], images: ImageTokens | None) -> int:
    """Return the place of the first token that is trained on, or of the last of an image, where that is later: a row needs both."""
    labels, tokens = encoded["labels"], encoded["input_ids"]
    first = next((place for place, label in enumerate(labels) if label != IGNORED), len(labels))
    if images is None or images.token not in tokens:
        return first
    return max(first, len(tokens) - 1 - tokens[::-1].index(images.token))


def cut_fault(row_id: str, place: int, max_length: int) -> str:
    """Return why a row cannot be cut to `max_length` tokens, where it needs the one at `place`; empty if it can."""
    if place < max_length:
        return ""
    return f"row {row_id}: its prompt alone has {place} tokens, max_length is {max_length}"


def _plain(tokenizer: Any, row: ChatRow) -> tuple[list[int], list[int]]:
    last = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    tokens = [*_tokens(tokenizer, "".join(turn.text for turn in row.turns)), *last]
    return tokens, list(tokens)


def _masked(tokenizer: Any, row: ChatRow, end: str) -> tuple[list[int], list[int]]:
    """Return the tokens of a conversation up to the end of the last turn that is trained on, and their labels."""
    turns = [turn for turn in row.turns if turn.role != "system" or turn.text]
    whole = _rendered(tokenizer, turns, is_prompt=False)
    spans = list(_spans(tokenizer, turns, whole, end, row.row_id))
    text = whole[: spans[-1][1]]
    if turns[-1].is_trained and (asked := _opened(tokenizer, turns, spans[-1][0], whole)):
        text = asked + text[spans[-1][0] :]
        spans[-1] = (len(_rendered(tokenizer, turns[:-1], is_prompt=True)), len(text))
    encoded = tokenizer(text, add_special_tokens=False, verbose=False, return_offsets_mapping=True)
    tokens: list[int] = encoded["input_ids"]
    labels = [
        token if any(_is_within(place, span) for span in spans) else IGNORED
        for token, place in zip(tokens, encoded["offset_mapping"], strict=True)
    ]
    return tokens, labels


def _opened(tokenizer: Any, turns: Sequence[Turn], start: int, whole: str) -> str:
    """Return what stands before the last answer where a template opens thoughts for the model that is asked, but not in a conversation.

    Then it is trained on as it will be asked: after the prompt, and its own thoughts or none. Empty for any other template.

    Args:
        tokenizer: The tokenizer.
        turns: The conversation.
        start: Where the last answer begins in its text.
        whole: Its text.

    Raises:
        ValueError: The template renders what stands before in another way when the model is asked.
    """
    prompt = _rendered(tokenizer, turns[:-1], is_prompt=True)
    marks = thoughts.marks(tokenizer.chat_template)
    if marks is None or whole.startswith(prompt) or not prompt.rstrip().endswith(marks[0]):
        return ""
    if not whole[:start].startswith(prompt.rstrip().removesuffix(marks[0]).rstrip()):
        raise ValueError("its chat template writes a conversation in another way when the model is asked")
    own = thoughts.lead(turns[-1].text).strip().removeprefix(marks[0]).removesuffix(marks[1]).strip()
    return prompt.rstrip() + f"\n{own}\n{marks[1]}\n\n"


def _is_within(place: tuple[int, int], span: tuple[int, int]) -> bool:
    """Tell whether a token has a character of a span; one without characters counts where it stands."""
    return place[0] < span[1] and max(place[1], place[0] + 1) > span[0]


def _spans(tokenizer: Any, turns: Sequence[Turn], whole: str, end: str, row_id: str) -> Iterator[tuple[int, int]]:
    """Yield where the turns that are trained on begin and end in the text of the conversation.

    A turn begins where the model would begin to answer: after the prompt as it is rendered when the model is asked; where the template
    renders what stands before differently once it goes on, at the turn's own text. It ends with what the template writes after the last
    answer of a conversation, where that stands after this one as well.

    Raises:
        ValueError: The template does not write a turn as it is.
    """
    for index, turn in enumerate(turns):
        if not turn.is_trained:
            continue
        lead = thoughts.lead(
            turn.text
        )  # templates may write thoughts in their own way, or leave them out of earlier turns
        answer = turn.text.removeprefix(lead)
        marked = [*turns[:index], Turn(turn.role, lead + PLACEHOLDER), *turns[index + 1 :]]
        before, found, _ = _rendered(tokenizer, marked, is_prompt=False).partition(PLACEHOLDER)
        place = len(before)
        said = next((text for text in (answer, answer.strip()) if whole.startswith(text, place)), None)
        if not found or said is None or not whole.startswith(before):
            raise ValueError(
                f"row {row_id}: the chat template does not write the {turn.role}'s turn as it is; the loss mask is unknown"
            )
        prompt = _rendered(tokenizer, turns[:index], is_prompt=True)
        start = len(prompt) if whole.startswith(prompt) and len(prompt) <= place else place
        stop = place + len(said)
        yield start, stop + len(end) if whole.startswith(end, stop) else stop


def _tokens(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return found


def _rendered(tokenizer: Any, turns: Sequence[Turn], *, is_prompt: bool) -> str:
    """Return the text of a conversation.

    Raises:
        ValueError: The template has no place for its system prompt.
    """
    if turns and turns[0].role == "system" and (why := _without_system(tokenizer)) is not None:
        raise ValueError(NO_SYSTEM + why)
    return _applied(tokenizer, turns, is_prompt=is_prompt)


def _without_system(tokenizer: Any) -> str | None:
    """Return in brackets how a template refuses a system prompt, or nothing where it leaves it out; None where it has one."""
    template = str(tokenizer.chat_template)
    if template not in _SYSTEM:
        turns = (Turn("system", PLACEHOLDER), Turn("user", "a"))
        try:
            _SYSTEM[template] = None if PLACEHOLDER in _applied(tokenizer, turns, is_prompt=True) else ""
        except Exception as error:  # noqa: BLE001 - templates raise what they like
            _SYSTEM[template] = f" ({error})"
    return _SYSTEM[template]


def _applied(tokenizer: Any, turns: Sequence[Turn], *, is_prompt: bool) -> str:
    has_parts = any(turn.images for turn in turns) or not _takes_text(tokenizer)
    messages = [{"role": turn.role, "content": _parts(turn) if has_parts else turn.text} for turn in turns]
    text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=is_prompt)
    return text


def _parts(turn: Turn) -> list[dict[str, str]]:
    """Return a turn in parts, its images first."""
    return [*({"type": "image"} for _ in turn.images), {"type": "text", "text": turn.text}]


def _takes_text(tokenizer: Any) -> bool:
    """Tell whether a template writes a turn that is a text. Those of some vision-language models know parts alone, and drop a text."""
    template = str(tokenizer.chat_template)
    if template not in _TAKES_TEXT:
        asked = [{"role": "user", "content": PLACEHOLDER}]
        _TAKES_TEXT[template] = "type" not in template or PLACEHOLDER in tokenizer.apply_chat_template(
            asked, tokenize=False, add_generation_prompt=True
        )
    return _TAKES_TEXT[template]
