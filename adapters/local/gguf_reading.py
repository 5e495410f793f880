"""`python -m adapters.local.gguf_reading FILE FOLDER`: write what a GGUF file says as an ordinary model folder.

A child process of planning runs it. transformers reads the file and undoes its quantisation; what is saved is a fresh model of
the same configuration, so that nothing of the way in which it was read stays with it.
"""

from __future__ import annotations

import sys
from pathlib import Path


def write(path: Path, folder: Path) -> None:
    """Read a file and write the folder: float32 weights, tokenizer, chat template, and where answers end.

    Args:
        path: The GGUF file.
        folder: An existing folder.

    Raises:
        ValueError: transformers cannot read it, it lacks weights, or it has no chat template.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    place = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    tokenizer = AutoTokenizer.from_pretrained(**place)
    if not tokenizer.chat_template:
        raise ValueError("it has no chat template")
    read, told = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32, output_loading_info=True)
    if missing := sorted(told["missing_keys"]):  # transformers would draw them at random
        raise ValueError(f"it lacks {len(missing)} weights of its model, such as {missing[0]}")
    config = AutoConfig.for_model(**{k: v for k, v in read.config.to_dict().items() if k != "quantization_config"})
    with torch.device("meta"):
        fresh = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    fresh.load_state_dict(read.state_dict(), assign=True)
    fresh.tie_weights()
    ends = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else config.eos_token_id
    pad = tokenizer.pad_token_id
    fresh.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=ends, pad_token_id=ends if pad is None else pad
    )
    fresh.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
