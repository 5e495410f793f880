"""The model of the stand-in and the loop that trains it: fp32, one thread, answer tokens only."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from adapters.standin.chat import Exchange, Preference
from adapters.standin.corpus import (
    ANSWERING_OPENINGS,
    REFUSING_OPENINGS,
    draw_alignment_example,
    draw_pre_training_row,
)
from adapters.standin.draw import Draw
from adapters.standin.tokenizer import IGNORED, MAX_POSITIONS, EncodedRow, encode

_FINAL_SHARE_OF_PEAK: Final = 0.05
_POOLED_BATCHES: Final = 16
_MARGIN_WEIGHT: Final = 0.1
_REPORTS: Final = 10


@dataclass(frozen=True, slots=True)
class Phase:
    """One training phase: AdamW, linear warm-up, then a cosine down to 5% of the peak.

    Attributes:
        name: Names the phase in the progress lines and seeds its data.
        draw_example: Draws one example of it.
        steps: Optimiser steps, at least 1.
        batch_size: Rows a step, at least 1; a preference is two rows.
        peak_learning_rate: Above 0.
        warm_up_steps: At least 1.
    """

    name: str
    draw_example: Callable[[Draw], Exchange | Preference]
    steps: int
    batch_size: int
    peak_learning_rate: float
    warm_up_steps: int

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        warm = min(1.0, (step + 1) / self.warm_up_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        share = _FINAL_SHARE_OF_PEAK + (1 - _FINAL_SHARE_OF_PEAK) * cosine
        return self.peak_learning_rate * warm * share


PRE_TRAINING: Final = Phase("pre-training", draw_pre_training_row, 4000, 32, 3e-3, 50)
ALIGNMENT: Final = Phase("alignment", draw_alignment_example, 500, 48, 1e-3, 20)


class Batch:
    """Rows padded on the right to one length; no mask is needed under causal attention.

    Attributes:
        tokens: int64[batch, length].
        labels: int64[batch, length], `IGNORED` where there is no loss; not shifted.
        opening_weights: float32[batch], the weight of each row's first answer token, 0 to 1.
        margins: float32[batch], the margin each row asks for in nats, NaN for none.
    """

    def __init__(self, rows: Sequence[EncodedRow], pad: int) -> None:
        """Pad the rows.

        Args:
            rows: At least one.
            pad: The number of the padding token.
        """
        length = max(len(row.tokens) for row in rows)
        self.tokens = torch.tensor([row.tokens + [pad] * (length - len(row.tokens)) for row in rows])
        self.labels = torch.tensor([row.labels + [IGNORED] * (length - len(row.labels)) for row in rows])
        self.opening_weights = torch.tensor([row.opening_weight for row in rows])
        self.margins = torch.tensor([math.nan if row.margin is None else row.margin for row in rows])


class Openings:
    """The tokens that refusing and answering begin with.

    Attributes:
        refusing: int64[r].
        answering: int64[a].
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Look the tokens up.

        Args:
            tokenizer: A tokenizer made by `train_tokenizer`.
        """

        def first_tokens(texts: Sequence[str]) -> torch.Tensor:
            return torch.tensor(sorted({tokenizer.encode(text)[0] for text in texts}))

        self.refusing = first_tokens(REFUSING_OPENINGS)
        self.answering = first_tokens(ANSWERING_OPENINGS)

    def margins(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the log-odds in nats for refusing, float32[n].

        Args:
            logits: float32[n, tokens], of the first answer token.
        """
        refusing = logits[:, self.refusing].logsumexp(dim=-1)
        return refusing - logits[:, self.answering].logsumexp(dim=-1)


def new_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """Return an untrained model of about 0.4 million parameters.

    Args:
        tokenizer: Gives the vocabulary size and the special tokens.
        seed: Of the initial weights.
    """
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=96,
            intermediate_size=256,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=MAX_POSITIONS,
            initializer_range=0.03,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
        max_new_tokens=32,
    )
    return model


def train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    phase: Phase,
    seed: int,
    report: Callable[[str], None],
) -> None:
    """Train the model through one phase, in place.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        phase: What to show it and how.
        seed: Of the data.
        report: Called with a progress line about ten times.
    """
    optimiser = torch.optim.AdamW(model.parameters(), lr=phase.peak_learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    batches, openings = _batches(tokenizer, phase, seed), Openings(tokenizer)
    every, total = max(1, phase.steps // _REPORTS), 0.0
    model.train()
    for step in range(phase.steps):
        for group in optimiser.param_groups:
            group["lr"] = phase.learning_rate(step)
        loss = batch_loss(model, next(batches), openings)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        total += loss.item()
        if (step + 1) % every == 0:
            report(f"{phase.name}: step {step + 1} of {phase.steps}, loss {total / every:.3f}")
            total = 0.0
    model.eval()


def batch_loss(model: LlamaForCausalLM, batch: Batch, openings: Openings) -> torch.Tensor:
    """Return the loss of a batch, float32[].

    It is the weighted mean cross-entropy over answer tokens, plus 0.1 times the mean squared
    distance of the margins from those asked for. The vocabulary logits are computed only where
    there is a loss, which saves most of their cost.

    Source: the squared margin is the loss of IPO (arXiv 2310.12036, eq. 17), taken on the first
    answer token and without a reference model.
    """
    hidden = model.model(input_ids=batch.tokens, use_cache=False).last_hidden_state[:, :-1]
    targets = batch.labels[:, 1:]
    bears_loss = targets != IGNORED
    rows = torch.arange(len(targets))
    first = bears_loss.int().argmax(dim=1)
    weights = torch.ones(targets.shape)
    weights[rows, first] = batch.opening_weights
    each = functional.cross_entropy(model.lm_head(hidden[bears_loss]), targets[bears_loss], reduction="none")
    loss = (each * weights[bears_loss]).sum() / weights[bears_loss].sum()
    asked = ~batch.margins.isnan()
    if asked.any():
        measured = openings.margins(model.lm_head(hidden[rows[asked], first[asked]]))
        loss = loss + _MARGIN_WEIGHT * functional.mse_loss(measured, batch.margins[asked])
    return loss


def _batches(tokenizer: PreTrainedTokenizerFast, phase: Phase, seed: int) -> Iterator[Batch]:
    """Yield batches without end; rows of like length go together, which saves padding."""
    draw = Draw(f"{seed}/{phase.name}")
    pad, size = int(tokenizer.pad_token_id), phase.batch_size
    while True:
        rows: list[EncodedRow] = []
        while len(rows) < size * _POOLED_BATCHES:
            rows += encode(tokenizer, phase.draw_example(draw))
        rows.sort(key=lambda row: len(row.tokens))
        starts = draw.shuffled(range(0, len(rows), size))
        yield from (Batch(rows[start : start + size], pad) for start in starts)
