"""Thoughts are told from answers, for the marks of every family, and nothing of an answer is taken for a thought."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from adapters import thoughts
from adapters.local.settings import DecodeSettings

MARKS = ("[THINK]", "[/THINK]", "<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "</s>")
QWEN, MISTRAL, HARMONY = "{{ '</think>' }}", "{{ '[THINK]' }}", "{{ '<|channel|>analysis<|message|>' }}"
NAMED = {"eos_token": "</s>"}
START, THOUGHT = "Hi<|start|>assistant", "<|channel|>analysis<|message|>"
FINAL = "<|start|>assistant<|channel|>final<|message|>"


def tokenizer(template: str, *words: str) -> Any:
    """Return a tokenizer of bytes, with some marks that are special and some that are words of their own."""
    made = Tokenizer(models.BPE({mark: at for at, mark in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.add_tokens(list(words))
    made.add_special_tokens(list(MARKS))
    return PreTrainedTokenizerFast(tokenizer_object=made, **NAMED, chat_template=template)


CUT, WHOLE = True, False


@pytest.mark.parametrize("words", [(), ("<think>", "</think>")], ids=["text", "tokens"])
@pytest.mark.parametrize(
    ("template", "prompt", "made", "is_cut", "thought", "answer"),
    [
        (QWEN, "Hi", "<think>\nA bird?\n</think>\n\nHeron.</s>", WHOLE, "A bird?", "Heron."),
        (QWEN, "Hi", "<think>\n\n</think>\n\nHeron.</s>", WHOLE, "", "Heron."),
        (QWEN, "Hi<think>\n", "A bird?\n</think>\n\nHeron.</s>", WHOLE, "A bird?", "Heron."),
        (QWEN, "Hi<think>\n", "A bird? And", CUT, "A bird? And", ""),
        (QWEN, "Hi<think>\n", "Sure. A heron.</s>", WHOLE, "", "Sure. A heron."),
        (QWEN, "Hi", "<think>A bird? And", CUT, "A bird? And", ""),
        (QWEN, "Hi", "<think>Sure. A heron.</s>", WHOLE, "", "Sure. A heron."),
        (QWEN, "Hi", "Heron.</s>", WHOLE, "", "Heron."),
        (QWEN, "Hi", "Write <think>a</think> so.</s>", WHOLE, "", "Write <think>a</think> so."),
        (QWEN, "Hi<think>\n\n</think>\n\n", "Heron.</s>", WHOLE, "", "Heron."),
        (QWEN, "Hi", "<think>a</think>b</think>c</s>", WHOLE, "a", "b</think>c"),
        ("{{ 'plain' }}", "Hi", "<think>a</think>Heron.</s>", WHOLE, "", "<think>a</think>Heron."),
        (MISTRAL, "Hi", "[THINK]A bird?[/THINK]Heron.</s>", WHOLE, "A bird?", "Heron."),
        (MISTRAL, "Hi[THINK]", "A bird?[/THINK]Heron.</s>", WHOLE, "A bird?", "Heron."),
        (MISTRAL, "Hi[THINK]", "Sure. A heron.</s>", WHOLE, "", "Sure. A heron."),
        (MISTRAL, "Hi", "[THINK]A bird?", CUT, "A bird?", ""),
        (HARMONY, START, f"{THOUGHT}A bird?<|end|>{FINAL}Heron.<|return|>", WHOLE, "A bird?", "Heron."),
        (HARMONY, START, "<|channel|>final<|message|>Heron.<|return|>", WHOLE, "", "Heron."),
        (HARMONY, START, f"{THOUGHT}A bi", CUT, "A bi", ""),
        (HARMONY, START, f"{THOUGHT}A<|end|><|start|>assistant", CUT, "A", ""),
        (HARMONY, START, f"{THOUGHT}A<|end|><|start|>assistant<|channel|>fin", CUT, "A", ""),
        (HARMONY, START, f"{THOUGHT}Sure. A heron.<|return|>", WHOLE, "", "Sure. A heron."),
        (HARMONY, START, "<|channel|>commentary<|message|>So:<|end|>" + FINAL + "B", CUT, "", "So:\n\nB"),
        (HARMONY, START, "Heron.<|return|>", WHOLE, "", "Heron."),
        (HARMONY, START, "<|channel|>final Sure, a heron.<|return|>", WHOLE, "", "Sure, a heron."),
        (HARMONY, START, f"{FINAL}A<|end|><|start|>assistant to all: B", CUT, "", "A\n\nassistant to all: B"),
    ],
)
def test_thoughts_are_split_from_the_answer_and_no_answer_is_lost(  # noqa: PLR0913 - a case
    words: tuple[str, ...], template: str, prompt: str, made: str, thought: str, answer: str, *, is_cut: bool
) -> None:
    tok = tokenizer(template, *words)
    ids = [tok(text, add_special_tokens=False)["input_ids"] for text in (prompt, made)]
    assert thoughts.split(tok, *ids, is_cut=is_cut) == (thought, answer)


def test_a_spec_names_other_marks_or_none() -> None:
    tok = tokenizer(QWEN)
    made = tok("<why>So.</why>Heron.", add_special_tokens=False)["input_ids"]
    assert thoughts.split(tok, [], made, is_cut=False) == ("", "<why>So.</why>Heron.")
    named = DecodeSettings.model_validate({"thoughts": ["<why>", "</why>"]})
    assert thoughts.split(tok, [], made, is_cut=False, said=named.thoughts) == ("So.", "Heron.")
    thinking = tok("<think>So.</think>Heron.", add_special_tokens=False)["input_ids"]
    none = DecodeSettings.model_validate({"thoughts": "none"})
    assert thoughts.split(tok, [], thinking, is_cut=False, said=none.thoughts) == ("", "<think>So.</think>Heron.")
    for wrong in ("<why>", ["a", "a"], ["a b", "c"], ["a", "b", "c"]):
        with pytest.raises(ValueError, match="`thoughts` is `none`, or two marks"):
            DecodeSettings.model_validate({"thoughts": wrong})


def test_of_a_provider_only_the_text_is_known() -> None:
    assert thoughts.split_text("\n<think>A?</think>\n\nHeron.", is_cut=False) == ("A?", "Heron.")
    assert thoughts.split_text("<think>Sure. A heron.", is_cut=False) == ("", "Sure. A heron.")
    assert thoughts.split_text("<think>A bird? And", is_cut=True) == ("A bird? And", "")
    assert thoughts.split_text("A?</think>Heron.", is_cut=False) == ("", "A?</think>Heron.")


def test_the_thoughts_of_a_training_row_are_what_it_begins_with() -> None:
    assert thoughts.lead("<think>\nA?\n</think>\n\nHeron.") == "<think>\nA?\n</think>\n\n"
    assert thoughts.lead("[THINK]A[/THINK]Heron.") == "[THINK]A[/THINK]"
    assert thoughts.lead("Heron. <think>A</think>") == ""
    assert thoughts.lead("<think>A") == ""
