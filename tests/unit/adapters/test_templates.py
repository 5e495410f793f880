"""Chat templates with the habits of different families, written anew: what is trained on, where an answer ends, and what is asked."""

from __future__ import annotations

from typing import Any

import pytest

from adapters import chat, templates
from engine.domain.conversation import ChatRow, Turn

from ...families import EACH, FAMILIES, Family, tokenizer  # noqa: TID252 - tests are no package

KINDS = ("bytes", "pieces")
EXCHANGE = (Turn("user", "Name a bird."), Turn("assistant", "Heron.", is_trained=True))
TWO = (*EXCHANGE, Turn("user", "And another."), Turn("assistant", "Robin.", is_trained=True))


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
    if family.opens:
        asked_text = tok.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
        whole = tok(asked_text + family.trained, add_special_tokens=False)["input_ids"]
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


def test_thoughts_of_a_row_follow_those_that_the_template_opens() -> None:
    tok = tokenizer(FAMILIES["thoughts opened for the model that is asked"], "bytes")
    thinking = Turn("assistant", "<think>A bird?</think>\n\nHeron.", is_trained=True)
    ids, labels = trained(tok, ChatRow("r", (EXCHANGE[0], thinking)))
    assert tok.decode(labels) == "A bird?\n</think>\n\nHeron.<|im_end|>"
    assert ids == chat.prompt_tokens(tok, [EXCHANGE[:1]], None)[0] + labels


def test_a_system_prompt_that_stands_elsewhere_too_is_missed_all_the_same() -> None:
    tok = tokenizer(Family(IGNORES, "", "", None), "bytes")
    with pytest.raises(ValueError, match="no place for a system prompt"):
        chat.prompt_tokens(tok, [(Turn("user", "Be brief. What is it?"),)], "Be brief.")


def test_options_leave_the_white_space_of_a_template_as_it_is() -> None:
    spaced = "\n\n INTRO {% for m in messages %}{{ m.content }}{% endfor %}\n"
    plain = tokenizer(Family(spaced, "", "", None), "bytes")
    told = templates.set_up(tokenizer(Family(spaced, "", "", None), "bytes"), ("system=fold", "a=1", "date=2026-01-31"))
    assert chat.prompt_text(told, EXCHANGE[:1], None) == chat.prompt_text(plain, EXCHANGE[:1], None)


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
