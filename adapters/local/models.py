"""Base models on this machine: a folder, or a snapshot of a hub repository that lies in the local cache."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from adapters import lengths, model_folder
from engine.domain.conversation import ChatRow, Prompt
from engine.domain.stage import ModelRef
from engine.ports import OUTSIDE, ModelCard, Settings

COMMIT = re.compile(r"[0-9a-f]{40}")


class FolderSettings(Settings):
    """Which folder."""

    argument = "path"

    path: Annotated[str, OUTSIDE] = Field(min_length=1, description="The folder.")


class FolderModel:
    """`dir:PATH`: a folder with config.json, a tokenizer and safetensors weights; pinned by the bytes of its files."""

    revision = 1
    Settings = FolderSettings

    def card(self, settings: FolderSettings) -> ModelCard:
        """Describe and pin the model, without loading it.

        Raises:
            FileNotFoundError: When the folder is not there or is not a model folder.
            ValueError: When an adapter lies in it.
        """
        folder = _folder(settings)
        detail = f"{model_folder.megabytes(folder):.1f} MB of weights in {settings.path}"
        return ModelCard(model_folder.pin(folder), model_folder.parameters(folder), detail)

    def locate(self, settings: FolderSettings) -> ModelRef:
        """Say where the model is."""
        return ModelRef(str(_folder(settings).resolve()))

    def row_lengths(self, settings: FolderSettings, rows: Sequence[ChatRow]) -> list[int]:
        """Count by the model's own tokenizer and template."""
        return lengths.row_lengths(_folder(settings), rows)

    def prompt_lengths(self, settings: FolderSettings, prompts: Sequence[Prompt], system: str | None) -> list[int]:
        """Count by the model's own tokenizer and template."""
        return lengths.prompt_lengths(_folder(settings), prompts, system)


def _folder(settings: FolderSettings) -> Path:
    folder = Path(settings.path).expanduser()
    model_folder.check(folder)
    return folder


class HubSettings(Settings):
    """Which repository, at which commit."""

    argument = "id"

    id: str = Field(min_length=1, description="The repository, such as `meta-llama/Llama-3.2-1B-Instruct`.")
    commit: str = Field(description="The full commit, 40 hexadecimal digits.")

    @field_validator("commit")
    @classmethod
    def _is_whole(cls, commit: str) -> str:
        if not COMMIT.fullmatch(commit):
            raise ValueError(
                f"`{commit}` is no full commit: write its 40 hexadecimal digits, for a branch or a tag may move"
            )
        return commit

    @classmethod
    def of_argument(cls, argument: str) -> dict[str, object]:
        """Read `ID@COMMIT`."""
        identity, at, commit = argument.partition("@")
        if not at:
            raise ValueError(f"`hub:{argument}` is not pinned: write `hub:ID@COMMIT` with the full 40-digit commit")
        return {"id": identity, "commit": commit}

    def as_argument(self) -> str:
        """Return `ID@COMMIT`."""
        return f"{self.id}@{self.commit}"


class HubModel:
    """`hub:ID@COMMIT`: a hub repository at a full commit, already downloaded to the local cache.

    Planning never downloads: a model of many gigabytes is fetched on purpose (`hf download ID --revision COMMIT`).
    """

    revision = 1
    Settings = HubSettings

    def card(self, settings: HubSettings) -> ModelCard:
        """Describe the model; its commit is its pin.

        Raises:
            FileNotFoundError: When it is not downloaded, or not a model.
            ValueError: When an adapter lies in it.
        """
        folder = _snapshot(settings)
        detail = f"{model_folder.megabytes(folder):.1f} MB of weights, {settings.id} at {settings.commit[:12]}"
        return ModelCard(f"rev:{settings.commit}", model_folder.parameters(folder), detail)

    def locate(self, settings: HubSettings) -> ModelRef:
        """Say where the model is."""
        return ModelRef(str(_snapshot(settings)))

    def row_lengths(self, settings: HubSettings, rows: Sequence[ChatRow]) -> list[int]:
        """Count by the model's own tokenizer and template."""
        return lengths.row_lengths(_snapshot(settings), rows)

    def prompt_lengths(self, settings: HubSettings, prompts: Sequence[Prompt], system: str | None) -> list[int]:
        """Count by the model's own tokenizer and template."""
        return lengths.prompt_lengths(_snapshot(settings), prompts, system)


def _snapshot(settings: HubSettings) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    name, commit = settings.id, settings.commit
    try:
        folder = Path(snapshot_download(name, revision=commit, local_files_only=True))
    except LocalEntryNotFoundError as error:
        raise FileNotFoundError(
            f"{name} at {commit} is not downloaded: run `hf download {name} --revision {commit}`"
        ) from error
    model_folder.check(folder)
    return folder
