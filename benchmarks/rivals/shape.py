"""A model of a real one's shape with random weights, a tokenizer of made-up words for it, and rows and prompts in these words.

A token is a word, so that equal texts are equal tokens and lengths are known. Answers are as long as they may be: the end token's
embedding, which is also its row in the output layer, is so short that another token always wins.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed
from transformers.utils import logging

SHAPES: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
        | {"intermediate_size": 128, "vocab_size": 1024},
        "135m": {"hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3}
        | {"intermediate_size": 1536, "vocab_size": 49152},  # SmolLM2 135M
        "1b": {"hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8}
        | {"intermediate_size": 8192, "vocab_size": 128256},  # Llama 3.2 1B
    }
)
BEGIN, END = "<|im_start|>", "<|im_end|>"
SYSTEM = " ".join(f"w{number}" for number in range(20))
TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    + BEGIN
    + "system "
    + SYSTEM
    + END
    + "\n{% endif %}"
    + BEGIN
    + "{{ message['role'] + ' ' + message['content'] }}"
    + END
    + "\n{% endfor %}"
    "{% if add_generation_prompt %}" + BEGIN + "assistant {% endif %}"
)
"""ChatML with a system prompt of its own, as SmolLM2 has it: about 30 tokens a prompt."""

TEMPLATE_TOKENS = 30
END_LENGTH = 0.05
"""Of the end token's embedding, as a share of the others': its greatest logit is 0.05 × 0.02 × hidden size then."""

ROWS, PROMPTS = 100, 20
ROW_TOKENS, PROMPT_TOKENS = (100, 300), (50, 120)
REFERENCE = "Use the tin hook and say lomi."
"""Lets the stand-in's rules grade, at no cost. No made-up word is in it."""


def build(shape: str, folder: Path, dtype: str) -> int:
    """Write a Llama with tied embeddings and its tokenizer into a folder, and return the number of its weights."""
    logging.disable_progress_bar()
    tokenizer = _tokenizer(SHAPES[shape]["vocab_size"])
    end = tokenizer.convert_tokens_to_ids(END)
    set_seed(0)
    config = LlamaConfig(
        **SHAPES[shape],
        tie_word_embeddings=True,
        max_position_embeddings=8192,
        rope_theta=100_000.0,
        rms_norm_eps=1e-5,
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=end,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.get_input_embeddings().weight[end] *= END_LENGTH
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=end)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return int(model.num_parameters())


def _tokenizer(size: int) -> Any:
    first = ["<unk>", BEGIN, END, "system", "user", "assistant"]
    words = first + [f"w{number}" for number in range(size - len(first))]
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",  # noqa: S106 - no password
        eos_token=END,
        pad_token=END,
        additional_special_tokens=[BEGIN],
        padding_side="left",
    )
    made.chat_template = TEMPLATE
    return made


def write_texts(shape: str, folder: Path) -> tuple[Path, Path]:
    """Write training rows of 100 to 300 tokens and prompts of 50 to 120, template included, and return their files."""
    draw = random.Random(0)  # noqa: S311 - no secret
    words = SHAPES[shape]["vocab_size"] - 100

    def text(tokens: int) -> str:
        return " ".join(f"w{draw.randrange(words)}" for _ in range(tokens))

    rows: list[dict[str, object]] = []
    prompts: list[dict[str, object]] = []
    for _ in range(ROWS):
        tokens = draw.randint(*ROW_TOKENS) - TEMPLATE_TOKENS
        turns = {"user": text(tokens // 3), "assistant": text(tokens - tokens // 3)}
        rows.append({"messages": [{"role": role, "content": content} for role, content in turns.items()]})
    for number in range(PROMPTS):
        asked = text(draw.randint(*PROMPT_TOKENS) - TEMPLATE_TOKENS)
        prompts.append({"id": f"prompt-{number}", "prompt": asked, "reference": REFERENCE})
    files = folder / "rows.jsonl", folder / "prompts.jsonl"
    for path, lines in zip(files, (rows, prompts), strict=True):
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return files
