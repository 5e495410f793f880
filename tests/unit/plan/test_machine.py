"""What a worker has on a machine, with and without GPUs."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.cli.main import Exit, run_cli
from engine.domain.sweep import Resources
from engine.plan import machine as module
from engine.plan.machine import machine
from engine.run.drive.prepare import prepare

TUNED = """\
sweep: far
recipe:
  model: standin/aligned
  data: {source: standin/explicit, n: 10}
  tune: {lr: 1.0e-4, epochs: 1}
  benchmark: standin/policy:1
  judges: [standin/rules]
"""


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


def test_of_a_cluster_no_memory_is_known_and_rows_are_left_to_its_workers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = tmp_path / "far.yaml"
    spec.write_text(TUNED)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    here = prepare(spec, (), tmp_path / "run").memory
    assert here.machine.memory is not None
    assert any(fit.rows for fit in here.fits.values())
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(module, "gpu_memory", lambda: (8,))
    far = prepare(spec, (), tmp_path / "run").memory
    assert (far.machine.device, far.machine.memory) == ("cuda", None), "our own GPU of 8 bytes refuses nothing"
    assert [fit.rows for fit in far.fits.values()] == [0] * len(here.fits)


LISTED = "0, GPU-aa1, 100\n1, GPU-ab2, 200\n2, GPU-b3, [N/A]\n"


@pytest.mark.parametrize(
    ("visible", "mebibytes"),
    [
        (None, (100, 200, None)),
        ("1, 0", (200, 100)),
        ("GPU-ab", (200,)),
        ("0,GPU-a,1", (100,)),  # two are called so
        ("2", (None,)),
        ("MIG-1", (None,)),
        ("-1", ()),
        ("0,-1,1", (100,)),
        ("", ()),
        ("7", ()),
    ],
)
def test_gpus_are_those_that_cuda_shows(visible: str | None, mebibytes: tuple[int | None, ...]) -> None:
    free = tuple(None if size is None else size * 2**20 for size in mebibytes)
    assert module.visible_gpus(LISTED, visible) == free


def test_the_driver_is_asked_unless_torch_is_built_for_cpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command = tmp_path / "nvidia-smi"
    command.write_text("#!/bin/sh\necho '0, GPU-a, [N/A]'\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(module, "GPU_FOLDER", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for built, seen in (("2.9.0+cpu", ()), ("2.9.0+cu128", (None,))):
        monkeypatch.setattr(module, "version", lambda _, built=built: built)
        assert module.gpu_memory.__wrapped__() == seen
    monkeypatch.setattr(module, "gpu_memory", lambda: (None, 80))
    assert machine(Resources()).memory is None


def test_what_does_not_fit_is_planned_and_refused_at_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tmp_path / "far.yaml"
    spec.write_text(TUNED)
    monkeypatch.setattr(module, "cpus", lambda: 2)
    monkeypatch.setattr(module, "free_memory", lambda: 10**8)
    assert run_cli(["plan", str(spec), "--out", str(tmp_path / "run")]) == Exit.USAGE
    said = capsys.readouterr()
    assert "Pinned" in said.out
    assert "and 0.1 GB of this machine's memory are free" in " ".join(said.err.split())
    monkeypatch.setattr(module, "free_memory", lambda: 12 * 10**8)
    found = prepare(spec, (), tmp_path / "run").memory
    assert (found.machine.workers, found.machine.memory) == (1, 12 * 10**8)
    assert not found.notes
