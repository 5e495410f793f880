"""Starts a Ray of our own or joins a cluster, and says why where neither can be.

Ray's own words for that are exceptions of many kinds, an exit of the process, or silence for minutes.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from engine.domain.errors import RunError, RunLostError

# Ray reads these once, when it is imported.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
if os.environ.get("RAY_ADDRESS", "").strip() in {"", "local"}:
    # Without this, Ray takes the machine's outward address even when told the loopback one, and listens on all.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"

import ray

LOCAL, ANY = "local", "auto"
LOOPBACK = "127.0.0.1"
KNOCK_SECONDS = 3.0
KNOCK_AGAIN_SECONDS = 5.0
GONE_SECONDS = 15.0
"""A cluster whose head has not answered for so long is gone: Ray itself would wait for a minute, and then end this process."""

LEAVE_SECONDS = 5.0
"""What leaving a cluster that is gone may take."""

JOIN_SECONDS = 12.0
"""What joining may take, the knock aside. A cluster that is there takes one second; Ray itself would wait for minutes."""

OBJECT_STORE_BYTES = 128 * 1024 * 1024
"""References and counts are all that crosses Ray, so its smallest comfortable object store is enough."""

FOLDER_BYTES = 43
"""Longest path of Ray's folder: its sockets lie 64 bytes deeper, and the system takes 107 (`sun_path` of unix(7))."""

WHERE = "RAY_ADDRESS or --ray-address"
WITHOUT = "leave RAY_ADDRESS and --ray-address out to use this machine alone"


class Cluster:
    """A Ray that was started here, or a cluster that was joined. On closing, what was started stops and leaves nothing.

    Attributes:
        is_local: Whether it was started here.
        node: The id of the node on which this process runs.
        is_gone: Whether its head was found to answer no more.

    Raises:
        RunError: Ray cannot be started, or there is no such cluster.
    """

    def __init__(self) -> None:
        """Join the cluster that RAY_ADDRESS names, or start Ray here."""
        self._folder: Path | None = None
        address = os.environ.get("RAY_ADDRESS", "").strip()
        self.is_local = address in {"", LOCAL}
        if self.is_local:
            self._folder = make_folder()
            _start(self._folder)
        else:
            _join(address)
        self.node: str = ray.get_runtime_context().get_node_id()
        self.is_gone = False
        self._head: str = ray.get_runtime_context().gcs_address
        self._heard = self._knocked = time.monotonic()

    def check(self) -> None:
        """Look now and then whether the head still answers.

        Raises:
            RunLostError: It does not, for some time.
        """
        now = time.monotonic()
        if now - self._knocked < KNOCK_AGAIN_SECONDS:
            return
        self._knocked = now
        host, _, port = self._head.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()
        except OSError as error:
            if now - self._heard >= GONE_SECONDS:
                self.is_gone = True
                what = f"the head of the Ray cluster at {self._head} has not answered for {GONE_SECONDS:g} s ({_words(error)})"
                raise RunLostError(what, todo="start the cluster again; the same command goes on") from error
        else:
            self._heard = time.monotonic()

    def close(self) -> None:
        """Leave Ray; one that was started here stops."""
        leaving = threading.Thread(target=ray.shutdown, name="leaving", daemon=True)
        leaving.start()
        leaving.join(LEAVE_SECONDS if self.is_gone else None)
        if self._folder is not None and not os.environ.get("RAY_TMPDIR"):  # who names a folder wants the logs
            shutil.rmtree(self._folder, ignore_errors=True)


def make_folder() -> Path:
    """Make a folder for a Ray of our own, with a path that its sockets can have."""
    with suppress(OSError):  # where there is none at all
        for parent in (os.environ.get("RAY_TMPDIR") or tempfile.gettempdir(), "/tmp"):  # noqa: S108 - a new folder in it
            with suppress(OSError):
                made = Path(tempfile.mkdtemp(prefix="dosimeter-", dir=parent))
                if len(os.fsencode(made)) <= FOLDER_BYTES:
                    return made
                made.rmdir()
    raise RunError(
        f"Ray needs a folder for its sockets that can be written and has a path of at most {FOLDER_BYTES - 19} bytes",
        where="RAY_TMPDIR, TMPDIR, /tmp",
        todo="set RAY_TMPDIR to such a folder, or run with --executor inline",
    )


def _start(folder: Path) -> None:
    if not any(name.startswith("RAY_AUTH_") for name in os.environ):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # or Ray would keep one in the home folder
    try:
        # `local`, or Ray would join whatever cluster somebody once started on this machine.
        ray.init(
            address=LOCAL,
            # Both are experimental, says Ray. Without the first the local Ray listens to the network; without the second it
            # leaves its logs behind.
            _node_ip_address=LOOPBACK,
            _temp_dir=str(folder),
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
    except (Exception, SystemExit) as error:
        todo = "its logs are there; try again, or run with --executor inline"
        raise RunError(f"Ray did not start: {_words(error)}", where=str(folder), todo=todo) from error


def _join(address: str) -> None:
    if "://" in address:
        todo = f"run on a machine of the cluster, with `{ANY}` or the HOST:PORT of its head node, or {WITHOUT}"
        raise RunError(
            f"`{address}` is an address of Ray Client, which has no place for workers", where=WHERE, todo=todo
        )
    if address != ANY:
        _knock(address)
    joining = _Joining(address)
    joining.start()
    joining.join(JOIN_SECONDS)
    if joining.is_alive():
        joining.is_late.set()
        raise _gone(
            f"something is at `{address}`, and no Ray cluster answers there within {JOIN_SECONDS:g} s: try again"
        )
    if (error := joining.error) is not None:
        is_none = address == ANY and isinstance(error, ConnectionError)
        what = "no Ray cluster was started on this machine" if is_none else f"cannot join `{address}`: {_words(error)}"
        raise _gone(what) from error


class _Joining(threading.Thread):
    """Joins a cluster, in which Ray may wait for minutes; when it is late, it leaves again.

    Attributes:
        is_late: Set when nobody waits any more.
        error: Why the cluster cannot be joined; None where it can.
    """

    def __init__(self, address: str) -> None:
        super().__init__(name="joining", daemon=True)
        self.is_late = threading.Event()
        self.error: BaseException | None = None
        self._address = address

    def run(self) -> None:
        """Join it."""
        try:
            ray.init(address=self._address, log_to_driver=False, logging_level="ERROR")
        except BaseException as error:  # noqa: BLE001 - told by whoever waits
            self.error = error
        else:
            if self.is_late.is_set():
                ray.shutdown()


def _knock(address: str) -> None:
    """Look whether anything listens at an address, because Ray takes minutes to say that nothing does."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise RunError(f"`{address}` is no address of a Ray cluster", where=WHERE, todo=f"give HOST:PORT or `{ANY}`")
    try:
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _gone(f"no Ray cluster is at `{address}`: {_words(error)}") from error


def _gone(what: str) -> RunError:
    todo = (
        f"look with `ray status` on its head node, run this on one of its machines (with RAY_AUTH_MODE and its token, where"
        f" it wants one), or {WITHOUT}"
    )
    return RunError(what, where=WHERE, todo=todo)


def _words(error: BaseException) -> str:
    """Return what an error says, on one line."""
    if isinstance(error, SystemExit):
        return "it gave up"
    text = str(error.strerror) if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__
