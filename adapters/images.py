"""Images of training rows: looked for inside of one folder, looked at before they are read, and read as they were pinned.

An image is a JPEG, PNG, WebP, GIF or BMP file of at most 64 MiB, with no more pixels than Pillow takes without a warning. Pillow
can read other formats too, and some of these start programs: they are never tried. Pillow is the extra `images`; nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

from adapters.user_file import opened, shown
from engine.domain.conversation import ChatRow, Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
LARGEST = 2**26
"""A larger file is refused, in bytes."""

LONGEST = 200
"""An image whose longer side is more than so many times the shorter is refused: made as wide as models want it, it would fill the memory."""


def located(root: Path, name: str) -> Image:
    """Return the image of a name, pinned.

    Args:
        root: The folder where images lie: absolute, and without links.
        name: Its path from there.

    Raises:
        ValueError: It leads out of the folder, is not there, or is no image that is read.
    """
    try:
        if Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
            raise ValueError(f"the image {shown(name)} is no path inside of {root}")
        found = (root / name).resolve(strict=True)
        if not found.is_relative_to(root):
            raise ValueError(f"the image {shown(name)} leads out of {root} by a link")
        return Image(str(found), _sha256(found))
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead to each other
        raise ValueError(f"the image {shown(name)} cannot be read: {error}") from error


def is_same(image: Image) -> bool:
    """Tell whether an image is there as it was pinned."""
    try:
        return _sha256(Path(image.path)) == image.sha256
    except (OSError, ValueError):
        return False


def _sha256(path: Path) -> str:
    """Return the SHA-256 of an image, in hex; a file of the same size and time is not read again."""
    found = path.stat()
    return _looked_at(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=2**18)
def _looked_at(path: Path, size: int, changed: int) -> str:
    del size, changed  # only make a changed file a new question
    data = _bytes(path)
    _open(data, path)
    return hashlib.sha256(data).hexdigest()


def read(image: Image) -> Any:
    """Return an image in RGB, decoded: a `PIL.Image.Image`.

    Raises:
        OSError: It is not there.
        ValueError: It is not what was pinned, or cannot be decoded.
    """
    data = _bytes(Path(image.path))
    if hashlib.sha256(data).hexdigest() != image.sha256:
        raise ValueError(f"{image.path} has changed since it was planned; plan again")
    try:
        return _open(data, Path(image.path)).convert("RGB")
    except Exception as error:  # decoders raise whatever they meet
        raise ValueError(f"{image.path} cannot be decoded: {error}") from error


def faults(rows: Iterable[ChatRow]) -> Iterator[str]:
    """Yield why images of rows cannot be decoded, each with its row's id."""
    for row in rows:
        for image in (image for turn in row.turns for image in turn.images):
            try:
                read(image)
            except (OSError, ValueError) as error:
                yield f"row {row.row_id}: the image {error}"


def _bytes(path: Path) -> bytes:
    with opened(path) as stream:
        data = stream.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError(f"{path} has more than {LARGEST // 2**20} MiB")
    return data


def _open(data: bytes, path: Path) -> Any:
    """Return an image of which the head alone is read."""
    if find_spec("PIL") is None:
        raise ValueError("images need Pillow, which is not installed: `pip install 'dosimeter[images]'`")
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Pillow.DecompressionBombWarning)
            found = Pillow.open(BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is no image in {', '.join(FORMATS)}") from error
    except (Pillow.DecompressionBombWarning, Pillow.DecompressionBombError) as error:
        raise ValueError(f"{path} has more pixels than are read: {error}") from error
    if max(found.size) > LONGEST * min(found.size):
        raise ValueError(f"{path} is more than {LONGEST} times as long as it is wide")
    return found
