"""The user's folder for what is worth keeping between sweeps."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder, made if need be: in `XDG_CACHE_HOME` or `~/.cache`, or beside the temporary files where there is neither.

    Raises:
        OSError: None can be written to, or the one beside the temporary files is somebody else's.
    """
    with suppress(OSError, RuntimeError):  # RuntimeError: the user has no home
        home = os.environ.get("XDG_CACHE_HOME")
        folder = (Path(home) if home else Path.home() / ".cache") / "dosimeter"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    folder = Path(tempfile.gettempdir()) / f"dosimeter-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user: set XDG_CACHE_HOME to a folder of your own")
    return folder
