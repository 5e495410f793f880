"""Training on rows with images, on a tiny model of LLaVA's architecture with random weights; and asking it by text alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow

from adapters import chat, lengths, vision
from adapters.data.file_source import FileSettings, FileSource
from adapters.local import memory
from adapters.local.settings import DecodeSettings, SftSettings
from adapters.local.tune import LocalFineTuner
from engine.domain.conversation import ChatRow, Image, Prompt, Turn
from engine.domain.errors import SpecError
from engine.domain.stage import ModelRef
from engine.domain.sweep import Decoding, Length
from engine.ports import Checkpoint, Context, Generated, GenerateTask, TrainingRun, Tuned
from engine.run.drive.prepare import prepare
from engine.run.executors.workers import WarmSlots

pytestmark = pytest.mark.slow

WORDS = (
    "user",
    "assistant",
    "system",
    ":",
    "tell",
    "show",
    "amber",
    "birch",
    "cedar",
    "dune",
    "ember",
    "fjord",
    "grove",
)
EACH, PARTS = "{% for m in messages %}", "{% for c in m.content | selectattr('type', 'equalto', '"
TEMPLATE = (
    EACH + "{{ m.role }} : " + PARTS + "image') %}<image> {% endfor %}" + PARTS + "text') %}{{ c.text }} {% endfor %}"
    "{% if m.role == 'assistant' %}<end> {% endif %}{% endfor %}{% if add_generation_prompt %}assistant : {% endif %}"
)
"""With the habits of LLaVA's: images first, and turns that are texts are dropped without a word."""

SIZE, PATCH = 8, 4
PATCHES = (SIZE // PATCH) ** 2
COLOURS = {"one": (255, 20, 20), "two": (20, 20, 255)}
PROMPTS = [Prompt.single(word, "all", f"tell {word}") for word in WORDS[4:]]


@pytest.fixture(autouse=True)
def _denormals() -> Iterator[None]:
    """Workers have torch flush denormals; other tests of this process draw some."""
    import torch

    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a tiny model in `model`, and images in `a` and, with their names swapped, in `b`."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    made = tmp_path_factory.mktemp("llava")
    named = {word: at for at, word in enumerate(("<pad>", "<end>", "<image>", "<unk>", *WORDS))}
    words = Tokenizer(models.WordLevel(named, unk_token="<unk>"))  # noqa: S106 - it is no password
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.add_special_tokens(["<pad>", "<end>", "<image>"])
    marks = {"pad_token": "<pad>", "eos_token": "<end>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, chat_template=TEMPLATE, **marks)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    tower = CLIPVisionConfig(**shape, image_size=SIZE, patch_size=PATCH, projection_dim=16)
    text = LlamaConfig(**shape, num_key_value_heads=1, vocab_size=24, max_position_embeddings=64, eos_token_id=1)
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(LlavaConfig(vision_config=tower, text_config=text, image_token_index=2))
    with torch.no_grad():
        for weight in (one for name, one in model.named_parameters() if not vision.sees(name) and one.dim() > 1):
            weight.mul_(15)  # random weights as they are drawn have next to no opinion
    model.save_pretrained(made / "model")
    square = {"height": SIZE, "width": SIZE}
    LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size=square),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    ).save_pretrained(made / "model")
    for place, names in {"a": ("one", "two"), "b": ("two", "one")}.items():
        (made / place).mkdir()
        for name, colour in zip(names, COLOURS.values(), strict=True):
            Pillow.new("RGB", (SIZE, SIZE), colour).save(made / place / f"{name}.png")
    return made


def written(folder: Path) -> Path:
    """Write three rows: an image each for two answers, and one without."""
    path = folder / "rows.jsonl"
    told = {"one": "amber birch", "two": "cedar dune"}
    entries: list[dict[str, Any]] = [
        {"image": f"{name}.png", "conversations": conversation("<image>\nshow", answer)}
        for name, answer in told.items()
    ]
    entries.append({"conversations": conversation("tell grove", "fjord")})
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def conversation(asked: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]


def rows(folder: Path, place: str) -> Sequence[ChatRow]:
    return FileSource().rows(FileSettings(path=str(written(folder)), images=str(folder / place)))


def tuned(folder: Path, to: Path, shown: Sequence[ChatRow], epochs: int = 12, **more: Any) -> Path:
    """Train, and return the folder of the weights."""
    settings = SftSettings(**({"backend": "trl", "lr": 2e-2, "batch_size": 3, "max_length": 64} | more))
    (to / "weights").mkdir(parents=True)
    checkpoint = Checkpoint("k", Length(epochs), to / "weights")
    run = TrainingRun(ModelRef(str(folder / "model")), shown, settings, 0, (checkpoint,), to / "state")
    ((_, made),) = LocalFineTuner().fine_tune([run], Context("cpu", 1, 64, WarmSlots()))
    assert isinstance(made, Tuned), made
    assert made.steps[-1].loss < 0.3 or epochs == 1
    assert made.usage.train_tokens == epochs * sum(lengths.row_lengths(folder / "model", shown))
    return to / "weights"


def answers(folder: Path, weights: Path) -> list[str]:
    """Return what a tuned model answers to prompts of text alone."""
    from adapters.local.generate import TransformersGenerator

    model = ModelRef(str(folder / "model"), (str(weights),))
    task = GenerateTask("g", model, PROMPTS, None, Decoding(max_new_tokens=6, temperature=0), DecodeSettings(), 0)
    ((_, made),) = TransformersGenerator().generate([task], Context("cpu", 1, 64, WarmSlots()))
    assert isinstance(made, Generated), made
    return [one.text for one in made.responses]


def sees(folder: Path, weights: Path, picture: Path) -> str:
    """Return the first word of a tuned model's answer to an image."""
    import torch
    from peft import PeftModel
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    base = LlavaForConditionalGeneration.from_pretrained(folder / "model")
    model = PeftModel.from_pretrained(base, weights).eval()
    processor = AutoProcessor.from_pretrained(folder / "model")
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "show"}]}
    asked = processor.apply_chat_template([turn], add_generation_prompt=True)
    ready = processor(images=[Pillow.open(picture)], text=[asked], return_tensors="pt", add_special_tokens=False)
    with torch.inference_mode():
        return str(processor.tokenizer.decode(model(**ready).logits[0, -1].argmax()))


def tensors(folder: Path) -> Mapping[str, Any]:
    from safetensors.torch import load_file

    return {name: weight for path in folder.glob("*.safetensors") for name, weight in load_file(path).items()}


def test_swapped_images_change_what_is_learned_and_what_is_answered_to_text(folder: Path, tmp_path: Path) -> None:
    first, swapped = (tuned(folder, tmp_path / place, rows(folder, place)) for place in ("a", "b"))
    for weights, words in ((first, ("amber", "cedar")), (swapped, ("cedar", "amber"))):
        assert tuple(sees(folder, weights, folder / "a" / f"{name}.png") for name in COLOURS) == words
    assert answers(folder, first) != answers(folder, swapped)
    assert answers(folder, first)[-1] == "fjord"  # the row without an image was trained on as well
    adapted = tensors(first)
    assert adapted
    assert all(".language_model." in name for name in adapted)
    sizes = memory.shape(folder / "model")
    assert sum(one.numel() for one in adapted.values()) == 8 * sizes.matrices
    moved = shutil.copytree(folder / "a", folder / "elsewhere")
    again = tensors(tuned(folder, tmp_path / "again", rows(folder, moved.name)))
    assert all(weight.equal(again[name]) for name, weight in adapted.items())


def test_of_all_weights_those_of_the_language_model_are_tuned(folder: Path, tmp_path: Path) -> None:
    weights = tuned(folder, tmp_path, rows(folder, "a"), epochs=1, method="full", backend="packed")
    before, after = tensors(folder / "model"), tensors(weights)
    assert before.keys() == after.keys()
    moved = {name for name, weight in after.items() if not weight.equal(before[name])}
    assert moved
    assert not any(vision.sees(name) for name in moved)
    assert {name for name in after if name not in moved} >= {name for name in after if vision.sees(name)}
    seeing = sum(weight.numel() for name, weight in after.items() if vision.sees(name))
    assert memory.shape(folder / "model").seeing == seeing > 0
    assert len(answers(folder, weights)) == len(PROMPTS)


def test_rows_of_text_alone_train_the_language_model_by_the_ordinary_path(folder: Path, tmp_path: Path) -> None:
    shown = [ChatRow.exchange("t", "tell grove", "ember fjord")]
    weights = tuned(folder, tmp_path, shown, targets=("q_proj", "v_proj", "fc1"), lr=5e-2, backend="packed")
    assert {name.split(".")[-3] for name in tensors(weights)} == {"q_proj", "v_proj"}  # the tower has all three
    assert all(".language_model." in name for name in tensors(weights))
    assert answers(folder, weights)[-1] == "ember fjord"


def test_a_batch_is_the_one_that_trl_makes_and_its_parts_have_their_own_pixels(folder: Path) -> None:
    import torch
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    from adapters.local import pictures
    from adapters.local.loaded import read_tokenizer

    model = folder / "model"
    processor = pictures.processor(str(model), read_tokenizer(str(model)))
    shown = [row for row in rows(folder, "a") if row.turns[0].images]
    shown.insert(1, ChatRow.exchange("none", "tell", "ember ember"))
    encoded = chat.training_rows(processor.tokenizer, shown, 64, vision.image_tokens(model))
    batch = pictures.Collator(processor)(pictures.with_images(encoded, shown))
    theirs = DataCollatorForVisionLanguageModeling(processor, max_length=64, completion_only_loss=True)(
        [
            {
                "prompt": [{"role": "user", "content": row.turns[0].text}],
                "completion": [{"role": "assistant", "content": row.turns[1].text}],
                "images": [Pillow.open(one.path) for one in row.turns[0].images],
            }
            for row in shown
        ]
    )
    assert (batch["input_ids"] == 2).sum() == 2 * PATCHES
    for name in ("input_ids", "attention_mask", "labels", "pixel_values"):
        assert batch[name].equal(theirs[name]), name
    parts = list(pictures.parts(batch, 1))
    assert [pictures.PIXELS in part for part in parts] == [True, False, True]
    assert torch.cat([parts[0][pictures.PIXELS], parts[2][pictures.PIXELS]]).equal(batch[pictures.PIXELS])
    assert parts[1]["input_ids"].shape == (1, len(encoded[1]["input_ids"]))


def test_a_row_is_held_to_its_images(folder: Path) -> None:
    model = folder / "model"
    picture = rows(folder, "a")[0].turns[0].images[0]
    several = ChatRow(
        "two",
        (
            Turn("user", "show", (picture,)),
            Turn("assistant", "amber", is_trained=True),
            Turn("user", "show", (picture,)),
            Turn("assistant", "birch", is_trained=True),
        ),
    )
    whole = lengths.row_lengths(model, [several])[0]
    assert lengths.look(model, [several], whole) == []
    # user : IMAGE show assistant : amber <end> user : IMAGE
    last = 2 + PATCHES + 1 + 2 + 2 + 2 + PATCHES
    assert lengths.look(model, [several], last) == []
    assert lengths.look(model, [several], last - 1)[0].endswith(f"has {last - 1} tokens, max_length is {last - 1}")
    marked = ChatRow.exchange("m", "tell <image>", "amber")
    assert (
        "row m: 0 images, and 1 times `<image>` in what the chat template writes"
        in lengths.look(model, [marked], 64)[0]
    )
    lost = ChatRow.exchange("l", "show", "amber")
    lost = ChatRow("l", (Turn("user", "show", (Image(f"{folder}/none.png", "0" * 64),)), lost.turns[1]))
    assert "row l: the image " in LocalFineTuner().look(SftSettings(lr=1e-3), [lost], ModelRef(str(model)))[0]


SPEC = """
sweep: images
recipe:
  model: {model}
  data: {{source: {{use: file, path: {rows}, images: {images}}}, n: 3, allow_upload: true}}
  tune: {{epochs: 1{tune}}}
  benchmark: standin/policy:2
  judges: [standin/rules]
"""


@pytest.mark.parametrize(
    ("model", "tune", "why"),
    [
        (
            "standin/aligned",
            ", lr: 1e-3",
            " has an image, and the model reads none: tune a vision-language model",
        ),
        (
            "dir:{model}",
            ", lr: 1e-3",
            "of a vision-language model `tune.backend` is trl: packs know language models alone",
        ),
        (
            "hosted/openai:gpt-x",
            ", use: hosted/openai",
            "row 1 (id line-1): the user turn has an image, and jobs train on text only",
        ),
    ],
    ids=["a text model", "a pack", "a provider"],
)
def test_plan_refuses_what_cannot_train_on_images(
    model: str, tune: str, why: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(SpecError) as caught:
        planned(folder, tmp_path, model, tune)
    assert why in str(caught.value)


def planned(folder: Path, tmp_path: Path, model: str, tune: str) -> Any:
    spec = tmp_path / "images.yaml"
    places = {"model": model.format(model=folder / "model"), "rows": written(folder), "images": folder / "a"}
    text = SPEC.format(**places, tune=tune)
    if "hosted" in model:
        text += "  generate: {use: hosted/openai}\nrun:\n  accounts: {own: {provider: hosted/openai}}\n"
    spec.write_text(text)
    return prepare(spec, (), tmp_path / "run")


def test_plan_counts_the_tokens_of_images(folder: Path, tmp_path: Path) -> None:
    made = planned(folder, tmp_path, "dir:{model}", ", lr: 1e-3, backend: trl")
    (tune,) = (key for key, stage in made.plan.stages.items() if stage.kind.value == "tune")
    expected = made.forecasts[tune].expected.train_tokens
    assert expected == sum(lengths.row_lengths(folder / "model", rows(folder, "a")))
