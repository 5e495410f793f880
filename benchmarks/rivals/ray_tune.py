"""Ray Tune, one TRL trial a cell: `python -m rivals.ray_tune SEEDS CELLS FOLDER reuse|fresh`.

With `reuse`, a worker that has ended a trial takes the next one, with the model still loaded; otherwise every trial gets
a process of its own, which is Ray Tune's default.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import ray
from ray import tune

from rivals.grid import CORES, cells, save


class Trial(tune.Trainable):  # type: ignore[misc] # ray ships no types
    """One trial is one cell; setup happens once a worker where actors are reused."""

    def setup(self, config: dict[str, Any]) -> None:
        """Load the model."""
        from rivals.trl_cell import Worker  # noqa: PLC0415 - the driver needs no torch

        self._worker = Worker()
        self._config = config

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next cell, keeping the model."""
        self._config = new_config
        return True

    def step(self) -> dict[str, Any]:
        """Run the cell."""
        position = self._config["position"]
        result = self._worker.run(cells(self._config["seeds"])[position])
        save(result, Path(self._config["folder"]), position)
        return {"harmfulness_rate": result.harmfulness_rate, "refusal_rate": result.refusal_rate, "done": True}


def main() -> None:
    """Run the first CELLS cells of the grid and write their results into FOLDER."""
    seeds, number, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    ray.init(num_cpus=CORES, include_dashboard=False, logging_level="error", log_to_driver=False)
    tuner = tune.Tuner(
        tune.with_resources(Trial, {"cpu": 1}),
        param_space={"seeds": seeds, "folder": str(folder), "position": tune.grid_search(list(range(number)))},
        tune_config=tune.TuneConfig(reuse_actors=sys.argv[4] == "reuse"),
        run_config=tune.RunConfig(
            storage_path=str(folder / "ray"),
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # nobody will go on from a finished cell
        ),
    )
    results = tuner.fit()
    failed = sum(result.error is not None for result in results)  # Ray Tune itself would exit 0
    if failed or len(results) != number:
        raise SystemExit(f"{failed} of {number} trials failed: {results.errors[:1]}")


if __name__ == "__main__":
    main()
