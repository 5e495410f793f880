"""The processes that a benchmark starts: none outlives it, however it ends, and what memory they take together is measured.

Ctrl-C, SIGTERM and the closing of the terminal end a benchmark; so does an exception. Each time everything below its process
is asked to end, killed where it does not, and the folder that all of them worked in is removed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Self

import psutil

BENCHMARKS = Path(__file__).parent
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE_S = 5.0
"""How long a process has to end by itself before it is killed."""

SAMPLE_S = 0.5
LOOKING = 1 / 30
"""Most of the time that may go into looking at memory: the system counts the pages of a process one by one, and holds it up."""

PROGRESS_S = 60.0
LINES_OF_ERROR = 15
LOG = ".log"


@contextmanager
def workplace(kept: Path | None = None) -> Iterator[Path]:
    """Yield a new folder, and end all that this process has begun when the block ends, however it ends.

    Args:
        kept: The folder to use instead, which stays; it is made. Temporary files, Ray's too, are in the one that goes. Its path is
            short, because those of Ray's sockets have to be.
    """
    if kept is not None:
        kept.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="ds-", ignore_cleanup_errors=True) as folder, contained():
        os.environ |= {"TMPDIR": folder, "RAY_TMPDIR": folder}
        yield (kept or Path(folder)).resolve()


@contextmanager
def contained() -> Iterator[None]:
    """End all processes below this one when the block ends, also by a signal that would end this one.

    Raises:
        SystemExit: With 128 and the signal's number, as shells report it.
    """

    def stop(number: int, _frame: FrameType | None) -> None:
        end_all(0.0 if _Ending.begun else PATIENCE_S)
        raise SystemExit(128 + number)

    _Ending.begun = False
    before = {number: signal.signal(number, stop) for number in ENDINGS}
    try:
        yield
    finally:
        end_all(PATIENCE_S)
        for number, handler in before.items():
            signal.signal(number, handler)


class _Ending:
    """Whether this benchmark is ending: threads start nothing more then."""

    begun = False


def end_all(patience: float) -> None:
    """End every process below this one: they are asked first, and those that stay for so many seconds are killed."""
    _Ending.begun = True
    own = psutil.Process()
    below = set(own.children(recursive=True))
    for child in own.children():
        with suppress(psutil.NoSuchProcess):
            child.terminate()
    psutil.wait_procs(below, timeout=patience)
    for left in below | set(own.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            left.kill()
    psutil.wait_procs(below, timeout=PATIENCE_S)


def environment(modules: Path = BENCHMARKS, **more: str) -> dict[str, str]:
    """Return the environment of a benchmark's commands: modules in one more folder, and a Ray of their own on this machine."""
    kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return kept | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(modules), kept.get("PYTHONPATH")])),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "NO_COLOR": "1",
        **more,
    }


def timed(command: Sequence[str], folder: Path, variables: Mapping[str, str]) -> float:
    """Run a command to its end in a folder and return its wall seconds; what it says is shown when it fails.

    Raises:
        SystemExit: When it fails, or when this benchmark is ending.
    """
    if _Ending.begun:
        raise SystemExit("ending")
    begun = time.monotonic()
    with tempfile.NamedTemporaryFile("w+", dir=folder, suffix=LOG) as said:
        code = subprocess.run(command, cwd=folder, env=variables, stdout=said, stderr=said, check=False).returncode
        if code and not _Ending.begun:
            said.seek(0)
            last = "\n".join(said.read().splitlines()[-LINES_OF_ERROR:])
            raise SystemExit(f"{' '.join(command)} ended with {code}:\n{last}")
    return time.monotonic() - begun


def last_line(folder: Path) -> str:
    """Return the last line that a command which runs in this folder has said; empty when there is none."""
    lines = [line for path in folder.glob(f"*{LOG}") for line in path.read_text().splitlines() if line.strip()]
    return lines[-1] if lines else ""


@dataclass
class Watch:
    """Looks at the processes below this one until the block ends, and says now and then how far they are.

    Attributes:
        progress: What to print each minute, from the seconds that have passed.
        peak_gb: The most memory that they had at a time, in GB (10^9 bytes); pages that several share count once.
    """

    progress: Callable[[float], str]
    peak_gb: float = 0.0
    _done: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        begun = said = time.monotonic()
        pause = SAMPLE_S
        while not self._done.wait(pause):
            looked = time.monotonic()
            self.peak_gb = max(self.peak_gb, sum(map(_memory, psutil.Process().children(recursive=True))) / 1e9)
            pause = max(SAMPLE_S, (time.monotonic() - looked) / LOOKING)
            if time.monotonic() - said > PROGRESS_S:
                said = time.monotonic()
                print(f"  after {said - begun:.0f} s: {self.progress(said - begun)}", flush=True)


def _memory(process: psutil.Process) -> int:
    """Return the bytes that a process has, its part of shared pages included where the system tells it; 0 once it is gone."""
    try:
        found = process.memory_full_info()
    except psutil.Error:
        return 0
    return int(getattr(found, "pss", found.uss))
