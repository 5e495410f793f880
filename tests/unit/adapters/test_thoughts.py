"""Thoughts are told from answers, for the marks of every family, and nothing of an answer is taken for a thought."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from adapters import templates, thoughts

MARKS = ("[THINK]", "[/THINK]", "<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "</s>")
QWEN, MISTRAL, HARMONY = "{{ '</think>' }}", "{{ '[THINK]' }}", "{{ '<|channel|>analysis<|message|>' }}"
NAMED = {"eos_token": "</s>"}
FINAL = "<|start|>assistant<|channel|>final<|message|>"


def tokenizer(template: str, *words: str) -> Any:
    """Return a tokenizer of bytes, with some marks that are special and some that are words of their own."""
    made = Tokenizer(models.BPE({mark: at for at, mark in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.add_tokens(list(words))
    made.add_special_tokens(list(MARKS))
    return PreTrainedTokenizerFast(tokenizer_object=made, **NAMED, chat_template=template)


@pytest.mark.parametrize("words", [(), ("<think>", "</think>")], ids=["text", "tokens"])
@pytest.mark.parametrize(
    ("template", "prompt", "made", "thought", "answer"),
    [
        (QWEN, "Hi", "<think>\nA bird?\n</think>\n\nHeron.</s>", "A bird?", "Heron."),
        (QWEN, "Hi", "<think>\n\n</think>\n\nHeron.</s>", "", "Heron."),
        (QWEN, "Hi<think>\n", "A bird?\n</think>\n\nHeron.</s>", "A bird?", "Heron."),
        (QWEN, "Hi<think>\n", "A bird? And", "A bird? And", ""),
        (QWEN, "Hi", "<think>A bird? And", "A bird? And", ""),
        (QWEN, "Hi", "Heron.</s>", "", "Heron."),
        (QWEN, "Hi", "Write <think>a</think> so.</s>", "", "Write <think>a</think> so."),
        (QWEN, "Hi<think>\n\n</think>\n\n", "Heron.</s>", "", "Heron."),
        (QWEN, "Hi", "<think>a</think>b</think>c</s>", "a", "b</think>c"),
        ("{{ 'plain' }}", "Hi", "<think>a</think>Heron.</s>", "", "<think>a</think>Heron."),
        (MISTRAL, "Hi", "[THINK]A bird?[/THINK]Heron.</s>", "A bird?", "Heron."),
        (MISTRAL, "Hi[THINK]", "A bird?[/THINK]Heron.</s>", "A bird?", "Heron."),
        (MISTRAL, "Hi", "[THINK]A bird?", "A bird?", ""),
        (
            HARMONY,
            "Hi<|start|>assistant",
            f"<|channel|>analysis<|message|>A bird?<|end|>{FINAL}Heron.<|return|>",
            "A bird?",
            "Heron.",
        ),
        (HARMONY, "Hi<|start|>assistant", "<|channel|>final<|message|>Heron.<|return|>", "", "Heron."),
        (HARMONY, "Hi<|start|>assistant", "<|channel|>analysis<|message|>A bi", "A bi", ""),
        (HARMONY, "Hi<|start|>assistant", "<|channel|>analysis<|message|>A<|end|><|start|>assistant", "A", ""),
        (HARMONY, "Hi<|start|>assistant", "<|channel|>commentary<|message|>So:<|end|>" + FINAL + "B", "", "So:\n\nB"),
        (HARMONY, "Hi<|start|>assistant", "Heron.<|return|>", "", "Heron."),
        (
            HARMONY,
            "Hi<|start|>assistant",
            f"{FINAL}A<|end|><|start|>assistant to all: B",
            "",
            "A\n\nassistant to all: B",
        ),
    ],
)
def test_thoughts_are_split_from_the_answer(
    words: tuple[str, ...], template: str, prompt: str, made: str, thought: str, answer: str
) -> None:
    tok = tokenizer(template, *words)
    ids = [tok(text, add_special_tokens=False)["input_ids"] for text in (prompt, made)]
    assert thoughts.split(tok, *ids) == (thought, answer)


def test_a_spec_names_other_marks_or_none() -> None:
    tok = tokenizer(QWEN)
    made = tok("<why>So.</why>Heron.", add_special_tokens=False)["input_ids"]
    assert thoughts.split(tok, [], made) == ("", "<why>So.</why>Heron.")
    named = ("thoughts=<why>", "thoughts=</why>")
    templates.check(named)
    assert templates.adjusted(QWEN, named) == QWEN
    assert thoughts.split(tok, [], made, named) == ("So.", "Heron.")
    thinking = tok("<think>So.</think>Heron.", add_special_tokens=False)["input_ids"]
    assert thoughts.split(tok, [], thinking, ("thoughts=none",)) == ("", "<think>So.</think>Heron.")
    for wrong in (("<why>",), ("a", "a"), ("a b", "c"), ("a", "b", "c")):
        with pytest.raises(ValueError, match="`thoughts` is `none`, or two marks"):
            templates.check([f"thoughts={one}" for one in wrong])


def test_the_thoughts_of_a_training_row_are_what_it_begins_with() -> None:
    assert thoughts.lead("<think>\nA?\n</think>\n\nHeron.") == "<think>\nA?\n</think>\n\n"
    assert thoughts.lead("[THINK]A[/THINK]Heron.") == "[THINK]A[/THINK]"
    assert thoughts.lead("Heron. <think>A</think>") == ""
    assert thoughts.lead("<think>A") == ""
