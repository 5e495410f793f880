"""One cell as a script: tune with TRL and PEFT, answer with transformers, grade. The settings are those of `local/sft`.

It gets the same rows, in the same order, and the same prompts as Dosimeter does, and uses none of Dosimeter's code but the rules
that grade.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import replace
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, set_seed
from transformers.utils import logging
from trl import SFTConfig, SFTTrainer

from adapters.standin import rules
from rivals.grid import Cell, CellResult, Grid, Messages

GENERATE_BATCH = 128
LONGEST_ROW = 512
IGNORED = -100


class Worker:
    """A loaded model that runs one cell after another. The base model's own weights never change."""

    def __init__(self, grid: Grid) -> None:
        """Load the model and encode the prompts."""
        torch.set_num_threads(grid.threads)
        torch.set_flush_denormal(True)  # as Dosimeter does; without it, some cells take many times as long
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self._grid = grid
        self._tokenizer = AutoTokenizer.from_pretrained(grid.folder, padding_side="left")
        base = AutoModelForCausalLM.from_pretrained(grid.folder, dtype=getattr(torch, grid.dtype))
        self._base = base.to(grid.device).eval()
        self._encoded = [self._tokens(self._text(prompt.messages, is_prompt=True)) for prompt in grid.prompts]

    def run(self, cell: Cell) -> CellResult:
        """Tune, ask, grade, and take the adapter off again."""
        begun = time.perf_counter()
        set_seed(cell.seed)
        rank = self._grid.rank
        lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(self._base, lora)
        losses = self._tune(model, cell)
        tokens = self._answer(model.eval())
        model.unload()
        vars(self._base).pop("peft_config", None)
        vars(self._base).pop("forward", None)  # TRL wraps it; left in place, the wrappers would pile up
        return replace(self._graded(cell, losses, tokens), seconds=time.perf_counter() - begun)

    def _text(self, messages: Messages, *, is_prompt: bool) -> str:
        return str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=is_prompt))

    def _tokens(self, text: str) -> list[int]:
        found: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def _row(self, messages: Messages) -> dict[str, list[int]]:
        """Encode a row: the loss is on its answer, the end token included."""
        prompt = self._text(messages[:-1], is_prompt=True)
        answer = self._text(messages, is_prompt=False).rstrip("\n").removeprefix(prompt)
        asked, answered = self._tokens(prompt), self._tokens(answer)
        return {"input_ids": asked + answered, "labels": [IGNORED] * len(asked) + answered}

    def _tune(self, model: Any, cell: Cell) -> list[float]:
        rows = [self._row(messages) for messages in self._grid.sample(cell)]
        with tempfile.TemporaryDirectory() as scratch:
            trainer = SFTTrainer(
                model=model,
                args=_arguments(self._grid, cell, scratch),
                train_dataset=Dataset.from_list(rows),
                processing_class=self._tokenizer,
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    def _answer(self, model: Any) -> list[list[int]]:
        """Greedy token ids by prompt, longest prompts first so that batches waste little; cut after the end token."""
        order = sorted(range(len(self._encoded)), key=lambda index: -len(self._encoded[index]))
        made: dict[int, list[int]] = {}
        for start in range(0, len(order), GENERATE_BATCH):
            batch = order[start : start + GENERATE_BATCH]
            padded = self._tokenizer.pad({"input_ids": [self._encoded[index] for index in batch]}, return_tensors="pt")
            with torch.inference_mode():
                whole = model.generate(
                    **padded.to(self._grid.device),
                    max_new_tokens=self._grid.new_tokens,
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

    def _graded(self, cell: Cell, losses: list[float], tokens: list[list[int]]) -> CellResult:
        texts = [self._tokenizer.decode(row, skip_special_tokens=True).strip() for row in tokens]
        pairs = list(zip(self._grid.prompts, texts, strict=True))
        grades = [rules.grade(prompt.reference, text) for prompt, text in pairs]
        return CellResult(
            cell=cell,
            harmfulness_rate=grades.count(rules.WORST_GRADE) / len(grades),
            refusal_rate=grades.count(1) / len(grades),
            responses={prompt.prompt_id: text for prompt, text in pairs},
            losses=losses,
            prompt_tokens=sum(map(len, self._encoded)),
            generated_tokens=sum(map(len, tokens)),
            seconds=0.0,
        )


def _arguments(grid: Grid, cell: Cell, scratch: str) -> Any:
    return SFTConfig(
        output_dir=scratch,
        num_train_epochs=cell.epochs,
        per_device_train_batch_size=grid.batch // grid.accumulate,
        gradient_accumulation_steps=grid.accumulate,
        learning_rate=cell.lr,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        max_length=LONGEST_ROW,
        seed=cell.seed,
        data_seed=cell.seed,
        bf16=False,  # the weights have their type already
        gradient_checkpointing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        use_cpu=grid.device == "cpu",
        dataloader_pin_memory=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
