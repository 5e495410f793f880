"""Base models on this machine: a folder, or a snapshot of a hub repository that lies in the local cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field, field_validator

from adapters import lengths, model_folder, model_notes, templates
from adapters.at_commit import AtCommit
from adapters.pairs import Pairs
from engine.domain.conversation import ChatRow, Prompt
from engine.domain.stage import ModelRef
from engine.ports import OUTSIDE, Claim, ModelCard, Settings

PACKAGES: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(model_folder.BITS, model_folder.BITSANDBYTES),
        "gptq": "gptqmodel",
        "awq": "gptqmodel",
        "compressed-tensors": "compressed_tensors",
        "hqq": "hqq",
        "torchao": "torchao",
        "quanto": "optimum.quanto",
    }
)
"""The package that reads the weights of each way of quantising."""

Quantise: TypeAlias = Literal["nf4", "int8"] | None


class QuantisedSettings(Settings):
    """How weights are read."""

    quantise: Quantise = Field(
        default=None,
        description="Read the weights quantised by bitsandbytes, in training (QLoRA) and when asked: `nf4` or `int8`.",
    )


class TemplateSettings(Settings):
    """What a model's chat template is told."""

    template: Pairs = Field(
        default=(),
        description="What the chat template is told, in training and when asked, such as `{enable_thinking: false}`. `date: 2026-01-31` is"
        f" another date than {templates.TODAY}; `system: fold` puts a system prompt before the first user's turn.",
    )

    @field_validator("template")
    @classmethod
    def _can_be_told(cls, template: tuple[str, ...]) -> tuple[str, ...]:
        templates.check(template)
        return template


class FolderSettings(QuantisedSettings, TemplateSettings):
    """Which folder."""

    argument: ClassVar[str] = "path"

    path: Annotated[str, OUTSIDE] = Field(min_length=1, description="The folder.")


class FolderModel:
    """`dir:PATH`: a folder with config.json, a tokenizer and safetensors weights; pinned by the bytes of its files."""

    revision = 1
    Settings = FolderSettings

    def card(self, settings: FolderSettings) -> ModelCard:
        """Describe and pin the model, without loading it.

        Raises:
            FileNotFoundError: When the folder is not there or is not a model folder.
            ValueError: When an adapter lies in it, or its weights are quantised and cannot be read.
        """
        folder = _folder(settings)
        return described(folder, model_folder.pin(folder), f"in {settings.path}", settings.quantise, settings.template)

    def claim(self, path: str) -> Claim | None:
        """Claim any folder: its card says what a folder lacks."""
        return Claim({"path": path}, is_general=True) if Path(path).expanduser().is_dir() else None

    def notes(self, settings: FolderSettings) -> Sequence[str]:
        """Say what its config.json and its chat template tell."""
        return model_notes.notes(_folder(settings), settings.template)

    def locate(self, settings: FolderSettings) -> ModelRef:
        """Say where the model is."""
        return ModelRef(str(_folder(settings).resolve()), quantise=settings.quantise or "", template=settings.template)

    def row_lengths(self, settings: FolderSettings, rows: Sequence[ChatRow]) -> list[int]:
        """Count by the model's own tokenizer and template."""
        return lengths.row_lengths(_folder(settings), rows, settings.template)

    def prompt_lengths(self, settings: FolderSettings, prompts: Sequence[Prompt], system: str | None) -> list[int]:
        """Count by the model's own tokenizer and template."""
        return lengths.prompt_lengths(_folder(settings), prompts, system, settings.template)


def described(folder: Path, pin: str, where: str, quantise: Quantise = None, template: Sequence[str] = ()) -> ModelCard:
    """Return the card of a model folder.

    Args:
        folder: The folder.
        pin: Of its content.
        where: Where it is, for people.
        quantise: How its weights are to be quantised.
        template: What its chat template is told.

    Raises:
        ValueError: They are quantised already, or what reads them is not installed.
    """
    found = model_folder.quantised(folder)
    if quantise and found:
        raise ValueError(f"its weights are quantised already ({found}): leave `quantise` out")
    if (method := quantise or found) and method not in PACKAGES:
        raise ValueError(f"its weights are quantised ({method}), and of such only {', '.join(PACKAGES)} are supported")
    if method and find_spec((package := PACKAGES[method]).partition(".")[0]) is None:
        extra = "'dosimeter[quantised]'" if package == model_folder.BITSANDBYTES else package.replace(".", "-")
        raise ValueError(f"{method} weights need a package that is not installed: `pip install {extra}`")
    detail = f"{model_folder.megabytes(folder):.1f} MB of weights {where}"
    said = f", read as {quantise}" if quantise else f", quantised ({found})" if found else ""
    told = [*([quantise] if quantise else []), *sorted(template)]
    return ModelCard("+".join([pin, *told]), model_folder.parameters(folder), detail + said)


def _folder(settings: FolderSettings) -> Path:
    folder = Path(settings.path).expanduser()
    model_folder.check(folder)
    return folder


class HubSettings(QuantisedSettings, TemplateSettings, AtCommit):
    """Which repository, at which commit, and how it is read."""


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
        where = f"of {settings.id} at {settings.commit[:12]}"
        return described(folder, f"rev:{settings.commit}", where, settings.quantise, settings.template)

    def notes(self, settings: HubSettings) -> Sequence[str]:
        """Say what its config.json and its chat template tell."""
        return model_notes.notes(_snapshot(settings), settings.template)

    def locate(self, settings: HubSettings) -> ModelRef:
        """Say where the model is."""
        return ModelRef(str(_snapshot(settings)), quantise=settings.quantise or "", template=settings.template)

    def row_lengths(self, settings: HubSettings, rows: Sequence[ChatRow]) -> list[int]:
        """Count by the model's own tokenizer and template."""
        return lengths.row_lengths(_snapshot(settings), rows, settings.template)

    def prompt_lengths(self, settings: HubSettings, prompts: Sequence[Prompt], system: str | None) -> list[int]:
        """Count by the model's own tokenizer and template."""
        return lengths.prompt_lengths(_snapshot(settings), prompts, system, settings.template)


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
