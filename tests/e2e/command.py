"""The real command line, in processes of its own.

A command that needs no Ray is forked from a process that has imported the libraries already (the standard library's fork
server): importing them takes longer than most of these runs.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

DOSIMETER = [sys.executable, "-c", "from engine.cli.main import main; main()"]
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["trl.trainer.sft_trainer", "adapters.local.answers", "openai", "engine.cli.run_verb"])


class Running(Protocol):
    """A command under way; `subprocess.Popen` is one."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    def poll(self) -> int | None: ...
    def communicate(self, *, timeout: float | None = None) -> tuple[str, str]: ...


Cli = Callable[..., subprocess.CompletedProcess[str]]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {"NO_COLOR": "1"}


def start(arguments: Sequence[str], folder: Path, **variables: str) -> Running:
    """Start the command line in the background, in a session of its own."""
    variables = environment() | variables
    is_local = arguments[0] not in {"run", "rehearse"} or "inline" in arguments
    if is_local and "PYTHONPATH" not in variables:
        return Forked(arguments, folder, variables)
    return subprocess.Popen(
        [*DOSIMETER, *arguments],
        cwd=folder,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@dataclass
class Forked:
    """A command that was forked; like `subprocess.Popen`."""

    arguments: Sequence[str]
    folder: Path
    variables: Mapping[str, str]
    _place: Path = field(init=False)
    _said: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        self._place = Path(tempfile.mkdtemp())
        self._process = FORKED.Process(target=_main, args=(self.arguments, self.folder, self.variables, self._place))
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    poll = returncode.fget

    def communicate(self, *, timeout: float | None = None) -> tuple[str, str]:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(list(self.arguments), timeout or 0.0)
        if self._said is None:
            out, errors = ((self._place / name).read_text(encoding="utf-8") for name in ("out", "errors"))
            self._said = out, errors
            shutil.rmtree(self._place)
        return self._said


def _main(arguments: Sequence[str], folder: Path, variables: Mapping[str, str], said: Path) -> None:
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    for descriptor, name in ((0, os.devnull), (1, said / "out"), (2, said / "errors")):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT, 0o600), descriptor)
    from engine.cli.main import main

    sys.argv = ["dosimeter", *arguments]
    try:
        main()
    except KeyboardInterrupt:  # a second one, when the command had ended
        sys.exit(130)
