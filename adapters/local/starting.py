"""How a first sweep begins on this machine: the settings of `local/sft` and `local/transformers`, by the model and its rows."""

from __future__ import annotations

from pathlib import Path

from adapters import thoughts
from adapters.lengths import positions
from adapters.local.settings import SftSettings
from adapters.model_folder import chat_template
from engine.ports import FirstJob, FirstSettings

LR, STANDIN_LR = 1e-4, 1e-3
LARGE = 1_000_000_000
"""A model of so many weights is computed with in bfloat16."""

LONGEST = 4096
"""Tokens of a row to which a first sweep goes; longer rows are cut."""

THINKING = 2048
"""Tokens of an answer with the thoughts before it."""

RATE = (
    "a LoRA adapter; rates of 5e-5 to 5e-4 are usual for one, and Qi et al. 2023 (arXiv 2310.03693) tune all weights of a 7 B"
    " model with 2e-5 to 5e-5: make `tune.lr` an axis"
)
HALF = "weights are read in bfloat16, for a model of this size; `float32` takes twice the memory"

ROOM = "`max_new_tokens` has room for thoughts: an answer that is cut off in its thoughts is empty"


def tuning(job: FirstJob) -> FirstSettings:
    """Return how to begin to tune: a LoRA adapter, with rows whole where they are not very long."""
    settings: dict[str, object] = {
        "method": "lora",
        "rank": 8,
        "lr": STANDIN_LR if job.card.standin else LR,
        "batch_size": 10,
        "schedule": "constant",
    }
    notes = [] if job.card.standin else [RATE]
    most = positions(Path(job.model.base)) or LONGEST
    usual: int = SftSettings.model_fields["max_length"].default
    if job.longest > min(usual, most):
        length = min(max(usual, 1 << (job.longest - 1).bit_length()), most, LONGEST)
        settings["max_length"] = length
        cut = "; it is cut" if job.longest > length else ""
        notes.append(f"the longest row has {job.longest:,} tokens{cut}")
    if _is_large(job):
        settings["precision"] = "mixed"
        notes.append(HALF)
    return FirstSettings(settings, tuple(notes))


def asking(job: FirstJob) -> FirstSettings:
    """Return how to begin to ask: in float32, large models in bfloat16, and with room for thoughts where the chat template shows them."""
    settings: dict[str, object] = {}
    notes = []
    folder = Path(job.model.base)
    if thoughts.marks(chat_template(folder)):
        settings["max_new_tokens"] = min(THINKING, positions(folder) or THINKING)
        notes.append(ROOM)
    if _is_large(job):
        settings["dtype"] = "bfloat16"
        notes.append(HALF)
    return FirstSettings(settings, tuple(notes))


def _is_large(job: FirstJob) -> bool:
    return (job.card.parameters or 0) >= LARGE
