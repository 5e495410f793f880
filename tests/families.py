"""Chat templates with the habits of different families, written anew, and tokenizers for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

MARKS = (
    *("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|begin|>", "<|head|>", "<|tail|>", "<|eot|>", "[INST]", "[/INST]"),
    *(
        "<turn>",
        "<end_turn>",
        "<|user|>",
        "<|assistant|>",
        "<|system|>",
        "<|end|>",
        "<|start|>",
        "<|channel|>",
        "<|message|>",
    ),
    *("<|return|>", "<|endoftext|>", "<think>", "</think>"),
)
EACH = "{% for m in messages %}"


@dataclass(frozen=True)
class Family:
    """A template's habits.

    Attributes:
        template: The template.
        trained: What is trained on of one exchange with the answer `Heron.`
        middle: The same of the first of two exchanges.
        ends: The token that ends an answer; None for none.
        eos: The tokenizer's own end of sequence.
        opens: Whether it opens thoughts for the model that is asked, and writes none in a conversation.
    """

    template: str
    trained: str
    middle: str
    ends: str | None
    eos: str = "</s>"
    opens: bool = False


CHATML = (
    EACH + "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FAMILIES = {
    "chatml": Family(CHATML, "Heron.<|im_end|>", "Heron.<|im_end|>", "<|im_end|>"),
    "chatml with a system prompt of its own": Family(
        "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are new.<|im_end|>\n{% endif %}" + CHATML,
        *("Heron.<|im_end|>", "Heron.<|im_end|>", "<|im_end|>"),
    ),
    "instructions in brackets, with spaces": Family(
        EACH
        + "{% if m.role == 'user' %}<s>[INST] {{ m.content }} [/INST]{% else %} {{ m.content }} </s>{% endif %}{% endfor %}",
        *(" Heron. </s>", " Heron. </s>", "</s>"),
    ),
    "headers, and texts trimmed": Family(
        "<|begin|>" + EACH + "<|head|>{{ m.role }}<|tail|>\n\n{{ m.content | trim }}<|eot|>{% endfor %}"
        "{% if add_generation_prompt %}<|head|>assistant<|tail|>\n\n{% endif %}",
        *("Heron.<|eot|>", "Heron.<|eot|>", "<|eot|>", "<|endoftext|>"),
    ),
    "no system role": Family(
        "<s>" + EACH + "{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]{% else %} {{ m.content }}</s>{% endif %}{% endfor %}",
        *(" Heron.</s>", " Heron.</s>", "</s>"),
    ),
    "another name for the assistant": Family(
        "<s>"
        + EACH
        + "<turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_turn>\n{% endfor %}"
        "{% if add_generation_prompt %}<turn>model\n{% endif %}",
        *("Heron.<end_turn>", "Heron.<end_turn>", "<end_turn>"),
    ),
    "role tokens": Family(
        EACH
        + "<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
        *("Heron.<|end|>", "Heron.<|end|>", "<|end|>", "<|endoftext|>"),
    ),
    "thoughts in the last turn alone": Family(
        EACH
        + "<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
        "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        *("<think>\n\n</think>\n\nHeron.<|im_end|>", "Heron.<|im_end|>", "<|im_end|>"),
    ),
    "thoughts opened for the model that is asked": Family(
        EACH + "<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}",
        *("\n</think>\n\nHeron.<|im_end|>", "Heron.<|im_end|>", "<|im_end|>"),
        opens=True,
    ),
    "channels, and another end for the last turn": Family(
        EACH
        + "<|start|>{{ m.role }}{% if m.role == 'assistant' %}<|channel|>final{% endif %}<|message|>{{ m.content }}"
        "{% if loop.last and m.role == 'assistant' %}<|return|>{% else %}<|end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant{% endif %}",
        *("<|channel|>final<|message|>Heron.<|return|>", "<|channel|>final<|message|>Heron.", "<|return|>"),
    ),
    "the end of sequence after every answer": Family(
        "<|endoftext|>"
        + EACH
        + "<|{{ m.role }}|>\n{{ m.content }}{% if m.role == 'assistant' %}<|endoftext|>{% endif %}\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
        *("Heron.<|endoftext|>", "Heron.<|endoftext|>", "<|endoftext|>", "<|endoftext|>"),
    ),
    "roles as words": Family(
        EACH
        + "{{ 'USER: ' if m.role == 'user' else 'ASSISTANT: ' }}{{ m.content }}{{ ' ' if m.role == 'user' else '</s>' }}{% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT: {% endif %}",
        *("Heron.</s>", "Heron.</s>", "</s>"),
    ),
    "no end at all": Family(
        EACH
        + "### {{ m.role }}:\n{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}### assistant:\n{% endif %}",
        *("Heron.", "Heron.", None),
    ),
}


def tokenizer(family: Family, kind: str) -> Any:
    """Return a tokenizer of bytes, or one that marks the beginning of words as SentencePiece does and adds one before a text."""
    if kind == "bytes":
        made = Tokenizer(
            models.BPE({mark: at for at, mark in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, [])
        )
        made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    else:
        words = [
            "\u2581Heron",
            "Heron",
            "\u2581",
            "\n",
            ".",
            *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ:#<>/|'[]_",
        ]
        made = Tokenizer(
            models.Unigram([(word, -float(len(word) < 2)) for word in dict.fromkeys(words)], unk_id=4)
        )  # a dot
        made.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.Fuse()])
        made.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    made.add_special_tokens(list(MARKS))
    named = {"eos_token": family.eos, "pad_token": "<s>", "chat_template": family.template}
    return PreTrainedTokenizerFast(tokenizer_object=made, **named)
