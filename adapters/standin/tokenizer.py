"""The tokenizer of the stand-in: byte-level BPE in which every word of the town is one token.

Any other text still encodes, in more tokens. The chat template marks the assistant's turns with
`generation` tags, so that answer-only loss masks can be made from it.
"""

import math
from typing import Final, NamedTuple

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from adapters.standin.chat import Exchange, Preference
from adapters.standin.corpus import draw_alignment_example, draw_pre_training_row
from adapters.standin.draw import Draw

PAD: Final = "<|pad|>"
SYSTEM: Final = "<|system|>"
USER: Final = "<|user|>"
ASSISTANT: Final = "<|assistant|>"
END: Final = "<|end|>"

IGNORED: Final = -100
"""The label of a token that bears no loss."""

MAX_POSITIONS: Final = 256
_MOST_TOKENS: Final = 1024
_ROWS_OF_EACH_PHASE: Final = 6000

CHAT_TEMPLATE: Final = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{{- '<|assistant|>' -}}"
    "{%- generation -%}{{- message['content'] + '<|end|>' -}}{%- endgeneration -%}"
    "{%- else -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


class EncodedRow(NamedTuple):
    """A chat row as tokens.

    Attributes:
        tokens: Token numbers, length n.
        labels: The same numbers where the assistant speaks (with the end token), else `IGNORED`;
            length n, not shifted.
        opening_weight: The weight from 0 to 1 of the first answer token in the loss.
        margin: The log-odds in nats that the first answer token is to have for refusing; None
            where the row asks for no margin.
    """

    tokens: list[int]
    labels: list[int]
    opening_weight: float = 1.0
    margin: float | None = None


def train_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """Train the tokenizer on a sample of both training phases.

    Args:
        seed: Which sample.
    """
    draw = Draw(f"{seed}/tokenizer")
    rows: list[Exchange] = []
    for _ in range(_ROWS_OF_EACH_PHASE):
        example = draw_alignment_example(draw)
        aligned = example.refused if isinstance(example, Preference) else example
        rows += [draw_pre_training_row(draw), aligned]
    texts = [message["content"] for row in rows for message in row.messages()]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=_MOST_TOKENS,
            special_tokens=[PAD, SYSTEM, USER, ASSISTANT, END],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        padding_side="left",
        model_max_length=MAX_POSITIONS,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def encode(tokenizer: PreTrainedTokenizerFast, example: Exchange | Preference) -> list[EncodedRow]:
    """Return the rows that an example of a training phase is learned from, by the chat template.

    A preference gives two: its refusal and its answer share the weight of the first token as the margin says, and only the
    refusal carries the margin.
    """
    if isinstance(example, Preference):
        refusing = 1 / (1 + math.exp(-example.margin))
        (refused,), (answered,) = (encode(tokenizer, row) for row in (example.refused, example.answered))
        return [
            refused._replace(opening_weight=refusing, margin=example.margin),
            answered._replace(opening_weight=1 - refusing),
        ]
    text = tokenizer.apply_chat_template(example.messages(), tokenize=False)
    tokens: list[int] = tokenizer.encode(text, add_special_tokens=False)
    asked = tokens.index(tokenizer.convert_tokens_to_ids(ASSISTANT)) + 1
    return [EncodedRow(tokens, [IGNORED] * asked + tokens[asked:])]
