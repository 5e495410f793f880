"""On a Ray cluster of three nodes: one is killed with its worker in mid-sweep, a second run finds no place, and the head is lost."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from .command import Cli, Running, start
from .conftest import TINY
from .tables import final_tables
from .test_disturbed import wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="each node has a loopback address of its own"),
]
HEAD = "127.0.0.2"


def _bare() -> dict[str, str]:
    """The environment without what other tests of this process have told Ray: it is read once, when Ray is imported."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}


@dataclass
class Node:
    """A node of a Ray cluster, by `ray start`."""

    command: list[str]
    log: Path
    variables: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, env=_bare() | self.variables, start_new_session=True
            )

    def wait(self) -> None:
        """Wait until it is part of the cluster; on a machine that is too busy Ray gives up, and is started again."""
        deadline = time.monotonic() + 150
        while "Ray runtime started" not in (said := self.log.read_text()):
            assert time.monotonic() < deadline, said
            if not self.processes():
                self.start()
            time.sleep(0.05)

    def processes(self) -> list[psutil.Process]:
        """Return the processes of it; none when it has ended."""
        if self.process is None or self.process.poll() is not None:
            return []
        with suppress(psutil.NoSuchProcess):
            own = psutil.Process(self.process.pid)
            return [own, *own.children(recursive=True)]
        return []

    def has_worker(self) -> bool:
        """Whether a worker of ours is there."""
        with suppress(psutil.NoSuchProcess):
            return any(process.name().startswith("ray::RayWorker") for process in self.processes())
        return False

    def kill(self) -> None:
        """Take it away with all that runs on it."""
        processes = self.processes()
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        if self.process is not None:
            self.process.wait()
        psutil.wait_procs(processes, timeout=10)


@dataclass
class Cluster:
    """A Ray cluster on this machine: a head without CPUs, as is usual, and two nodes with one each.

    Attributes:
        address: Its address.
        variables: What the environment of whoever joins it has.
        nodes: The nodes beside the head.
        head: The head.
    """

    address: str
    variables: dict[str, str]
    nodes: list[Node]
    head: Node


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster whose nodes are all there."""
    with socket.socket() as free:
        free.bind((HEAD, 0))
        port = free.getsockname()[1]
    variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # sockets need a short path

    def node(name: str, place: str, cpus: int, *more: str) -> Node:
        command = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", "--block", *more]
        command += [f"--node-ip-address={place}", f"--num-cpus={cpus}", f"--temp-dir={folder / name}"]
        command += ["--object-store-memory=80000000", "--include-log-monitor=false", "--disable-usage-stats"]
        return Node(command, folder / f"{name}.log", variables)

    address = f"{HEAD}:{port}"
    head = node("head", HEAD, 0, "--head", f"--port={port}", "--include-dashboard=false")
    others = [node(place, place, 1, f"--address={address}") for place in ("127.0.0.3", "127.0.0.4")]
    try:
        head.start()
        head.wait()
        for other in others:
            other.start()
        for other in others:
            other.wait()
        yield Cluster(address, variables, others, head)
    finally:
        for started in (*others, head):
            started.kill()
        shutil.rmtree(folder, ignore_errors=True)


def wait_for_workers(nodes: list[Node], running: Running) -> None:
    """Wait until every node has a worker of ours."""
    deadline = time.monotonic() + 90
    while not all(node.has_worker() for node in nodes):
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline, "no workers come"
        time.sleep(0.02)


def test_a_run_without_a_place_ends_and_one_that_loses_a_node_has_the_tables_of_an_undisturbed_run(
    cluster: Cluster, tmp_path: Path, undisturbed: Path, cli: Cli
) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    running = start(["run", "tiny.yaml"], tmp_path, RAY_ADDRESS=cluster.address, **cluster.variables)
    wait_for_workers(cluster.nodes, running)

    os.kill(running.pid, signal.SIGSTOP)  # it keeps its workers, and they keep the CPUs of both nodes
    more = ["--out", "second", "--ray-address", cluster.address, "--set", "run.resources.placement_seconds=3"]
    second = start(["run", "tiny.yaml", *more], tmp_path, **cluster.variables)
    _, errors = second.communicate(timeout=120)
    os.kill(running.pid, signal.SIGCONT)
    assert second.returncode == 2, errors
    assert re.search(r"nothing can go on: \S+ has not been there for 3 s, for no node has resources free", errors)
    assert json.loads(cli(tmp_path, "status", "--json", "--run", "second").stdout)["phase"] == "interrupted"

    wait_for(tmp_path / "runs" / "tiny", 5, running)
    cluster.nodes[0].kill()
    _, errors = running.communicate(timeout=120)
    assert running.returncode == 0, errors
    assert len(re.findall(r"model-worker-\d died and was replaced", errors)) == 1
    assert final_tables(tmp_path / "runs" / "tiny") == final_tables(undisturbed / "runs" / "tiny")


def test_a_run_whose_cluster_loses_its_head_ends_with_an_error_and_can_go_on(
    cluster: Cluster, tmp_path: Path, cli: Cli
) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    running = start(["run", "tiny.yaml"], tmp_path, RAY_ADDRESS=cluster.address, **cluster.variables)
    wait_for(tmp_path / "runs" / "tiny", 2, running)
    for process in cluster.head.processes():
        if process.name() == "gcs_server":  # its raylet stays, as if the command ran on another machine
            process.suspend()
            process.kill()
    begun = time.monotonic()
    _, errors = running.communicate(timeout=60)
    assert (running.returncode, time.monotonic() - begun < 45) == (2, True), errors
    assert "the head of the Ray cluster at" in errors
    assert json.loads(cli(tmp_path, "status", "--json", "--run", "runs/tiny").stdout)["phase"] == "interrupted"
