"""LoRA adapters as starting models: a base with an adapter on it, which is what training begins with and what answers untuned."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

from pydantic import Field

from adapters import model_folder, model_notes
from adapters.at_commit import COMMIT
from adapters.local.gguf_model import GgufModel
from adapters.local.models import FolderModel, FolderSettings, HubModel, HubSettings
from engine.domain.adapters import ModelUse, Use
from engine.domain.conversation import ChatRow, Prompt
from engine.domain.stage import ModelRef
from engine.ports import OUTSIDE, Claim, ModelCard, ModelSource, Settings

NAMED = "base_model_name_or_path"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


class AdapterSettings(Settings):
    """Which adapter, and on what."""

    argument: ClassVar[str] = "path"

    path: Annotated[str, OUTSIDE] = Field(min_length=1, description="The folder of a LoRA adapter, as PEFT saves it.")
    base: ModelUse | None = Field(
        default=None,
        description="The model under it: `dir`, `hub`, `gguf` or another `adapter`. Where the adapter names its base, and that"
        " is on this machine, it may be left out.",
    )


class AdapterModel:
    """`adapter:PATH`: a LoRA adapter on a base; pinned by the bytes of its files and by the base's pin."""

    revision = 1
    Settings = AdapterSettings

    def card(self, settings: AdapterSettings) -> ModelCard:
        """Describe and pin the two, without loading them.

        Raises:
            OSError: One of them is not there.
            ValueError: The adapter is none that can be merged, or its base is not known.
        """
        folder, base = _folder(settings), _base(settings)
        source = _SOURCES[base.name]
        below = source.card(base.settings)
        both = f"{model_folder.pin(folder)} {base.name} {below.pin}#{source.revision}"
        mine, theirs = (
            model_folder.chat_template(place) for place in (folder, Path(source.locate(base.settings).base))
        )
        unused = "; the adapter's own chat template, which differs, is not used" if mine not in (None, theirs) else ""
        detail = f"adapter of rank {_config(folder).get('r')} in {settings.path} on {base}: {below.detail}{unused}"
        return ModelCard(f"sha256:{hashlib.sha256(both.encode()).hexdigest()}", below.parameters, detail)

    def claim(self, path: str) -> Claim | None:
        """Claim the folder of an adapter."""
        folder = Path(path).expanduser()
        is_one = (folder / model_folder.ADAPTER).is_file() and not (folder / model_folder.CONFIG).is_file()
        return Claim({"path": path}) if is_one else None

    def notes(self, settings: AdapterSettings) -> Sequence[str]:
        """Say what the configuration and the chat template of its base tell."""
        base = self.locate(settings)
        return model_notes.notes(Path(base.base), base.template)

    def locate(self, settings: AdapterSettings) -> ModelRef:
        """Say where the base is, and the adapter on it."""
        base = _base(settings)
        found = _SOURCES[base.name].locate(base.settings)
        return replace(found, layers=(*found.layers, str(_folder(settings).resolve())))

    def row_lengths(self, settings: AdapterSettings, rows: Sequence[ChatRow]) -> Sequence[int]:
        """Count by the base's tokenizer and template."""
        base = _base(settings)
        return _SOURCES[base.name].row_lengths(base.settings, rows)

    def prompt_lengths(self, settings: AdapterSettings, prompts: Sequence[Prompt], system: str | None) -> Sequence[int]:
        """Count by the base's tokenizer and template."""
        base = _base(settings)
        return _SOURCES[base.name].prompt_lengths(base.settings, prompts, system)


_SOURCES: Mapping[str, ModelSource] = MappingProxyType(
    {"dir": FolderModel(), "hub": HubModel(), "gguf": GgufModel(), "adapter": AdapterModel()}
)


def _folder(settings: AdapterSettings) -> Path:
    """Return the adapter's folder.

    Raises:
        FileNotFoundError: There is no adapter, or its weights are not safetensors.
        ValueError: It is an adapter of another kind.
    """
    folder = Path(settings.path).expanduser()
    if not (folder / model_folder.ADAPTER).is_file():
        raise FileNotFoundError(f"{folder} has no {model_folder.ADAPTER}: it is not the folder of an adapter")
    kind = _config(folder).get("peft_type")
    if kind != "LORA":
        raise ValueError(
            f"{folder} is a {kind} adapter, and only LORA is supported: merge it, and name the whole model"
        )
    if not (folder / model_folder.ADAPTER_WEIGHTS).is_file():
        raise FileNotFoundError(
            f"{folder} has no {model_folder.ADAPTER_WEIGHTS}; pickled weights are not loaded, since pickles can run code"
        )
    if (folder / model_folder.CONFIG).is_file():
        raise ValueError(f"{folder} has a {model_folder.CONFIG} as well: keep the adapter in a folder of its own")
    return folder


def _config(folder: Path) -> Mapping[str, Any]:
    return model_folder.read_json(folder / model_folder.ADAPTER)


def _base(settings: AdapterSettings) -> Use:
    """Return the model under the adapter: the one that is written, or the one that the adapter names.

    Raises:
        FileNotFoundError: What the adapter names is not on this machine.
        ValueError: Neither names one that can be.
    """
    if settings.base is not None:
        if settings.base.name not in _SOURCES:
            raise ValueError(f"its base must be one of {', '.join(_SOURCES)}, and `{settings.base}` is none")
        return settings.base
    config = _config(_folder(settings))
    named = config.get(NAMED)
    if not isinstance(named, str) or not named:
        raise ValueError(f"the adapter in {settings.path} names no base: write `base:` beside `path:`")
    if Path(named).is_dir():
        return Use("dir", FolderSettings(path=named))
    commit = _cached(named, config.get("revision")) if _REPOSITORY.fullmatch(named) else None
    if commit is None:
        raise FileNotFoundError(
            f"the base that the adapter in {settings.path} names, {named}, is not on this machine: write `base:`, or download it"
        )
    return Use("hub", HubSettings(id=named, commit=commit))


def _cached(repository: str, revision: object) -> str | None:
    """Return the commit of the snapshot in the local hub cache that a name and a revision lead to."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            repository, revision=revision if isinstance(revision, str) else None, local_files_only=True
        )
    except LocalEntryNotFoundError:
        return None
    name = Path(folder).name
    return name if COMMIT.fullmatch(name) else None
