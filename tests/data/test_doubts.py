"""Labels and images that can be read but are wrong: what `datasets check` says of them, and what it does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from data_helpers import small
from PIL import Image

from bench.cli import main
from bench.data.cards import Card, load_card
from bench.data.check import check
from bench.data.doubts import keep_shares, known_shares
from bench.data.prepare import prepare
from bench.data.samples import open_samples
from bench.data.sheet import sheet
from bench.demo.writers import write_dataset

Scenes: TypeAlias = list[tuple[np.ndarray, np.ndarray]]
COLOURS = {"plants": (70, 110, 60), "soil": (150, 120, 90), "else": (120, 120, 125)}
KIND = {"tree": "plants", "low_vegetation": "plants", "forest": "plants", "grass": "plants", "barren": "soil"}


def painted(
    card: Card, shares: dict[str, float], count: int = 8, size: int = 66
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Scenes in which classes have these shares, in the colours that they have from above."""
    rng = np.random.default_rng(0)
    names = [*shares]
    found = []
    for _ in range(count):
        drawn = rng.choice(len(names), (size, size), p=[*shares.values()])
        label = np.array([card.classes.index(name) for name in names], np.uint8)[drawn]
        image = np.array([COLOURS[KIND.get(name, "else")] for name in names], np.uint8)[drawn]
        found.append((image, label))
    return found


def warned(card: Card, root: Path) -> list[str]:
    return [one.what for one in check(card, root).problems if one.advice.startswith("look at `bench datasets show")]


GROUND = {"impervious_surface": 0.3, "building": 0.25, "low_vegetation": 0.25, "tree": 0.15}


def same(pixels: np.ndarray) -> np.ndarray:
    return pixels


def potsdam(root: Path, change: Callable[[np.ndarray], np.ndarray] = same, what: str = "label") -> Card:
    card = small("potsdam").model_copy(update={"expected_count": None})
    folder = write_dataset(card, root, painted(card, {**GROUND, "car": 0.02, "clutter": 0.03}))
    for file in folder.rglob(f"*_{what}*.tif"):
        Image.fromarray(change(np.asarray(Image.open(file)))).save(file)
    return card


def test_a_right_copy_raises_no_doubt(tmp_path: Path) -> None:
    assert warned(potsdam(tmp_path), tmp_path) == []


def test_red_and_blue_of_labels_and_of_images(tmp_path: Path) -> None:
    (doubt,) = warned(potsdam(tmp_path / "a", lambda pixels: pixels[..., ::-1]), tmp_path / "a")
    assert doubt == "car covers 25% of the pixels: it seems that red and blue of the labels are exchanged"
    card = load_card("loveda").model_copy(update={"expected_count": None})
    shares = {"background": 0.4, "barren": 0.3, "forest": 0.3}
    write_dataset(card, tmp_path, [(image[..., ::-1], label) for image, label in painted(card, shares, size=80)])
    (doubt,) = warned(card, tmp_path)
    assert doubt.startswith("bare soil is blue: red and blue of the images")


@pytest.mark.parametrize(("order", "colour"), [((1, 0, 2), "red"), ((2, 0, 1), "blue")])
def test_near_infrared_that_is_shown(tmp_path: Path, order: tuple[int, ...], colour: str) -> None:
    def shown(pixels: np.ndarray) -> np.ndarray:
        return (pixels[..., list(order)] * [1.5 if band == 1 else 0.6 for band in order]).clip(0, 255).astype(np.uint8)

    card = potsdam(tmp_path, shown, "RGB")
    assert any(doubt.startswith(f"vegetation is {colour}") for doubt in warned(card, tmp_path))


def test_an_inverted_mask(tmp_path: Path) -> None:
    card = load_card("deepglobe_road").model_copy(update={"expected_count": None})
    write_dataset(card, tmp_path, painted(card, {"background": 0.06, "road": 0.94}))
    assert warned(card, tmp_path) == ["road covers 94% of the pixels: the mask seems to be inverted"]


def test_files_of_another_split(tmp_path: Path) -> None:
    card = load_card("loveda")
    folder = write_dataset(card, tmp_path, painted(card, {"background": 0.5, "road": 0.5}, 2))
    assert warned(card, tmp_path) == []
    for file in [*folder.rglob("2522.png")]:
        file.rename(file.with_name("17.png"))
    assert warned(card, tmp_path) == [
        "1 of 2 samples, such as 17, are not numbered 2522 to 4190: files of another split"
    ]


def test_a_turned_image(tmp_path: Path) -> None:
    card = load_card("udd5")
    folder = write_dataset(card, tmp_path, painted(card, {"road": 0.5, "building": 0.5}, 2))
    exif = Image.Exif()
    exif[0x0112] = 3
    file = next(folder.rglob("*.JPG"))
    Image.open(file).save(file, exif=exif)
    assert warned(card, tmp_path) == [f"{file}: is turned when it is read (EXIF orientation 3), and its label is not"]


def test_colours_that_stand_for_no_class_are_counted(tmp_path: Path) -> None:
    def spoil(pixels: np.ndarray) -> np.ndarray:
        changed = pixels.copy()
        changed[:1] = 7
        return changed

    (doubt,) = warned(potsdam(tmp_path, spoil), tmp_path)
    assert doubt == "1.5% of the pixels of 8 labels have colours that stand for no class, and are ignored"


def test_numbers_that_were_permuted_under_the_same_colours(tmp_path: Path) -> None:
    card = load_card("loveda").model_copy(update={"expected_count": None})
    folder = write_dataset(card, tmp_path, painted(card, {"building": 0.5, "road": 0.5}, 2))
    for order in (range(7), (0, 2, 1, 3, 4, 5, 6)):
        for file in folder.rglob("masks_png/*.png"):
            label = Image.fromarray(np.asarray(Image.open(file)), "P")
            label.putpalette([0, 0, 0, *(value for k in order for value in card.palette[k])])
            label.save(file)
        told = warned(card, tmp_path)
        assert bool(told) == (order != range(7))
    assert "its palette shows building in the colour of road" in told[0] or "road in the colour of building" in told[0]


def test_shares_of_the_real_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVSS_BENCH_CACHE", str(tmp_path / "cache"))
    shares = {"background": 0.1, "building": 0.1, "road": 0.1, "water": 0.7}
    card = load_card("loveda").model_copy(update={"expected_count": None})
    assert known_shares(card) is None
    file = keep_shares(card, [10, 10, 10, 70, 0, 0, 0])
    assert file is not None and file.read_text() == "shares: [10.0, 10.0, 10.0, 70.0, 0.0, 0.0, 0.0]\n"
    assert keep_shares(card, [100, 0, 0, 0, 0, 0, 0]) is None
    write_dataset(card, tmp_path / "right", painted(card, shares))
    assert warned(card, tmp_path / "right") == []
    write_dataset(card, tmp_path / "wrong", painted(card, {**shares, "building": 0.7, "water": 0.1}))
    (doubt,) = warned(card, tmp_path / "wrong")
    assert doubt.endswith("building and water seem to be exchanged")
    others = card.model_copy(update={"shares": (1.0, 1.0, 1.0, 1.0, 32.0, 32.0, 32.0)})
    (doubt,) = warned(others, tmp_path / "right")
    assert doubt.endswith("labels of another set, split or numbering")


def test_a_page_to_look_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = load_card("loveda")
    write_dataset(card, tmp_path, painted(card, {"background": 0.5, "road": 0.5}, 3))
    page = tmp_path / "page.html"
    assert main(["datasets", "show", "loveda", "--data-root", str(tmp_path), "--out", str(page)]) == 0
    assert f"{page}: images of loveda" in capsys.readouterr().out
    text = page.read_text()
    assert text.count("<img ") == 6 and "<td>2 road<td>5" in text and "2523" in text
    next((tmp_path / "LoveDA").rglob("images_png/2523.png")).write_bytes(b"x")
    assert sheet(open_samples(card, tmp_path)).count("<img ") == 4
    next((tmp_path / "LoveDA").rglob("images_png/2523.png")).unlink()
    next((tmp_path / "LoveDA").rglob("masks_png/2523.png")).unlink()
    prepare(card, None, tmp_path)
    assert warned(card, tmp_path) == []
