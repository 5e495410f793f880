"""Benchmarks of utility, as they were published."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from adapters import user_file
from adapters.benchmarks.published import Definition, Published, every, first
from adapters.pairs import said
from adapters.records import Record

ANSWER = re.compile(r"####\s*([^\n]+?)\s*$")
LETTERS = "ABCDEFGHIJ"
MOODS, TOPICS = ("negative", "positive"), ("world", "sports", "business", "technology")


def _after_hashes(record: Record) -> tuple[str, ...]:
    """Return GSM8K's gold answer: what stands after `####`."""
    found = ANSWER.search(first(record, ("answer",)))
    if found is None:
        raise user_file.wrong(record.where, "`answer` does not end with `#### NUMBER`")
    return (found[1].replace(",", ""),)


def _choices(record: Record) -> list[str]:
    listed = record.values.get("choices")
    if isinstance(listed, Mapping):  # of ARC: {"text": [...], "label": [...]}
        listed = listed.get("text")
    found = listed if isinstance(listed, list) else [record.values.get(letter.lower()) for letter in LETTERS]
    choices = [said(choice) for choice in found if choice is not None]
    if len(choices) < 2:  # noqa: PLR2004 - a choice is between two
        raise user_file.wrong(
            record.where, "there are no choices: `choices` is a list, or columns are called `A`, `B`, ..."
        )
    return choices


def _with_choices(record: Record) -> str:
    question = first(record, ("question", "prompt"))
    listed = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, _choices(record), strict=False))
    return f"{question}\n\n{listed}\n\nAnswer with the letter alone." if question else ""


def _right_letter(record: Record) -> tuple[str, ...]:
    answer = first(record, ("answer", "answerkey", "label"))
    if answer.isdecimal() and int(answer) < len(_choices(record)):
        return (LETTERS[int(answer)],)
    if answer.upper() in LETTERS[: len(_choices(record))]:
        return (answer.upper(),)
    raise user_file.wrong(record.where, f"`answer` is the letter or the place (from 0) of a choice, not `{answer}`")


def _label(names: Sequence[str]) -> Callable[[Record], tuple[str, ...]]:
    """Return what makes a gold answer of the number or the name of a class."""

    def reference(record: Record) -> tuple[str, ...]:
        label = first(record, ("label", "class index"))
        if label.lower() in names:
            return (label.lower(),)
        start = 1 if "class index" in record.values else 0
        if label.isdecimal() and start <= int(label) < start + len(names):
            return (names[int(label) - start],)
        raise user_file.wrong(record.where, f"`label` is {', '.join(names)} or a number, not `{label}`")

    return reference


def _classified(what: str, names: Sequence[str], columns: Sequence[str]) -> Callable[[Record], str]:
    def question(record: Record) -> str:
        text = "\n".join(every(record, columns))
        return f"{text}\n\nWhat is the {what} of this text? Answer with one word: {', '.join(names)}." if text else ""

    return question


class Gsm8k(Published):
    """1,319 word problems of arithmetic (Cobbe et al. 2021)."""

    definition = Definition(
        "GSM8K",
        ("question",),
        "MIT",
        "github.com/openai/grade-school-math, grade_school_math/data/test.jsonl",
        1319,
        reference=_after_hashes,
        judge="answer/number",
        answers_tell=True,
    )


class MultipleChoice(Published):
    """Questions with choices, as MMLU and ARC have them."""

    definition = Definition(
        "multiple choice",
        ("question", "prompt", "choices", "answer"),
        "that of the set (MMLU: MIT)",
        "huggingface.co/datasets/cais/mmlu, for example",
        category=("subject",),
        identity=("id",),
        reference=_right_letter,
        question=_with_choices,
        judge="answer/choice",
        telling=("choices", "answerkey"),
    )


class Sst2(Published):
    """Sentences of film reviews, to be called negative or positive (Socher et al. 2013)."""

    definition = Definition(
        "SST-2",
        ("sentence", "label"),
        "the authors name none",
        "huggingface.co/datasets/stanfordnlp/sst2, validation split",
        reference=_label(MOODS),
        question=_classified("sentiment", MOODS, ("sentence",)),
    )


class AgNews(Published):
    """News, to be called by their topic (Zhang et al. 2015)."""

    definition = Definition(
        "AG News",
        ("text", "title", "description", "label", "class index"),
        "for research, not for trade",
        "huggingface.co/datasets/fancyzhx/ag_news, test split",
        reference=_label(TOPICS),
        question=_classified("topic", TOPICS, ("text", "title", "description")),
        telling=("class index",),
    )


class Instructions(Published):
    """Instructions with a model answer, as Alpaca has them."""

    definition = Definition(
        "instructions",
        ("instruction", "prompt"),
        "that of the set",
        "github.com/tatsu-lab/stanford_alpaca, alpaca_data.json, for example",
        category=("category",),
        reference=lambda record: tuple(every(record, ("output", "response"))),
        question=lambda record: "\n\n".join(every(record, ("instruction", "prompt", "input", "context"))),
        telling=("instruction",),
    )
