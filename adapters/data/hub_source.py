"""`hub:ID@COMMIT`: training examples of a hub's data set at a full commit, already downloaded to the local cache.

Planning never downloads: `hf download ID --repo-type dataset --revision COMMIT`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, field_validator

from adapters import user_file
from adapters.at_commit import AtCommit
from adapters.data.file_source import RowsSettings, described, taken
from adapters.records import SUFFIXES
from engine.domain.conversation import ChatRow
from engine.ports import SourceCard


class HubDataSettings(RowsSettings, AtCommit):
    """Which data set, at which commit, and which of its files."""

    files: str = Field(
        default="",
        description="Which files, such as `data/train-*.parquet`; without it the only one, or those with `train` in their names.",
    )

    @field_validator("files")
    @classmethod
    def _stays_inside(cls, files: str) -> str:
        if files.startswith(("/", "~")) or ".." in Path(files).parts:
            raise ValueError("name files within the data set")
        return files


class HubSource:
    """A data set of a hub."""

    revision = 1
    Settings = HubDataSettings

    def card(self, settings: HubDataSettings) -> SourceCard:
        """Describe and pin the data set.

        Raises:
            OSError: It is not downloaded, or cannot be read.
            ValueError: A record is no training example; the message names the places.
        """
        files = _files(settings)
        pin = user_file.pin_all([user_file.pin(path) for path in files])
        return described(settings, taken(settings, *files), pin, f"{settings.id} at {settings.commit[:12]}")

    def rows(self, settings: HubDataSettings) -> Sequence[ChatRow]:
        """Return every row, in the order of the files."""
        return taken(settings, *_files(settings)).rows


def _files(settings: HubDataSettings) -> tuple[Path, ...]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    name, commit = settings.id, settings.commit
    try:
        folder = Path(snapshot_download(name, repo_type="dataset", revision=commit, local_files_only=True))
    except LocalEntryNotFoundError as error:
        raise FileNotFoundError(
            f"{name} at {commit} is not downloaded: run `hf download {name} --repo-type dataset --revision {commit}`"
        ) from error
    there = sorted(path for path in folder.rglob("*") if path.is_file() and _is_data(path))
    if settings.files:
        chosen = sorted(path for path in folder.glob(settings.files) if path.is_file())
    else:
        chosen = there if len(there) == 1 else [path for path in there if "train" in path.name]
    if not chosen:
        names = ", ".join(str(path.relative_to(folder)) for path in there) or "none"
        raise ValueError(f"{name} has no file that is meant: say which with `files` (there are {names})")
    return tuple(chosen)


def _is_data(path: Path) -> bool:
    return path.name != "README.md" and bool(SUFFIXES.intersection(path.suffixes))
