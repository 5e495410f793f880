"""One cell as anybody would write it with transformers, PEFT and TRL. Nothing of Dosimeter is in here.

    python benchmarks/acceptance/plain.py JOB.json RESULT.json

Rows are the first n of `random.Random(seed).sample` over the lines of the file; the loss is on the assistant's turn with its end
token; the adapter is drawn right after the seed is set; answers are greedy, and all prompts of a file are one batch.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, set_seed
from transformers.utils import logging
from trl import SFTConfig, SFTTrainer

IGNORED = -100


@dataclass(frozen=True)
class Job:
    """One cell.

    Attributes:
        model: The model folder.
        prompts: Benchmark files by role.
        new_tokens: Longest answer, in tokens.
        system: System prompt at test; empty for none.
        rows: The file of training rows; None for the starting model. The other fields are of the training.
    """

    model: str
    prompts: dict[str, str]
    new_tokens: int
    system: str = ""
    rows: str | None = None
    n: int = 0
    epochs: int = 0
    lr: float = 0.0
    batch_size: int = 1
    rank: int = 8
    seed: int = 0


@dataclass(frozen=True)
class Result:
    """Losses by step, nats per answer token; answers by role and line of the prompt file, in order."""

    losses: list[float]
    answers: dict[str, list[str]]


def lines(path: str) -> list[dict[str, Any]]:
    """Return the objects of a JSON Lines file."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def run(job: Job) -> Result:
    """Tune, where there are rows, and answer."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    tokenizer = AutoTokenizer.from_pretrained(job.model, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(job.model, dtype=torch.float32)
    losses: list[float] = []
    if job.rows is not None:
        set_seed(job.seed)
        lora = LoraConfig(r=job.rank, lora_alpha=2 * job.rank, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, lora)
        losses = trained(model, tokenizer, job)
    model.eval()
    answers = {role: answered(model, tokenizer, lines(path), job) for role, path in job.prompts.items()}
    return Result(losses, answers)


def trained(model: Any, tokenizer: Any, job: Job) -> list[float]:
    """Tune the model, and return the loss of every step."""
    rows = lines(str(job.rows))
    drawn = random.Random(job.seed).sample(range(len(rows)), len(rows))[: job.n]  # noqa: S311 - no secret
    data = Dataset.from_list([encoded(tokenizer, rows[at]["messages"]) for at in drawn])
    with tempfile.TemporaryDirectory() as scratch:
        arguments = SFTConfig(
            output_dir=scratch,
            num_train_epochs=job.epochs,
            per_device_train_batch_size=job.batch_size,
            learning_rate=job.lr,
            lr_scheduler_type="constant",
            weight_decay=0.0,
            max_grad_norm=1.0,
            seed=job.seed,
            data_seed=job.seed,
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
        trainer = SFTTrainer(model=model, args=arguments, train_dataset=data, processing_class=tokenizer)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]


def encoded(tokenizer: Any, messages: list[dict[str, str]]) -> dict[str, list[int]]:
    """Return the tokens of a row and its labels: the last turn, up to its end token."""
    prompt = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template(messages, tokenize=False).rstrip("\n")
    asked, answer = (
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, whole.removeprefix(prompt))
    )
    return {"input_ids": asked + answer, "labels": [IGNORED] * len(asked) + answer}


def answered(model: Any, tokenizer: Any, prompts: list[dict[str, Any]], job: Job) -> list[str]:
    """Return the greedy answers to the prompts of a file."""
    opening = [{"role": "system", "content": job.system}] if job.system else []
    texts = [
        tokenizer.apply_chat_template(
            [*opening, {"role": "user", "content": prompt["prompt"]}], tokenize=False, add_generation_prompt=True
        )
        for prompt in prompts
    ]
    batch = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
    with torch.inference_mode():
        made = model.generate(**batch, max_new_tokens=job.new_tokens, do_sample=False)
    new = made[:, batch["input_ids"].shape[1] :]
    return [text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]


if __name__ == "__main__":
    done = run(Job(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
    Path(sys.argv[2]).write_text(json.dumps(asdict(done)), encoding="utf-8")
