"""`local/transformers`: answers from transformers' `generate`, batched, sorted by length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from adapters.local import chat, compute
from adapters.local.loaded import loaded, quiet
from engine.domain.cost import Usage
from engine.domain.results import Finish, Response
from engine.domain.stage import Range
from engine.domain.sweep import GenerateRecipe
from engine.ports import Context, Generated, GenerateTask, Workload

TEMPLATE_TOKENS_PER_PROMPT = 4
ANSWER_SHARE = (0.1, 0.4, 1.0)
"""Answers' mean length as a share of max_new_tokens: low, expected, high."""

SPREAD = (0.5, 1.0, 2.5)
SAMPLED_BATCH = 32
"""Sampled answers share one random stream a batch, so its size bears on them and may not be a run setting."""


class TransformersGenerator:
    """Greedy or sampled decoding in this process and on this host's device.

    Greedy answers do not depend on who is in the batch, and sampled ones are made in batches of one fixed size, so that
    the same task gives the same answers on the same machine, whatever `run.resources` says.
    """

    revision = 1

    def forecast(self, settings: GenerateRecipe, workload: Workload) -> Range:
        """Estimate tokens and device-seconds."""
        answers = workload.items * settings.samples
        read = (workload.tokens + TEMPLATE_TOKENS_PER_PROMPT * workload.items) * settings.samples
        ends = []
        for share, spread in zip(ANSWER_SHARE, SPREAD, strict=True):
            made = round(answers * max(1.0, settings.max_new_tokens * share))
            steps = round(settings.max_new_tokens * share)
            taken = compute.seconds(workload.parameters, read + made, steps, compute.GENERATE_FLOP_PER_WEIGHT)
            ends.append(Usage(prompt_tokens=read, generated_tokens=made, device_seconds=taken * spread))
        return Range(*ends)

    @quiet()
    def generate(self, task: GenerateTask, context: Context) -> Generated:
        """Answer every prompt, `settings.samples` times."""
        held = loaded(task.model, task.settings.dtype, context)
        model = held.to_ask(task.model)
        _seed(task)
        texts = [chat.prompt_text(held.tokenizer, prompt.text, task.system) for prompt in task.prompts]
        encoded = [held.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        ends = _end_tokens(model, held.tokenizer)
        made: dict[int, list[tuple[list[int], Finish]]] = {}
        size = SAMPLED_BATCH if task.settings.temperature > 0 else context.generate_batch
        for batch in _batches(encoded, size):
            answers = _decode(model, held.tokenizer, [encoded[index] for index in batch], task.settings)
            made |= {index: [_until_end(row, ends) for row in rows] for index, rows in zip(batch, answers, strict=True)}
        responses = [
            Response(
                prompt_id=prompt.prompt_id,
                sample=sample,
                text=held.tokenizer.decode(tokens, skip_special_tokens=True).strip(),
                finish=finish,
                prompt_tokens=len(encoded[index]),
                generated_tokens=len(tokens),
            )
            for index, prompt in enumerate(task.prompts)
            for sample, (tokens, finish) in enumerate(made[index])
        ]
        return Generated(responses, _usage(responses))


def _seed(task: GenerateTask) -> None:
    if task.settings.temperature > 0:
        from transformers import set_seed

        set_seed(task.seed)


def _batches(encoded: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
    """Yield the prompts' indices, longest first, so that batches waste little on padding and memory peaks at once."""
    order = sorted(range(len(encoded)), key=lambda index: -len(encoded[index]))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _decode(
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], settings: GenerateRecipe
) -> list[list[list[int]]]:
    """Return token ids[prompt][sample][token], padding included."""
    import torch

    padded = tokenizer.pad({"input_ids": list(prompts)}, padding=True, return_tensors="pt").to(model.device)
    sampling = settings.temperature > 0
    extra = {"temperature": settings.temperature, "top_p": settings.top_p, "top_k": 0} if sampling else {}
    with torch.inference_mode():
        made = model.generate(
            **padded,
            max_new_tokens=settings.max_new_tokens,
            do_sample=sampling,
            num_return_sequences=settings.samples,
            pad_token_id=tokenizer.pad_token_id,
            **extra,
        )
    rows: list[list[int]] = made[:, padded["input_ids"].shape[1] :].tolist()
    return [rows[start : start + settings.samples] for start in range(0, len(rows), settings.samples)]


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens at which `generate` stops a row."""
    declared = model.generation_config.eos_token_id
    several = declared if isinstance(declared, list) else [declared, tokenizer.eos_token_id]
    return frozenset(token for token in several if token is not None)


def _until_end(row: list[int], ends: frozenset[int]) -> tuple[list[int], Finish]:
    """Cut a row after its first end token."""
    for position, token in enumerate(row):
        if token in ends:
            return row[: position + 1], Finish.STOP
    return row, Finish.LENGTH


def _usage(responses: Sequence[Response]) -> Usage:
    return Usage(
        prompt_tokens=sum(response.prompt_tokens for response in responses),
        generated_tokens=sum(response.generated_tokens for response in responses),
    )
