"""What a worker has on a machine, with and without GPUs."""

from __future__ import annotations

import pytest

from engine.domain.sweep import Resources
from engine.plan import machine as module
from engine.plan.machine import machine


@pytest.mark.parametrize(
    ("gpus", "wanted", "devices", "device", "workers"),
    [
        ((), None, 0.0, "cpu", 8),
        ((), 0.0, 0.0, "cpu", 8),
        ((80, 80), None, 1.0, "cuda", 2),
        ((80, 80), 0.0, 0.0, "cpu", 8),
        ((80, 80), 2.0, 2.0, "cuda", 1),
        ((80, 80), 0.5, 0.5, "cuda", 4),
    ],
)
def test_a_worker_gets_a_gpu_where_there_are_any_unless_it_is_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
    gpus: tuple[int, ...],
    wanted: float | None,
    devices: float,
    device: str,
    workers: int,
) -> None:
    monkeypatch.setattr(module, "gpu_memory", lambda: gpus)
    monkeypatch.setattr(module, "cpus", lambda: 8)
    found = machine(Resources(gpus_per_host=wanted))
    assert (found.devices, found.device, found.workers) == (devices, device, workers)
