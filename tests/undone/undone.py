"""A package of a third party: a fine-tuner that trains as `local/sft` does, and then edits what was written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from adapters.local.tune import LocalFineTuner
from engine.ports import Context, TrainingRun, Tuned


class Undone(LocalFineTuner):
    """Takes all that was learned back: B of every adapted module becomes zero."""

    def fine_tune(self, runs: Sequence[TrainingRun], context: Context) -> Iterator[tuple[str, Tuned | Exception]]:
        """Train, and edit each checkpoint's file."""
        from safetensors.torch import load_file, save_file

        folders = {checkpoint.key: checkpoint.folder for run in runs for checkpoint in run.checkpoints}
        for key, tuned in super().fine_tune(runs, context):
            path = folders[key] / "adapter_model.safetensors"
            weights = load_file(path)
            save_file({name: weight * ("lora_A" in name) for name, weight in weights.items()}, path, {"format": "pt"})
            yield key, tuned
