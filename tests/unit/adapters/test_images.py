"""Rows with images, as LLaVA writes them: what becomes of marks and names, and which images are refused."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow
from pydantic import ValidationError

from adapters import chat, images
from adapters.data.file_source import FileSettings, FileSource
from adapters.data.hub_source import HubDataSettings
from engine.domain.conversation import ChatRow, Image, Turn

LAMP, KEY = (250, 200, 20), (40, 60, 90)


def says(asked: str, answer: str = "A lamp.") -> list[dict[str, str]]:
    return [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of images, with some beside it that no row may reach."""
    made = tmp_path / "pictures"
    (made / "deep").mkdir(parents=True)
    Pillow.new("RGB", (6, 4), LAMP).save(made / "lamp.png")
    Pillow.new("RGB", (4, 6), KEY).save(made / "deep" / "key.jpg")
    Pillow.new("RGB", (4, 4), KEY).save(tmp_path / "outside.png")
    (made / "link.png").symlink_to(tmp_path / "outside.png")
    (made / "within.png").symlink_to("lamp.png")
    (made / "circle.png").symlink_to("circle.png")
    (made / "words.png").write_text("no picture")
    (made / "drawing.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\nshowpage\n")
    (made / "empty.png").touch()
    Pillow.new("RGB", (2, 402), LAMP).save(made / "ribbon.png")
    return made


def source(folder: Path, *entries: object) -> dict[str, Any]:
    path = folder.parent / "rows.json"
    path.write_text(json.dumps(list(entries)))
    return {"path": str(path), "images": str(folder)}


def rows(folder: Path, *entries: object, **more: Any) -> Sequence[ChatRow]:
    return FileSource().rows(FileSettings(**source(folder, *entries), **more))


def pinned(folder: Path, name: str) -> Image:
    return Image(str((folder / name).resolve()), hashlib.sha256((folder / name).read_bytes()).hexdigest())


def test_marks_become_images_before_the_text_and_a_row_without_any_is_as_it_is(folder: Path) -> None:
    entries = [
        {"id": "7", "image": "lamp.png", "conversations": says("<image>\nWhat is it?")},
        {"image": "within.png", "conversations": [*says("What is it?\n<image>"), *says("Is it lit?", "It is.")]},
        {"images": ["lamp.png", "deep/key.jpg"], "conversations": says("<image>\n<image> Which opens?", "The key.")},
        {"conversations": says("  Where is it? ", "There.")},
    ]
    found = rows(folder, *entries)
    lamp, key = pinned(folder, "lamp.png"), pinned(folder, "deep/key.jpg")
    assert [row.turns[0] for row in found] == [
        Turn("user", "What is it?", (lamp,)),
        Turn("user", "What is it?", (lamp,)),
        Turn("user", "Which opens?", (lamp, key)),
        Turn("user", "  Where is it? "),
    ]
    assert found[1].turns[1:] == (
        Turn("assistant", "A lamp.", is_trained=True),
        Turn("user", "Is it lit?"),
        Turn("assistant", "It is.", is_trained=True),
    )
    card = FileSource().card(FileSettings(**source(folder, *entries)))
    assert (card.shape, card.rows) == ("llava", 4)
    assert "images in 3 rows" in card.notes


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"image": "none.png"}, 'the image "none.png" cannot be read: [Errno 2] No such file or directory'),
        ({"image": "../outside.png"}, 'the image "../outside.png" is no path inside of '),
        ({"image": "/etc/hostname"}, 'the image "/etc/hostname" is no path inside of '),
        ({"image": "lamp\0.png"}, "is no path inside of "),
        ({"image": "link.png"}, 'the image "link.png" leads out of '),
        ({"image": "circle.png"}, 'the image "circle.png" cannot be read: '),
        ({"image": "deep"}, "deep is a folder; name a file"),
        ({"image": "words.png"}, "words.png is no image in JPEG, PNG, WEBP, GIF, BMP"),
        ({"image": "drawing.eps"}, "drawing.eps is no image in JPEG, PNG, WEBP, GIF, BMP"),
        ({"image": "empty.png"}, "empty.png is empty"),
        ({"image": "ribbon.png"}, "ribbon.png is more than 200 times as long as it is wide"),
        ({"image": {"bytes": "", "path": "lamp.png"}}, "`image` is the path of a file, or a list of paths: save"),
        ({"image": "lamp.png", "images": ["lamp.png"]}, "both `image` and `images` name images: keep one"),
        ({}, "the users' texts have more marks (`<image>`) than it names images"),
        ({"images": ["lamp.png", "lamp.png"]}, "it names 1 more image than the users' texts have marks"),
        ({"image": "lamp.png", "conversations": says("What is it?")}, "it names 1 more image than"),
        ({"image": "lamp.png", "conversations": says("What <image> is it?")}, "`<image>` stands inside of a text"),
        ({"image": "lamp.png", "conversations": says("Hm?", "<image>")}, "stands in a text of the assistant's"),
    ],
)
def test_a_row_whose_images_cannot_be_had_is_refused_with_its_place(
    entry: dict[str, Any], why: str, folder: Path
) -> None:
    good = {"image": "lamp.png", "conversations": says("<image>\nWhat is it?")}
    bad = {"conversations": good["conversations"], **entry}
    with pytest.raises(ValueError, match=r"rows.json, item 2: ") as caught:
        rows(folder, good, bad)
    assert why in str(caught.value)
    assert len(rows(folder, good, bad, refused="skip")) == 1


def test_too_large_is_refused_before_it_is_decoded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Pillow.new("RGB", (30, 40), LAMP).save(folder / "large.png")
    entry = {"image": "large.png", "conversations": says("<image>\nWhat is it?")}
    for most in (1000, 100):  # above the first Pillow warns, and of more than twice as much it makes an error
        monkeypatch.setattr(Pillow, "MAX_IMAGE_PIXELS", most)
        with pytest.raises(ValueError, match=r"large.png has more pixels than are read: Image size \(1200 pixels\)"):
            rows(folder, entry)
    monkeypatch.setattr(images, "LARGEST", 20)
    with pytest.raises(ValueError, match=r"large\.png has more than 0 MiB"):
        rows(folder, entry)


def test_the_images_are_part_of_the_pin_and_their_place_is_not(folder: Path) -> None:
    entry = {"image": "lamp.png", "conversations": says("<image>\nWhat is it?")}
    before = FileSource().card(FileSettings(**source(folder, entry))).pin
    assert FileSource().card(FileSettings(**source(folder, entry))).pin == before
    Pillow.new("RGB", (6, 5), KEY).save(folder / "lamp.png")
    after = FileSource().card(FileSettings(**source(folder, entry))).pin
    assert after != before
    moved = folder.rename(folder.with_name("moved"))
    assert FileSource().card(FileSettings(**source(moved, entry))).pin == after


def test_an_image_is_read_as_it_was_pinned_or_not_at_all(folder: Path) -> None:
    picture = folder / "deep" / "key.jpg"
    Pillow.effect_noise((64, 64), 50).save(picture)
    entry = {"image": "deep/key.jpg", "conversations": says("<image>\nWhat is it?")}
    (row,) = rows(folder, entry)
    found = images.read(row.turns[0].images[0])
    assert (found.mode, found.size) == ("RGB", (64, 64))
    assert not list(images.faults([row]))
    picture.write_bytes(picture.read_bytes()[:-400])
    assert "has changed since it was planned" in next(images.faults([row]))
    (row,) = rows(folder, entry)  # the head is whole
    assert next(images.faults([row])).startswith("row item-1: the image ")
    assert "cannot be decoded" in next(images.faults([row]))


def test_images_without_their_folder_are_refused_and_so_is_a_folder_without_images(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = source(folder, {"image": "lamp.png", "conversations": says("<image>\nWhat is it?")})
    with pytest.raises(ValueError, match=r"item 1: `image` names images: `file` reads them in the shape `llava`"):
        FileSource().rows(FileSettings(path=told["path"]))
    with pytest.raises(ValidationError, match="the shape `llava` needs `images`"):
        FileSettings(path=told["path"], shape="llava")
    with pytest.raises(ValidationError, match="`images` goes with the shape `llava`, not with `chat`"):
        FileSettings(**told, shape="chat")
    with pytest.raises(FileNotFoundError, match="none is no folder, and `images` names that of the images"):
        FileSource().rows(FileSettings(path=told["path"], images=str(folder / "none")))
    assert "images" not in HubDataSettings.model_fields
    monkeypatch.setattr(images, "find_spec", lambda _: None)
    os.utime(folder / "lamp.png", (1, 1))  # else the lamp, which was seen, would not be read again
    with pytest.raises(ValueError, match=r"images need Pillow, .*: `pip install 'dosimeter\[images\]'`"):
        FileSource().rows(FileSettings(**told, system="Be brief."))


def test_a_prompt_with_an_image_is_not_asked_without_it() -> None:
    turn = Turn("user", "What is it?", (Image("lamp.png", "0" * 64),))
    with pytest.raises(ValueError, match="a prompt has an image, and models on this machine are asked by text alone"):
        chat.prompt_text(None, [turn], None)
