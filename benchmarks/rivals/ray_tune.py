"""Ray Tune, one TRL trial a cell: `python -m rivals.ray_tune GRID FOLDER CELLS`.

A worker that has ended a trial takes the next one, with the model still loaded.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import ray
from ray import tune

from rivals.grid import Grid, save


class Trial(tune.Trainable):  # type: ignore[misc] # ray ships no types
    """One trial is one cell; setup happens once a worker."""

    def setup(self, config: dict[str, Any]) -> None:
        """Load the model."""
        from rivals.trl_cell import Worker  # noqa: PLC0415 - the driver needs no torch

        self._grid = Grid.load(Path(config["grid"]))
        self._worker = Worker(self._grid)
        self._config = config

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next cell, keeping the model."""
        self._config = new_config
        return True

    def step(self) -> dict[str, Any]:
        """Run the cell."""
        position = self._config["position"]
        result = self._worker.run(self._grid.cells[position])
        save(result, Path(self._config["folder"]), position)
        return {"harmfulness_rate": result.harmfulness_rate, "refusal_rate": result.refusal_rate, "done": True}


def main() -> None:
    """Run the first CELLS cells of the grid and write their results into FOLDER."""
    grid, folder, number = Grid.load(Path(sys.argv[1])), Path(sys.argv[2]), int(sys.argv[3])
    gpus = int(grid.device != "cpu")
    ray.init(
        num_cpus=grid.workers * grid.threads,
        num_gpus=grid.workers * gpus,
        include_dashboard=False,
        logging_level="error",
        log_to_driver=False,
    )
    positions = tune.grid_search(list(range(number)))
    tuner = tune.Tuner(
        tune.with_resources(Trial, {"cpu": grid.threads, "gpu": gpus}),
        param_space={"grid": sys.argv[1], "folder": str(folder), "position": positions},
        tune_config=tune.TuneConfig(reuse_actors=True),
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
