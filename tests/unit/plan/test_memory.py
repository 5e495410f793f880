"""How many workers fit on a machine, and what fits on none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.domain.adapters import Use
from engine.domain.errors import PlanError
from engine.domain.stage import GenerateWork, Pinned, Stage, WorkerKind
from engine.domain.sweep import Decoding, Resources
from engine.plan import machine as machines
from engine.plan.memory import memory
from engine.ports import Fit, Machine

BASE = Pinned(Use("standin/aligned"), "sha256:1")
WORK = GenerateWork(BASE, Pinned(Use("standin/policy"), "sha256:2"), Use("local/transformers"), Decoding(), None, None)
STAGE = Stage("generate-1", "local/transformers", 1, WORK, (), "", WorkerKind.MODEL)
GB = 10**9


def planned(needed: int, resources: Resources | None = None, **more: Any) -> Any:
    here = Machine(**({"workers": 4, "memory": 5 * GB} | more))
    return memory(
        [STAGE], {"generate-1": Fit((("weights", needed),), remedies=("`a: b`",))}, here, resources or Resources()
    )


def test_as_many_workers_as_fit_are_started() -> None:
    assert planned(5 * GB).machine.workers == 4
    assert planned(6 * GB).machine == Machine(workers=3, memory=20 * GB // 3)
    assert planned(11 * GB).machine.workers == 1
    assert planned(11 * GB, memory=None).machine.workers == 4, "nothing is known of the machines of a cluster"


def test_a_gpu_is_a_workers_own_however_many_there_are() -> None:
    tried = planned(24 * GB, device="cuda", memory=20 * GB)
    assert (tried.machine.workers, tried.machine.memory, tried.refusal) == (4, 20 * GB, None)
    assert "20.0 GB on a worker's GPUs are free" in tried.notes[0]


def test_what_fits_nowhere_is_refused_with_what_would_help() -> None:
    with pytest.raises(
        PlanError, match=r"generate on `standin/aligned` takes 26\.0 GB \(weights 26\.0 GB\), and 20\.0 GB"
    ) as found:
        planned(26 * GB).refuse(is_alone=True)
    assert "any of these would make it fit: `a: b`" in found.value.todo
    crowded = planned(12 * GB, Resources(hosts=4))
    with pytest.raises(PlanError, match=r"takes 12\.0 GB, and 4 workers share 20\.0 GB") as found:
        crowded.refuse()
    assert (found.value.where, found.value.todo) == ("run.resources.hosts", "write 1, or leave it out")
    crowded.refuse(is_alone=True)
    with pytest.raises(PlanError, match=r"on a worker's GPUs are free") as found:
        planned(26 * GB, device="cuda", memory=20 * GB).refuse()
    assert "; `run.resources.gpus_per_host: 0` computes" in found.value.todo


@pytest.mark.parametrize(
    ("needed", "hosts", "more", "workers"),
    [
        (24, None, {}, 1),
        (6, 4, {}, 4),
        (24, None, {"device": "cuda", "memory": 20 * GB}, 4),
    ],
)
def test_what_a_forecast_that_is_off_may_refuse_is_tried_with_a_warning(
    needed: int, hosts: int | None, more: dict[str, Any], workers: int
) -> None:
    found = planned(needed * GB, Resources(hosts=hosts), **more)
    found.refuse()
    assert found.machine.workers == workers
    assert "memory may not suffice: generate on" in found.notes[0]
    assert not planned(5 * GB).notes


@pytest.mark.parametrize("version", [1, 2])
def test_the_limit_of_a_control_group_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    top = tmp_path / "memory" if version == 1 else tmp_path
    own = top / "pod" / "container"
    own.mkdir(parents=True)
    limit, used = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes") if version == 1 else ("memory.max", "memory.current")
    )
    for folder, most in ((own, "max" if version == 2 else str(2**62)), (own.parent, "3000")):
        (folder / limit).write_text(f"{most}\n")
        (folder / used).write_text("1500\n")
        (folder / "memory.stat").write_text("anon 1000\ninactive_file 400\nactive_file 100\n")
    groups = tmp_path / "cgroup"
    groups.write_text("5:cpu,memory:/pod/container\n" if version == 1 else "0::/pod/container\n")
    monkeypatch.setattr(machines, "CGROUP", tmp_path)
    monkeypatch.setattr(machines, "OWN_GROUPS", groups)
    assert machines.free_memory() == 3000 - (1500 - 500)
    monkeypatch.setattr(machines.os, "sched_getaffinity", lambda _: range(64), raising=False)
    assert machines.cpus() == 64
    processors = (tmp_path / "cpu" if version == 1 else tmp_path) / "pod"
    processors.mkdir(parents=True, exist_ok=True)
    quota = (
        {"cpu.cfs_quota_us": "250000", "cpu.cfs_period_us": "100000"} if version == 1 else {"cpu.max": "250000 100000"}
    )
    for name, text in quota.items():
        (processors / name).write_text(f"{text}\n")
    assert machines.cpus() == 2, "a container with the time of two and a half cores"
    machine_wide = tmp_path / "vmstat"
    machine_wide.write_text("pgfault 9\noom_kill 7\n")
    monkeypatch.setattr(machines, "VMSTAT", machine_wide)
    assert machines.oom_kills() == 7
    (own / ("memory.oom_control" if version == 1 else "memory.events")).write_text("under_oom 0\noom_kill 2\n")
    assert machines.oom_kills() == 2, "others on this machine have died of their own"
