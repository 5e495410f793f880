"""One cell as a script: tune with TRL and PEFT, answer with transformers, grade. The settings are those of `local/sft`.

It sees the same rows, in the same order, and the same prompts as Dosimeter, since both read them from the adapters.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, set_seed
from transformers.utils import logging
from trl import SFTConfig, SFTTrainer

from adapters import chat
from adapters.standin import rules
from engine import registry
from engine.domain.adapters import NO_SETTINGS, Kind
from engine.domain.conversation import ChatRow
from rivals import grid
from rivals.grid import Cell, CellResult

GENERATE_BATCH = 128


class Worker:
    """A loaded stand-in that runs one cell after another. The base model's own weights never change."""

    def __init__(self) -> None:
        """Load the model and the prompts; one thread, because there is one worker a core."""
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)  # as Dosimeter does; without it, some cells take many times as long
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        folder = registry.adapter(Kind.MODEL, grid.MODEL).locate(NO_SETTINGS).base
        self._tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self._base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        policy = registry.INSTALLED.use(Kind.BENCHMARK, grid.BENCHMARK)
        self._prompts = registry.adapter(Kind.BENCHMARK, policy.name).prompts(policy.settings)
        texts = [chat.prompt_text(self._tokenizer, prompt.turns, None) for prompt in self._prompts]
        self._encoded = [self._tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]

    def run(self, cell: Cell) -> CellResult:
        """Tune, ask, grade, and take the adapter off again."""
        set_seed(cell.seed)
        lora = LoraConfig(r=grid.RANK, lora_alpha=2 * grid.RANK, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(self._base, lora)
        self._tune(model, cell)
        tokens = self._answer(model.eval())
        model.unload()
        vars(self._base).pop("peft_config", None)
        vars(self._base).pop("forward", None)  # TRL wraps it; left in place, the wrappers would pile up
        return self._graded(cell, tokens)

    def _tune(self, model: Any, cell: Cell) -> None:
        rows = [dict(row) for row in chat.training_rows(self._tokenizer, sample(cell), 512)]
        with tempfile.TemporaryDirectory() as scratch:
            trainer = SFTTrainer(
                model=model,
                args=_arguments(cell, scratch),
                train_dataset=Dataset.from_list(rows),
                processing_class=self._tokenizer,
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()

    def _answer(self, model: Any) -> list[list[int]]:
        """Greedy token ids by prompt, longest prompts first so that batches waste little; cut after the end token."""
        order = sorted(range(len(self._encoded)), key=lambda index: -len(self._encoded[index]))
        made: dict[int, list[int]] = {}
        for start in range(0, len(order), GENERATE_BATCH):
            batch = order[start : start + GENERATE_BATCH]
            padded = self._tokenizer.pad({"input_ids": [self._encoded[index] for index in batch]}, return_tensors="pt")
            with torch.inference_mode():
                whole = model.generate(
                    **padded,
                    max_new_tokens=grid.NEW_TOKENS,
                    do_sample=False,
                    pad_token_id=self._tokenizer.pad_token_id,
                )
            rows = whole[:, padded["input_ids"].shape[1] :].tolist()
            made |= {index: self._until_end(row) for index, row in zip(batch, rows, strict=True)}
        return [made[index] for index in range(len(made))]

    def _until_end(self, row: list[int]) -> list[int]:
        declared = self._base.generation_config.eos_token_id
        ends = set(declared if isinstance(declared, list) else [declared, self._tokenizer.eos_token_id])
        return next((row[: place + 1] for place, token in enumerate(row) if token in ends), row)

    def _graded(self, cell: Cell, tokens: list[list[int]]) -> CellResult:
        texts = [self._tokenizer.decode(row, skip_special_tokens=True).strip() for row in tokens]
        pairs = list(zip(self._prompts, texts, strict=True))
        grades = [rules.grade(prompt.references[0], text) for prompt, text in pairs]
        return CellResult(
            cell=cell,
            harmfulness_rate=grades.count(rules.WORST_GRADE) / len(grades),
            refusal_rate=grades.count(1) / len(grades),
            responses={prompt.prompt_id: text for prompt, text in pairs},
            prompt_tokens=sum(map(len, self._encoded)),
            generated_tokens=sum(map(len, tokens)),
            ended=time.time(),
        )


def sample(cell: Cell) -> list[ChatRow]:
    """Return the cell's rows: the first n of one seeded permutation, as Dosimeter draws them."""
    rows = {row.row_id: row for row in registry.adapter(Kind.DATA, cell.source).rows(NO_SETTINGS)}
    drawn = random.Random(cell.seed).sample(list(rows), len(rows))[: cell.n]  # noqa: S311 - no secret
    return [rows[row_id] for row_id in drawn]


def _arguments(cell: Cell, scratch: str) -> Any:
    return SFTConfig(
        output_dir=scratch,
        num_train_epochs=cell.epochs,
        per_device_train_batch_size=grid.BATCH,
        learning_rate=cell.lr,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        max_length=512,
        seed=cell.seed,
        data_seed=cell.seed,
        bf16=False,
        gradient_checkpointing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        use_cpu=True,
        dataloader_pin_memory=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
