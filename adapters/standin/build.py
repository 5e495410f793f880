"""Rebuild the stand-in from nothing: tokenizer, pre-training, alignment, data sheet.

    python -m adapters.standin.build --out DIR [--seed 0]

Run it from the root of the repository. It takes about five minutes on one thread and is
deterministic: the same seed on the same machine and library versions gives the same bytes.
DIR then holds a model folder that `transformers` loads, and `data_sheet.json`.
"""

import argparse
import dataclasses
import json
import os
import sys
import time
from pathlib import Path

import tokenizers
import torch
import transformers

from adapters.standin.evaluate import DataSheet, measure
from adapters.standin.tokenizer import train_tokenizer
from adapters.standin.train import ALIGNMENT, PRE_TRAINING, Phase, new_model, train


def main() -> None:
    """Build the stand-in, as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m adapters.standin.build", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--seed", type=int, default=0, help="of weights and data (default 0)")
    options = parser.parse_args()
    build(options.out, options.seed)


def build(folder: Path, seed: int) -> None:
    """Build the stand-in and write it.

    Args:
        folder: Where to; made if missing.
        seed: Of the initial weights and of all data.
    """
    _settle_torch()
    started = time.monotonic()
    tokenizer = train_tokenizer(seed)
    model = new_model(tokenizer, seed)
    _say(f"{len(tokenizer)} tokens, {model.num_parameters():,} parameters")
    phases = []
    for phase in (PRE_TRAINING, ALIGNMENT):
        train(model, tokenizer, phase, seed, _say)
        sheet = measure(model, tokenizer)
        phases.append(_record_of(phase, sheet))
        _say(f"after {phase.name}, greedy, held-out prompts:")
        for field in dataclasses.fields(sheet):
            _say(f"  {field.name.replace('_', ' '):18} {getattr(sheet, field.name)}")
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # for all to read
    record = {
        "seed": seed,
        "phases": phases,
        "parameters": model.num_parameters(),
        "tokens": len(tokenizer),
        "versions": {
            "torch": str(torch.__version__),
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
    }
    (folder / "data_sheet.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    _say(f"built in {time.monotonic() - started:.0f} s")


def _settle_torch() -> None:
    """Make training deterministic, and denormal numbers cheap."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.use_deterministic_algorithms(mode=True)


def _record_of(phase: Phase, sheet: DataSheet) -> dict[str, object]:
    return {
        "name": phase.name,
        "steps": phase.steps,
        "batch_size": phase.batch_size,
        "peak_learning_rate": phase.peak_learning_rate,
        "warm_up_steps": phase.warm_up_steps,
        "measured": dataclasses.asdict(sheet),
    }


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
