"""How a model decodes by its own generation_config, beside what the recipe says. Planning reads it too: without torch.

Neither generator takes a field from the model unless `generate.model_defaults` says so, and then only those that mean the same
in transformers and in vLLM.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from adapters import model_notes, templates
from adapters.chat import end_token
from adapters.model_folder import chat_template, read_json
from engine.domain.stage import ModelRef
from engine.domain.sweep import Decoding

GENERATION = "generation_config.json"

RECIPE = ("do_sample", "temperature", "top_p", "max_new_tokens", "max_length", "num_return_sequences")
"""What the recipe decides, always."""

SHARED = ("repetition_penalty", "min_new_tokens", "top_k", "min_p")
"""What both generators can do, and do alike."""

SAMPLING = ("top_k", "min_p")
"""Of these, what has an effect on sampled answers alone."""

NEUTRAL: Mapping[str, object] = MappingProxyType(
    {
        "repetition_penalty": 1.0,
        "encoder_repetition_penalty": 1.0,
        "no_repeat_ngram_size": 0,
        "encoder_no_repeat_ngram_size": 0,
        "min_length": 0,
        "min_new_tokens": 0,
        "do_sample": False,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "typical_p": 1.0,
        "epsilon_cutoff": 0.0,
        "eta_cutoff": 0.0,
        "num_beams": 1,
        "num_beam_groups": 1,
        "diversity_penalty": 0.0,
        "length_penalty": 1.0,
        "early_stopping": False,
        "guidance_scale": 1.0,
        "renormalize_logits": False,
        "remove_invalid_values": False,
    }
)
"""Values that change nothing, by field."""

OTHER = frozenset(
    {
        *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "_from_model_config"),
        *("transformers_version", "use_cache", "cache_implementation", "cache_config", "return_dict_in_generate"),
        *("output_attentions", "output_hidden_states", "output_scores", "output_logits", "num_return_sequences"),
        *("max_length", "max_new_tokens", "trust_remote_code", "compile_config", "disable_compile"),
    }
)
"""Fields that choose no token, or that the recipe has under a name of its own."""


def declared(folder: Path) -> dict[str, Any]:
    """Return the decoding fields that a model sets to something that has an effect; of old models, in config.json.

    Raises:
        ValueError: The file is not JSON.
    """
    own = folder / GENERATION
    found = read_json(own) if own.is_file() else _from_config(folder)
    return {
        name: value
        for name, value in sorted(found.items())
        if name not in OTHER and value not in (None, [], {}) and value != NEUTRAL.get(name)
    }


def _from_config(folder: Path) -> dict[str, Any]:
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    return {name: value for name, value in config.items() if name in NEUTRAL}


def end_tokens(folder: Path, tokenizer: Any) -> list[int]:
    """Return the tokens at which an answer ends.

    They are those that the model declares, its tokenizer's end of sequence, and what its template writes after an answer: what was
    trained as the end is one.
    """
    places = (folder / GENERATION, folder / "config.json")
    said = [read_json(place).get("eos_token_id") for place in places if place.is_file()]
    ends = next((found for found in said if found is not None), None)
    several = ends if isinstance(ends, list) else [ends]
    return sorted({token for token in (*several, tokenizer.eos_token_id, end_token(tokenizer)) if token is not None})


def taken(folder: Path, decoding: Decoding, *, model_defaults: bool) -> dict[str, Any]:
    """Return the fields that answers take from the model itself.

    Args:
        folder: The base model's.
        decoding: What the recipe says.
        model_defaults: Whether any are wanted.

    Raises:
        ValueError: One is wanted that not every generator has.
    """
    if not model_defaults:
        return {}
    found = {name: value for name, value in declared(folder).items() if name not in RECIPE}
    if foreign := [name for name in found if name not in SHARED]:
        raise ValueError(
            f"its generation_config sets {', '.join(foreign)}, which transformers and vLLM do not both have: without"
            " `generate.model_defaults` it is left out"
        )
    return {name: value for name, value in found.items() if decoding.temperature > 0 or name not in SAMPLING}


def notes(model: ModelRef, decoding: Decoding, *, model_defaults: bool, marks: Sequence[str] = ()) -> Sequence[str]:
    """Say which decoding fields a model sets, and what becomes of them; that its template prints a date, and that it thinks.

    Args:
        model: The model.
        decoding: What the recipe says.
        model_defaults: Whether the model's own fields are wanted.
        marks: What the spec says of the marks around thoughts.

    Raises:
        ValueError: As `taken`.
    """
    folder = Path(model.base)
    found, applied = declared(folder), taken(folder, decoding, model_defaults=model_defaults)
    told = tuple(_told(chat_template(folder), marks))
    if not found:
        return told
    recipe = [name for name in found if name in RECIPE]
    left = [name for name in found if name not in recipe and name not in applied]
    unused = "no effect on greedy answers" if model_defaults else "not applied (`generate.model_defaults` is off)"
    parts = (
        (list(applied), "applied"),
        (left, unused),
        (recipe, "not applied (the recipe says how to sample)"),
    )
    said = [f"{', '.join(f'{name} {found[name]}' for name in names)}: {what}" for names, what in parts if names]
    return (*told, f"its generation_config sets {'; '.join(said)}")


def _told(template: object, said: Sequence[str]) -> Iterator[str]:
    if templates.has_date(template):
        yield f"its chat template prints a date, and is told one that never changes ({templates.TODAY}; `template` of the model)"
    yield from model_notes.thinking(template, said)
