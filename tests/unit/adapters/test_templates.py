"""Chat templates with the habits of different families, written anew: what is trained on, where an answer ends, and what is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from adapters import chat, templates
from engine.domain.conversation import ChatRow, Turn

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
    """

    template: str
    trained: str
    middle: str
    ends: str | None
    eos: str = "</s>"


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
KINDS = ("bytes", "pieces")
EXCHANGE = (Turn("user", "Name a bird."), Turn("assistant", "Heron.", is_trained=True))
TWO = (*EXCHANGE, Turn("user", "And another."), Turn("assistant", "Robin.", is_trained=True))


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


def trained(tok: Any, row: ChatRow) -> tuple[list[int], list[int]]:
    ((encoded),) = chat.training_rows(tok, [row], 1000)
    return encoded["input_ids"], [label for label in encoded["labels"] if label != chat.IGNORED]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FAMILIES)
def test_tokens_are_those_of_the_whole_and_the_loss_is_on_the_answer(name: str, kind: str) -> None:
    family = FAMILIES[name]
    tok = tokenizer(family, kind)
    ids, labels = trained(tok, ChatRow("r", EXCHANGE))
    messages = [{"role": turn.role, "content": turn.text} for turn in EXCHANGE]
    whole = tok.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"]
    assert ids == whole[: len(ids)]
    assert not tok.decode(whole[len(ids) :]).strip(), "nothing but white space is left out at the end"
    assert tok.decode(labels).replace(" ", "") == family.trained.replace(" ", "")
    assert ids[-len(labels) :] == labels
    if kind == "bytes":  # no token crosses from prompt to answer
        asked = chat.prompt_tokens(tok, [EXCHANGE[:1]], None)[0]
        assert ids[: len(asked)] == asked
        assert len(asked) == len(ids) - len(labels)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_answer_of_a_conversation_is_trained_on(name: str) -> None:
    family = FAMILIES[name]
    tok = tokenizer(family, "bytes")
    _, labels = trained(tok, ChatRow("r", TWO))
    assert tok.decode(labels) == family.middle + family.trained.replace("Heron", "Robin")
    untrained = (EXCHANGE[0], Turn("assistant", "Heron."), *TWO[2:])
    assert tok.decode(trained(tok, ChatRow("r", untrained))[1]) == family.trained.replace("Heron", "Robin")


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_template_writes_after_an_answer_ends_it(name: str) -> None:
    family = FAMILIES[name]
    tok = tokenizer(family, "bytes")
    assert chat.end_token(tok) == (None if family.ends is None else tok.convert_tokens_to_ids(family.ends))


SYSTEM = (Turn("system", "Be brief."), *EXCHANGE)
IGNORES = (
    EACH
    + "{% if m.role != 'system' %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    + "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.mark.parametrize("template", [FAMILIES["no system role"].template, IGNORES], ids=["refuses", "ignores"])
def test_a_system_prompt_is_folded_into_the_first_users_turn_or_refused(template: str) -> None:
    plain = tokenizer(Family(template, "", "", None), "bytes")
    with pytest.raises(ValueError, match=r"no place for a system prompt: `template: \{system: fold\}` of the model"):
        trained(plain, ChatRow("r", SYSTEM))
    with pytest.raises(ValueError, match="no place for a system prompt"):
        chat.prompt_tokens(plain, [EXCHANGE[:1]], "Be brief.")
    folded = templates.set_up(tokenizer(Family(template, "", "", None), "bytes"), ("system=fold",))
    merged = (Turn("user", "Be brief.\n\nName a bird."), EXCHANGE[1])
    assert trained(folded, ChatRow("r", SYSTEM)) == trained(plain, ChatRow("r", merged))
    assert trained(folded, ChatRow("r", EXCHANGE)) == trained(plain, ChatRow("r", EXCHANGE))
    assert chat.prompt_tokens(folded, [EXCHANGE[:1]], "Be brief.") == chat.prompt_tokens(plain, [merged[:1]], None)


THINKS = (
    EACH + "<|im_start|>{{ m.role }}\n{% set said = m.content %}{% if m.role == 'assistant' %}"
    "{% if '</think>' in said %}{% set thought = said.split('</think>')[0].split('<think>')[-1].strip() %}"
    "{% set said = said.split('</think>')[-1].lstrip() %}{% else %}{% set thought = '' %}{% endif %}"
    "{% if loop.last %}<think>\n{{ thought }}\n</think>\n\n{% endif %}{% endif %}{{ said }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is defined and not enable_thinking %}"
    "<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def test_thoughts_of_a_row_are_trained_on_as_the_template_writes_them() -> None:
    tok = tokenizer(Family(THINKS, "", "", None), "bytes")
    thinking = Turn("assistant", "<think>A bird?</think>Heron.", is_trained=True)
    _, labels = trained(tok, ChatRow("r", (EXCHANGE[0], thinking)))
    assert tok.decode(labels) == "<think>\nA bird?\n</think>\n\nHeron.<|im_end|>"
    _, labels = trained(tok, ChatRow("r", (EXCHANGE[0], thinking, *TWO[2:])))
    assert tok.decode(labels) == "Heron.<|im_end|><think>\n\n</think>\n\nRobin.<|im_end|>"


def test_a_model_that_is_told_not_to_think_is_trained_on_answers_alone() -> None:
    tok = templates.set_up(tokenizer(Family(THINKS, "", "", None), "bytes"), ("enable_thinking=false",))
    ids, labels = trained(tok, ChatRow("r", EXCHANGE))
    assert tok.decode(labels) == "Heron.<|im_end|>"
    (asked,) = chat.prompt_tokens(tok, [EXCHANGE[:1]], None)
    assert ids == asked + labels


def test_a_template_that_changes_an_answer_is_refused() -> None:
    tok = tokenizer(Family(EACH + "{{ m.content | upper }}{% endfor %}", "", "", None), "bytes")
    with pytest.raises(ValueError, match="row r: the chat template does not write the assistant's turn as it is"):
        trained(tok, ChatRow("r", EXCHANGE))


def test_a_long_row_is_cut_and_one_without_room_for_an_answer_refused() -> None:
    tok = tokenizer(FAMILIES["chatml"], "bytes")
    ids, _ = trained(tok, ChatRow("r", EXCHANGE))
    asked = len(chat.prompt_tokens(tok, [EXCHANGE[:1]], None)[0])
    (cut,) = chat.training_rows(tok, [ChatRow("r", EXCHANGE)], asked + 2)
    assert cut["input_ids"] == ids[: asked + 2]
    with pytest.raises(ValueError, match=f"row r: its prompt alone has {asked} tokens, max_length is {asked}"):
        chat.training_rows(tok, [ChatRow("r", EXCHANGE)], asked)


def test_plain_text_has_no_template_and_ends_as_sequences_end() -> None:
    tok = tokenizer(FAMILIES["chatml"], "bytes")
    ids, labels = trained(tok, ChatRow("r", (Turn("assistant", "Herons wade.", is_trained=True),)))
    assert tok.decode(ids) == "Herons wade.</s>"
    assert labels == ids
