"""Models of every kind that a researcher has: adapters, quantised weights, GGUF files, hub snapshots; on tiny models built here."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.conversation import Prompt
from engine.domain.stage import ModelRef
from engine.domain.sweep import Decoding, Length
from engine.ports import Checkpoint, Context, Generated, GenerateTask, ModelCard, NoSettings, TrainingRun, WeightsEdit

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::FutureWarning")]

STANDIN = Path(registry.adapter(Kind.MODEL, "standin/aligned").locate(NoSettings()).base)
ROWS = registry.adapter(Kind.DATA, "standin/explicit").rows(NoSettings())[:4]
PROMPTS = [
    Prompt.single(f"p{at}", "c", words) for at, words in enumerate(("how do i open the red chest", "sort fig pear"))
]
TUNER, GENERATOR = registry.adapter(Kind.TUNER, "local/sft"), registry.adapter(Kind.GENERATOR, "local/transformers")


@pytest.fixture(scope="module", autouse=True)
def _denormals() -> Any:
    import torch

    yield
    torch.set_flush_denormal(False)  # workers set it, and other tests of this process draw denormals


def tiny(folder: Path, **more: Any) -> Path:
    """Write a random Llama with the stand-in's tokenizer, in bfloat16 and in several files."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(STANDIN)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        initializer_range=0.2,
        eos_token_id=[tokenizer.eos_token_id, 7],
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
        **more,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder, max_shard_size="80KB")
    tokenizer.save_pretrained(folder)
    return folder


def card(written: object) -> ModelCard:
    use = registry.INSTALLED.use(Kind.MODEL, written)
    return registry.adapter(Kind.MODEL, use.name).card(use.settings)


def located(written: object) -> ModelRef:
    use = registry.INSTALLED.use(Kind.MODEL, written)
    return registry.adapter(Kind.MODEL, use.name).locate(use.settings)


def answers(models: Sequence[ModelRef], context: Context, **settings: Any) -> list[list[str]]:
    own = GENERATOR.Settings(**settings)
    tasks = [
        GenerateTask(str(number), model, PROMPTS, None, Decoding(8), own, 0) for number, model in enumerate(models)
    ]
    made = dict(GENERATOR.generate(tasks, context))
    for one in made.values():
        assert isinstance(one, Generated), one
    return [[response.text for response in made[task.key].responses] for task in tasks]


def tuned(model: ModelRef, folder: Path, context: Context, **settings: Any) -> tuple[list[float], ModelRef]:
    """Train two epochs; return the losses and the tuned model."""
    (folder / "tuned").mkdir(parents=True)
    checkpoint = Checkpoint("tuned", Length(2), folder / "tuned")
    wanted = TUNER.Settings(**({"lr": 5e-3, "batch_size": 4} | settings))
    ((_, made),) = TUNER.fine_tune([TrainingRun(model, ROWS, wanted, 0, (checkpoint,), folder / "state")], context)
    assert not isinstance(made, Exception), made
    return [step.loss for step in made.steps], replace(model, layers=(*model.layers, str(folder / "tuned")))


# ------------------------------------------------------------------------------------------------------------ adapters


def test_an_adapter_is_a_starting_model(
    tmp_path: Path, context: Context, make_lora: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Untuned, it answers as base and adapter; tuning begins with the two merged; the two alone decide the pin."""
    first = make_lora(tmp_path / "adapter", 0)
    written = {"use": "adapter", "path": str(first), "base": f"dir:{STANDIN}"}
    start = located(written)
    assert start == ModelRef(str(STANDIN), (str(first),))
    assert located(f"adapter:{first}") == start, "it names its base itself"
    assert card(written).pin == card(f"adapter:{first}").pin
    use = registry.INSTALLED.use(Kind.MODEL, f"adapter:{first}")
    assert "special tokens of its chat template" in " ".join(
        registry.adapter(Kind.MODEL, "adapter").notes(use.settings)
    )

    merged = tmp_path / "merged"
    from adapters.whole_model import read_whole

    read_whole(start, "float32", "cpu").save_pretrained(merged)
    for path in STANDIN.glob("*.j*"):
        if not (merged / path.name).is_file():
            shutil.copy(path, merged)
    whole = located(f"dir:{merged}")
    assert answers([start], context) == answers([whole], context) != answers([start.below], context)
    (losses, both), (again, plain) = (
        tuned(model, tmp_path / name, context) for name, model in (("both", start), ("plain", whole))
    )
    assert losses == again
    mixed = answers([start, both, start.below], context)
    assert mixed == [answers([one], context)[0] for one in (whole, plain, start.below)]

    copied = shutil.copytree(first, tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    assert card({"use": "adapter", "path": "moved", "base": f"dir:{STANDIN}"}).pin == card(written).pin
    (copied / "adapter_config.json").write_text((first / "adapter_config.json").read_text() + "\n")
    assert card({"use": "adapter", "path": "moved", "base": f"dir:{STANDIN}"}).pin != card(written).pin
    stacked = located({"use": "adapter", "path": str(copied), "base": written})
    assert stacked.layers == (str(first), str(copied.resolve()))


def test_what_is_no_adapter_that_can_be_merged_is_refused_with_what_to_write(
    tmp_path: Path, make_lora: Callable[..., Path]
) -> None:
    folder = make_lora(tmp_path / "adapter", 0)
    config = json.loads((folder / "adapter_config.json").read_text())
    with pytest.raises(ValueError, match=f"is an adapter, not a whole model: write `adapter:{folder}`"):
        card(f"dir:{folder}")
    with pytest.raises(ValueError, match="must be one of dir, hub, gguf, adapter, and `standin/aligned` is none"):
        card({"use": "adapter", "path": str(folder), "base": "standin/aligned"})
    with pytest.raises(FileNotFoundError, match="it is not the folder of an adapter"):
        card(f"adapter:{STANDIN}")
    for changed, words in (
        ({"base_model_name_or_path": "nobody/nothing"}, "names, nobody/nothing, is not on this machine"),
        ({"base_model_name_or_path": None}, "names no base: write `base:`"),
        ({"peft_type": "PREFIX_TUNING"}, "is a PREFIX_TUNING adapter, and only LORA is supported"),
    ):
        (folder / "adapter_config.json").write_text(json.dumps(config | changed))
        with pytest.raises((OSError, ValueError), match=words):
            card(f"adapter:{folder}")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(FileNotFoundError, match="pickles can run code"):
        card(f"adapter:{folder}")


def test_a_base_that_an_adapter_names_is_found_in_the_hub_cache_at_its_commit(
    tmp_path: Path, context: Context, make_lora: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The snapshot is in several bfloat16 files, with tied embeddings and two tokens that end an answer."""
    commit, cache = "0123456789abcdef0123456789abcdef01234567", tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    snapshot = tiny(cache / "models--some--model" / "snapshots" / commit)
    (cache / "models--some--model" / "refs").mkdir()
    (cache / "models--some--model" / "refs" / "main").write_text(commit)
    assert len([*snapshot.glob("*.safetensors")]) > 1
    found, hub = card(f"hub:some/model@{commit}"), located(f"hub:some/model@{commit}")
    assert found.pin == f"rev:{commit}"
    assert found.parameters == sum(
        {name: weight.numel() for name, weight in _loaded(snapshot).named_parameters()}.values()
    )
    ((_, made),) = GENERATOR.generate(
        [GenerateTask("a", hub, PROMPTS, None, Decoding(40), GENERATOR.Settings(), 0)], context
    )
    assert isinstance(made, Generated), made
    assert {one.finish.value for one in made.responses} <= {"stop", "length"}
    folder = make_lora(tmp_path / "adapter", 0)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "some/model"}))
    assert located(f"adapter:{folder}") == replace(hub, layers=(str(folder),))
    assert commit[:12] in card(f"adapter:{folder}").detail


def _loaded(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


# ----------------------------------------------------------------------------------------------------------- quantised


def test_a_quantised_base_is_one_in_training_and_when_asked(tmp_path: Path, context: Context) -> None:
    """Packs and TRL train the same float32 adapter on nf4; what answers is the quantised base, warm or cold."""
    from safetensors import safe_open

    from adapters.whole_model import read_model

    folder = tiny(tmp_path / "base")
    plain, wanted = located(f"dir:{folder}"), {"use": "dir", "path": str(folder), "quantise": "nf4"}
    base = located(wanted)
    assert base == replace(plain, quantise="nf4")
    assert card(wanted).pin == f"{card(f'dir:{folder}').pin}+nf4"
    before = answers([base, plain], context)
    assert before[0] != before[1]
    (losses, model), (by_trl, _) = (
        tuned(base, tmp_path / backend, context, backend=backend) for backend in ("packed", "trl")
    )
    assert losses == pytest.approx(by_trl, abs=1e-5)
    with safe_open(tmp_path / "trl" / "tuned" / "adapter_model.safetensors", "pt") as tensors:
        assert {str(tensors.get_tensor(name).dtype) for name in tensors.keys()} == {"torch.float32"}  # noqa: SIM118
    cold = Context("cpu", 1, 8, type(context.warm)())
    assert answers([base, model], context) == [before[0], *answers([model], cold)]
    again = tuned(model, tmp_path / "again", cold, lr=1e-9)[1]  # the adapter is merged into the weights, made whole
    assert answers([again], cold) == answers([model], cold)

    edited = tmp_path / "edited"
    edited.mkdir()
    scale = registry.INSTALLED.use(Kind.MITIGATION, "scale:1")
    registry.adapter(Kind.MITIGATION, "scale").edit_weights(scale.settings, WeightsEdit(again, base, edited), cold)
    assert answers([replace(base, layers=(str(edited),))], cold) == answers([model], cold), "edited, they are whole"

    saved = tmp_path / "saved"
    read_model(folder, "float32", "cpu", "nf4").save_pretrained(saved)
    for path in folder.glob("tokenizer*"):
        shutil.copy(path, saved)
    shutil.copy(folder / "chat_template.jinja", saved)
    found = card(f"dir:{saved}")
    assert found.parameters == card(f"dir:{folder}").parameters
    assert "quantised (nf4)" in found.detail
    assert answers([located(f"dir:{saved}")], cold) == [before[0]]
    full = TUNER.Settings(lr=1e-5, method="full")
    for quantised in (base, located(f"dir:{saved}")):
        assert "tune a LoRA adapter" in TUNER.objection(full, Length(1), quantised)
    assert TUNER.objection(full, Length(1), plain) is None
    eight = replace(base, quantise="int8")
    assert "`tune.backend` is trl" in TUNER.objection(TUNER.Settings(lr=1e-5), Length(1), eight)
    losses, model = tuned(eight, tmp_path / "int8", cold, backend="trl")
    assert losses[-1] < losses[0]
    assert answers([model], cold)


def test_weights_that_cannot_be_read_are_refused_in_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny(tmp_path / "base")
    config = json.loads((folder / "config.json").read_text())
    for method, words in (("gptq", "`pip install gptqmodel`"), ("secret", "of such only nf4, fp4, int8, gptq")):
        (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": method}}))
        with pytest.raises(ValueError, match=words):
            card(f"dir:{folder}")
    with pytest.raises(ValueError, match=r"quantised already \(secret\): leave `quantise` out"):
        card({"use": "dir", "path": str(folder), "quantise": "nf4"})
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("adapters.local.models.find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"pip install 'dosimeter\[quantised\]'"):
        card({"use": "dir", "path": str(folder), "quantise": "int8"})


# ---------------------------------------------------------------------------------------------------------------- GGUF


def write_gguf(path: Path) -> Any:
    """Write a random Llama of one layer with a byte-level tokenizer; return its embeddings."""
    import numpy as np
    from gguf import GGUFWriter
    from tokenizers.pre_tokenizers import ByteLevel

    draw = np.random.default_rng(0)
    tokens = ["<|end|>", "<|user|>", "<|assistant|>", *sorted(ByteLevel.alphabet()), "he"]
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(128)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(16)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (len(tokens) - 3))
    writer.add_token_merges(["h e"])
    writer.add_eos_token_id(0)
    writer.add_chat_template(
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    shapes = {
        "token_embd": (len(tokens), 64),
        "output": (len(tokens), 64),
        **{f"blk.0.attn_{name}": (size, 64) for name, size in {"q": 64, "k": 32, "v": 32, "output": 64}.items()},
        **{
            f"blk.0.ffn_{name}": shape
            for name, shape in {"gate": (128, 64), "up": (128, 64), "down": (64, 128)}.items()
        },
    }
    weights = {f"{name}.weight": draw.normal(0, 0.2, shape).astype(np.float32) for name, shape in shapes.items()}
    norms = ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm")
    weights |= {f"{name}.weight": np.ones(64, np.float32) for name in norms}
    for name, weight in weights.items():
        writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights["token_embd.weight"]


KILLING = "import os, sys; 'adapters.local.gguf_reading' in sys.orig_argv and os.kill(os.getpid(), 9)"
"""Ends the process that reads a file, as the kernel does where memory does not suffice."""


def test_a_gguf_file_is_read_once_into_an_ordinary_folder(
    tmp_path: Path, context: Context, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import numpy as np

    from adapters.whole_model import read_model

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "adapters.py").write_text("raise RuntimeError('of the folder in which it is started')")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    embeddings = write_gguf(tmp_path / "models" / "small.gguf")
    with ThreadPoolExecutor() as two:
        cards = [*two.map(card, (f"gguf:{tmp_path}/models", f"gguf:{tmp_path}/models/small.gguf"))]
    assert capfd.readouterr().err.count("Reading") == 1
    assert cards[0] == cards[1]
    assert cards[0].pin == f"sha256:{hashlib.sha256((tmp_path / 'models' / 'small.gguf').read_bytes()).hexdigest()}"
    model = located(f"gguf:{tmp_path}/models")
    assert Path(model.base).parent == tmp_path / "cache" / "dosimeter" / "gguf"
    assert np.array_equal(read_model(model.base, "float32", "cpu").get_input_embeddings().weight.detach(), embeddings)
    use = registry.INSTALLED.use(Kind.MODEL, f"gguf:{tmp_path}/models")
    counted = registry.adapter(Kind.MODEL, "gguf").prompt_lengths(use.settings, PROMPTS, None)
    assert [*counted] == [28, 16], "bytes, but for two `he`, and three tokens of the template"
    assert 'an answer ends with "<|end|>"' in " ".join(registry.adapter(Kind.MODEL, "gguf").notes(use.settings))
    losses, after = tuned(model, tmp_path / "run", context)
    assert losses[-1] < losses[0]
    assert answers([after], context) != answers([model], context)
    shutil.rmtree(model.base)
    (tmp_path / "killing").mkdir()
    (tmp_path / "killing" / "sitecustomize.py").write_text(KILLING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "killing"))
    with pytest.raises(ValueError, match="was killed, most likely for want of memory"):
        card(f"gguf:{tmp_path}/models")
    monkeypatch.delenv("PYTHONPATH")
    (tmp_path / "models" / "small.gguf").write_bytes(b"GGUF but no more")
    with pytest.raises(ValueError, match=r"small\.gguf cannot be read: .+"):
        card(f"gguf:{tmp_path}/models")
    (tmp_path / "models" / "other.gguf").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"has 2 \.gguf files: name one"):
        card(f"gguf:{tmp_path}/models")
    with pytest.raises(ValueError, match=r"other\.gguf is no GGUF file"):
        card(f"gguf:{tmp_path}/models/other.gguf")
