"""Hosts as forks of one process that has imported what they need: on a CPU, imports are most of a host's start.

multiprocessing's fork server imports once, while Ray starts; each host is a fork of it, and has its imports at once and its
memory in common with the others. The Ray actor in its seat holds the resources and passes bundles on. Where hosts have
GPUs, or may sit on other machines, actors are hosts themselves: what a process did before a fork can spoil CUDA in it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import secrets
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import AuthenticationError, forkserver, resource_tracker
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from types import ModuleType

from engine.domain.adapters import Kind
from engine.domain.results import Attempt
from engine.domain.sweep import Resources
from engine.run.executors.hosts import Host, Needed
from engine.run.executors.relay import END, Line
from engine.run.executors.worker import HostSettings
from engine.run.stages.runners import Bundle

_NEEDED = "DOSIMETER_NEEDED"

NICENESS = 15
"""As Ray's own workers have it: whoever sits at this machine comes first, and the desk is not starved."""

GRACE_SECONDS = 0.5
"""How long a process whose line has broken may take to be gone."""

SIGNALS = {one.value: one.name for one in signal.Signals}

_hidden = threading.Lock()


def can_fork() -> bool:
    """Tell whether hosts can be forked here: macOS allows it too, but its libraries do not survive it."""
    return sys.platform == "linux" and "forkserver" in multiprocessing.get_all_start_methods()


def forked(resources: Resources, needed: tuple[Needed, ...]) -> Forks | None:
    """Return a fork server that begins its imports now, where hosts can be forks: on this machine, without GPUs."""
    is_here = not os.environ.get("RAY_ADDRESS")
    return Forks(needed) if is_here and not resources.gpus_per_host and can_fork() else None


def told() -> tuple[Needed, ...]:
    """Return, in the fork server, what `Forks` was told."""
    return tuple((Kind(kind), name) for kind, name in json.loads(os.environ[_NEEDED]))  # type: ignore[misc] # as it was


class Forks:
    """The fork server, and the hosts forked from it.

    Args:
        needed: The adapters that the hosts will need; their imports begin now.
    """

    def __init__(self, needed: tuple[Needed, ...]) -> None:
        """Start the server; it imports on its own."""
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["engine.run.executors.preloaded"])
        self._needed = needed
        self._lines: dict[str, Line] = {}
        self._hosts: dict[str, multiprocessing.process.BaseProcess] = {}
        with _launching(needed):
            forkserver.ensure_running()

    def line(self, name: str) -> Line:
        """Return where the next host of this name will listen."""
        address = f"\0dosimeter-{secrets.token_hex(16)}"  # a name of Linux's own, without a file
        self._lines[name] = Line(address, secrets.token_bytes())
        return self._lines[name]

    def fork(self, name: str, settings: HostSettings) -> None:
        """Fork a host that listens there; waits until the imports are done."""
        arguments = (name, settings, self._needed, self._lines[name])
        process = self._context.Process(target=_serve, args=arguments, name=name)
        with _launching(self._needed), _no_main():
            process.start()
        self._hosts[name] = process

    def __contains__(self, name: object) -> bool:
        """Tell whether a host of this name is forked here."""
        return name in self._lines

    @staticmethod
    def packed(bundle: Bundle) -> bytes:
        """Return a bundle as it goes along a line."""
        return pickle.dumps(bundle)

    @staticmethod
    def unpacked(attempts: bytes) -> tuple[Attempt, ...]:
        """Return attempts that have come along a line."""
        found: tuple[Attempt, ...] = pickle.loads(attempts)  # noqa: S301 - a process of our own has made them
        return found

    def ending(self, name: str) -> str | None:
        """Return how a host has died; None while it lives, when it ended of itself, or when it is not there."""
        process = self._hosts.get(name)
        if process is None or not (code := process.exitcode):
            return None
        how = f"exit code {code}" if code > 0 else f"signal {SIGNALS.get(-code, -code)}"
        return f"its process ended with {how}"

    def stop(self, name: str) -> str | None:
        """Have a host end whose line nobody holds any more, and return how it had died, if it had."""
        if name not in self._hosts:
            return None
        process = self._hosts[name]
        process.join(GRACE_SECONDS)
        ending = self.ending(name)
        process.kill()
        process.join()
        process.close()
        del self._hosts[name]
        return ending

    def close(self) -> None:
        """Kill every host: what counts is written."""
        for process in self._hosts.values():
            process.kill()
        for name in list(self._hosts):
            self.stop(name)


@contextmanager
def _launching(needed: tuple[Needed, ...]) -> Iterator[None]:
    """Give the fork server, should it be launched now, its surroundings.

    It knows what to import, takes no module from the folder that somebody happens to be in, and neither it nor its forks hear
    interrupts: what they mean, the driver decides.
    """
    resource_tracker.ensure_running()  # as launching would: it unblocks interrupts
    told_so = {_NEEDED: json.dumps(needed), "PYTHONSAFEPATH": "1"}
    before = {name: os.environ.get(name) for name in told_so}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.environ.update(told_so)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _no_main() -> Iterator[None]:
    """Hide the program from multiprocessing, which would run it in every host unless it guards itself against that.

    It is hidden from this process's other threads, too, which have no use for it by name.
    """
    with _hidden:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


def _serve(name: str, settings: HostSettings, needed: tuple[Needed, ...], line: Line) -> None:
    """Run the bundles that come along a line, until nobody holds its other end."""
    # Semaphores of libraries are then known to nobody else, who would tell the user about those of a host that was killed.
    multiprocessing.set_start_method("fork", force=True)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.nice(NICENESS)
    Path("/proc/self/comm").write_text(name, encoding="ascii")  # what ps and top call it
    host = Host(name, settings)
    with suppress(Exception):  # the stages that need what cannot be imported meet the error themselves, and report it
        host.warm_up(needed)
    with Listener(line.address, authkey=line.key) as listener, _caller(listener) as caller:
        for bundle in _bundles(caller):
            for attempts in host.run(bundle):
                caller.send(attempts)
            caller.send_bytes(END)
    os._exit(0)  # everything is written, and taking torch apart takes time


def _caller(listener: Listener) -> Connection:
    """Return the first caller with the key; others are none of ours."""
    while True:
        with suppress(AuthenticationError, EOFError, ConnectionError):
            return listener.accept()


def _bundles(caller: Connection) -> Iterator[Bundle]:
    with suppress(EOFError, ConnectionError):
        while True:
            yield caller.recv()


def _end_with_parent() -> None:
    """End with the driver, however it ends: nothing else would tell this process."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
