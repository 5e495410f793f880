"""Models in one GGUF file: read once into an ordinary folder of float32 weights, in a child process, and from there as any other."""

from __future__ import annotations

import hashlib
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, ClassVar

from filelock import FileLock
from pydantic import Field

from adapters import lengths, model_notes
from adapters.local.models import TemplateSettings, described
from adapters.model_folder import CONFIG
from engine.domain.conversation import ChatRow, Prompt
from engine.domain.stage import ModelRef
from engine.ports import OUTSIDE, Claim, ModelCard
from engine.ports.cache import cache_folder

SUFFIX = ".gguf"
LAYOUT = 1
"""Version of what is written: part of the cached folder's name."""


PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
"""What the names of parts end with."""


class GgufSettings(TemplateSettings):
    """Which file."""

    argument: ClassVar[str] = "path"

    path: Annotated[str, OUTSIDE] = Field(min_length=1, description="The GGUF file, or a folder with one.")


class GgufModel:
    """`gguf:PATH`: a GGUF file with its tokenizer and chat template; pinned by the file's bytes."""

    revision = 1
    Settings = GgufSettings

    def card(self, settings: GgufSettings) -> ModelCard:
        """Describe and pin the model; the first time, it is read, which takes a while.

        Raises:
            OSError: The file is not there, or the cache cannot be written.
            ValueError: It cannot be read.
        """
        path = _file(settings)
        found = described(_folder(path), f"sha256:{_digest(path)}", "after reading", template=settings.template)
        return ModelCard(found.pin, found.parameters, f"{path.stat().st_size / 1e6:.1f} MB in {path}, {found.detail}")

    def claim(self, path: str) -> Claim | None:
        """Claim a file by its suffix, and a folder that has one and no model of another kind."""
        place = Path(path).expanduser()
        is_folder = place.is_dir() and any(place.glob(f"*{SUFFIX}")) and not (place / CONFIG).is_file()
        return Claim({"path": path}) if is_folder or (place.is_file() and place.suffix == SUFFIX) else None

    def notes(self, settings: GgufSettings) -> Sequence[str]:
        """Say what its configuration and its chat template tell."""
        return model_notes.notes(_folder(_file(settings)), settings.template)

    def locate(self, settings: GgufSettings) -> ModelRef:
        """Say where the ordinary folder is."""
        return ModelRef(str(_folder(_file(settings))), template=settings.template)

    def row_lengths(self, settings: GgufSettings, rows: Sequence[ChatRow]) -> Sequence[int]:
        """Count by the model's own tokenizer and template."""
        return lengths.row_lengths(_folder(_file(settings)), rows, settings.template)

    def prompt_lengths(self, settings: GgufSettings, prompts: Sequence[Prompt], system: str | None) -> Sequence[int]:
        """Count by the model's own tokenizer and template."""
        return lengths.prompt_lengths(_folder(_file(settings)), prompts, system, settings.template)


def _file(settings: GgufSettings) -> Path:
    """Return the file.

    Raises:
        FileNotFoundError: It is not there.
        ValueError: A folder has several, or it is the part of a model.
    """
    path = Path(settings.path).expanduser()
    if path.is_dir():
        found = sorted(path.glob(f"*{SUFFIX}"))
        if len(found) > 1 and not PART.search(found[0].name):
            raise ValueError(f"{path} has {len(found)} {SUFFIX} files: name one")
        path = found[0] if found else path / f"*{SUFFIX}"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there")
    if PART.search(path.name):
        raise ValueError(f"{path} is a part of a model: merge the parts (`llama-gguf-split --merge FIRST NEW`)")
    with path.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise ValueError(f"{path} is no GGUF file")
    return path.resolve()


def _digest(path: Path) -> str:
    found = path.stat()
    return _hashed(path, found.st_size, found.st_mtime_ns)


@cache
def _hashed(path: Path, size: int, changed_ns: int) -> str:
    del size, changed_ns  # only make a changed file a new question
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _folder(path: Path) -> Path:
    """Return the folder with what a file says, reading it unless somebody has.

    Raises:
        OSError: The cache cannot be written.
        ValueError: The file cannot be read.
    """
    root = cache_folder() / "gguf"
    folder = root / f"{_digest(path)}-{LAYOUT}"
    if folder.is_dir():
        return folder
    if find_spec("gguf") is None:
        raise ValueError("GGUF files need a package that is not here: pip install 'dosimeter[gguf]'")
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):  # one process reads, others wait for it
        if not folder.is_dir():
            sys.stderr.write(f"Reading {path} once, into {folder}\n")
            unfinished = folder.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
            unfinished.mkdir()
            _read(path, unfinished)
            unfinished.rename(folder)
    return folder


def _read(path: Path, folder: Path) -> None:
    """Have a child process read a file: planning never starts torch.

    Raises:
        ValueError: With the last line of what the child said, or that it was killed.
    """
    # -P: no module of the folder that it is started in
    command = [sys.executable, "-P", "-m", "adapters.local.gguf_reading", str(path), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own module
    if done.returncode:
        shutil.rmtree(folder)
        words = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        if done.returncode == -signal.SIGKILL:
            words = (
                "the process that read it was killed, most likely for want of memory: its weights are held as float32"
            )
        raise ValueError(f"{path} cannot be read: {words}")
