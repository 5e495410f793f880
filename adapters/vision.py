"""Vision-language models: which are known, what an image is to them, and which of their weights see. Nothing here starts torch.

One architecture is known, LLaVA's (Liu et al. 2023, arXiv 2304.08485): a CLIP tower, a projector, and a language model that reads each image as the
same number of tokens.
"""

from __future__ import annotations

from pathlib import Path

from adapters.chat import ImageTokens
from adapters.model_folder import CONFIG, read_json

KNOWN = "llava"
"""`model_type` in the config.json of models that images are trained on with."""

TOWER = "clip_vision_model"
PARTS = ("vision_tower", "multi_modal_projector")
"""The parts of a model that see; they are never trained."""

EXCLUDED = rf"(.*\.)?({'|'.join(PARTS)})(\..*)?"
"""What PEFT is told to leave out, as a regular expression over whole names of modules."""

PROCESSORS = ("processor_config.json", "preprocessor_config.json")


def reads_images(folder: Path) -> bool:
    """Tell whether the model in a folder is a vision-language model of the architecture that is known."""
    config = folder / CONFIG
    return config.is_file() and read_json(config).get("model_type") == KNOWN


def sees(name: str) -> bool:
    """Tell whether a weight, by its name, is of a part that sees."""
    return any(part in name.split(".") for part in PARTS)


def image_tokens(folder: Path) -> ImageTokens | None:
    """Return what an image is to the model in a folder, by its config.json; None where it reads none.

    Defaults are those of transformers' LlavaConfig and CLIPVisionConfig, which leave them out of the file.

    Raises:
        ValueError: Its tower is of another kind.
    """
    if not reads_images(folder):
        return None
    config = read_json(folder / CONFIG)
    vision = config.get("vision_config") or {"image_size": 336, "patch_size": 14}
    if (kind := vision.get("model_type", TOWER)) != TOWER:
        raise ValueError(f"its vision tower is a `{kind}`, and only `{TOWER}` is known")
    patches = (vision.get("image_size", 224) // vision.get("patch_size", 32)) ** 2
    has_class_token = config.get("vision_feature_select_strategy", "default") == "full"
    token = config.get("image_token_index", config.get("image_token_id", 32_000))
    return ImageTokens(token, patches + has_class_token)


def fault(folder: Path) -> str:
    """Return why the images of rows cannot be made into what the model in a folder reads; empty if they can."""
    if any((folder / name).is_file() for name in PROCESSORS):
        return ""
    return f"its folder has no {PROCESSORS[1]}, which says how images are made ready: download the model whole"
