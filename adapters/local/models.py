"""Base models on this machine: a folder, or a snapshot of a hub repository that lies in the local cache."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from adapters import model_folder
from engine.domain.stage import ModelRef
from engine.ports import ModelCard

COMMIT = re.compile(r"[0-9a-f]{40}")


class FolderModel:
    """`dir:PATH`: a folder with config.json, a tokenizer and safetensors weights; pinned by the bytes of its files."""

    revision = 1

    def card(self, argument: str) -> ModelCard:
        """Describe and pin the model, without loading it.

        Raises:
            FileNotFoundError: When the folder is not there or is not a model folder.
        """
        folder = self._folder(argument)
        detail = f"{model_folder.megabytes(folder):.1f} MB of weights in {argument}"
        return ModelCard(model_folder.pin(folder), model_folder.parameters(folder), detail)

    def locate(self, argument: str) -> ModelRef:
        """Say where the model is."""
        return ModelRef(str(self._folder(argument).resolve()))

    def count_tokens(self, argument: str, texts: Sequence[str]) -> int:
        """Count tokens with the model's own tokenizer."""
        return model_folder.count_tokens(self._folder(argument), texts)

    @staticmethod
    def _folder(argument: str) -> Path:
        folder = Path(argument).expanduser()
        model_folder.check(folder)
        return folder


class HubModel:
    """`hub:ID@COMMIT`: a hub repository at a full commit, already downloaded to the local cache.

    Planning never downloads: a model of many gigabytes is fetched on purpose (`hf download ID --revision COMMIT`).
    """

    revision = 1

    def card(self, argument: str) -> ModelCard:
        """Describe the model; its commit is its pin."""
        identity, commit = self._split(argument)
        folder = self._folder(argument)
        detail = f"{model_folder.megabytes(folder):.1f} MB of weights, {identity} at {commit[:12]}"
        return ModelCard(f"rev:{commit}", model_folder.parameters(folder), detail)

    def locate(self, argument: str) -> ModelRef:
        """Say where the model is."""
        return ModelRef(str(self._folder(argument)))

    def count_tokens(self, argument: str, texts: Sequence[str]) -> int:
        """Count tokens with the model's own tokenizer."""
        return model_folder.count_tokens(self._folder(argument), texts)

    def _folder(self, argument: str) -> Path:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        identity, commit = self._split(argument)
        try:
            folder = Path(snapshot_download(identity, revision=commit, local_files_only=True))
        except LocalEntryNotFoundError as error:
            message = f"{identity} at {commit} is not downloaded: run `hf download {identity} --revision {commit}`"
            raise FileNotFoundError(message) from error
        model_folder.check(folder)
        return folder

    @staticmethod
    def _split(argument: str) -> tuple[str, str]:
        identity, _, commit = argument.partition("@")
        if not COMMIT.fullmatch(commit):
            message = f"`hub:{argument}` is not pinned: write `hub:ID@COMMIT` with the full 40-digit commit"
            raise ValueError(message)
        return identity, commit
