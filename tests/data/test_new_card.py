"""``bench datasets new``: what is found in folders of images and labels, and the card that comes of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import bench
from bench.cli import main
from bench.data.cards import load_card
from bench.data.check import check
from bench.data.new_card import find_pairs, new_card
from bench.data.samples import open_samples
from bench.data.schema import IndexRule
from bench.errors import BenchError

Array = NDArray[Any]
CLASSES = np.random.default_rng(0).integers(0, 3, (8, 10)).repeat(8, 0).repeat(8, 1)  # (64, 80)
COLOURS = np.array([[255, 0, 0], [0, 255, 0], [255, 255, 255]], np.uint8)


def save(file: Path, pixels: Array) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if pixels.dtype == np.uint16:
        cv2.imwrite(str(file), pixels)
    else:
        Image.fromarray(pixels).save(file)


def picture(kind: Any = np.uint8) -> Array:
    return np.random.default_rng(1).integers(0, np.iinfo(kind).max, (64, 80, 3), kind)


def values(*of_classes: int) -> Array:
    return np.array(of_classes, np.uint8)[CLASSES % len(of_classes)]


def palette_label(file: Path) -> None:
    image = Image.fromarray(CLASSES.astype(np.uint8), mode="P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)


def folders(root: Path) -> dict[str, Callable[[int], object]]:
    """Kinds of folders: writes the i-th pair of each."""
    return {
        "ids": lambda i: (
            save(root / f"images/t_{i}.png", picture()),
            save(root / f"labels/t_{i}.png", values(0, 17, 42)),
        ),
        "beside": lambda i: (save(root / f"x{i}.png", picture()), save(root / f"x{i}_mask.png", values(0, 255))),
        "before": lambda i: (save(root / f"{i}.png", picture()), save(root / f"gt_{i}.png", values(0, 1))),
        "affixes": lambda i: (save(root / f"{i}_sat.jpg", picture()), save(root / f"{i}_mask.png", COLOURS[CLASSES])),
        "parts": lambda i: (
            save(root / f"{'train' if i else 'val'}/img/{i}.JPG", picture()),
            save(root / f"{'train' if i else 'val'}/gt/{i}.tif", values(1, 2, 3)),
        ),
        "lossy": lambda i: (
            save(root / f"tiles and masks/image/{i}.png", picture()),
            save(root / f"tiles and masks/mask/{i}.jpg", values(0, 255)),
            save(root / f"tiles and masks/overlay/{i}.png", picture()),
        ),
        "palette": lambda i: (save(root / f"image/{i}.png", picture()), palette_label(root / f"label/{i}.png")),
        "deep": lambda i: (
            save(root / f"image/{i}.tif", picture(np.uint16)),
            save(root / f"label/{i}.tif", values(0, 1, 255)),
        ),
    }


EXPECTED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ids": ("images/{n}.png", "labels/{n}.png", {"rule": "index", "raw_ids": (0, 17, 42)}),
    "beside": ("{n}.png", "{n}_mask.png", {"rule": "threshold", "at": 128}),
    "before": ("{n}.png", "gt_{n}.png", {"rule": "index"}),
    "affixes": ("{n}_sat.jpg", "{n}_mask.png", {"rule": "palette"}),
    "parts": ("{part}/img/{n}.jpg", "{part}/gt/{n}.tif", {"rule": "index", "reduce_zero": True}),
    "lossy": ("tiles and masks/image/{n}.png", "tiles and masks/mask/{n}.jpg", {"rule": "threshold", "at": 128}),
    "palette": ("image/{n}.png", "label/{n}.png", {"rule": "index"}),
    "deep": ("image/{n}.tif", "label/{n}.tif", {"rule": "index"}),
}


@pytest.mark.parametrize("kind", EXPECTED)
def test_a_card_is_written_that_check_finds_fine(kind: str, tmp_path: Path) -> None:
    write = folders(tmp_path / "town")[kind]
    for number in range(3):
        write(number)
    card, found = new_card("town", tmp_path / "cards", tmp_path / "town", tmp_path)
    assert card == load_card("town", [tmp_path / "cards"])
    layout = card.layouts["original"]
    assert (layout.image, layout.label) == EXPECTED[kind][:2]
    assert layout.labels.model_dump(exclude_defaults=True) | {"rule": layout.labels.rule} == {
        key: value for key, value in EXPECTED[kind][2].items() if (key, value) != ("at", 128)
    }
    assert card.folders == ("town",) and card.expected_count == 3 and found.sizes == {"80x64": 3}
    assert [text.split("`")[1] for text in found.assumed()] == (["stretch"] if kind == "deep" else [])
    count = len(card.classes)
    assert count == (2 if kind in ("beside", "before", "lossy", "deep") else 3)
    samples = open_samples(card, tmp_path)
    order = [1, 0, 2] if kind == "affixes" else range(count)  # colours are sorted
    wanted = np.array(order)[CLASSES % count] if kind != "deep" else np.array([0, 1, 255])[CLASSES]
    np.testing.assert_array_equal(samples.read(0).label, wanted)
    report = check(card, tmp_path)
    assert report.healthy
    assert [problem.what for problem in report.problems if "class_0" in problem.what]  # to be named
    if kind == "palette":
        assert card.palette == ((0, 0, 0), (255, 0, 0), (0, 0, 255))


def test_the_command_writes_a_card_with_names_that_run_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        save(tmp_path / f"tiles/images/{number}.png", picture())
        save(tmp_path / f"tiles/labels/{number}.png", values(0, 17, 42))
    save(tmp_path / "tiles/images/alone.png", picture())
    words = ["--classes", "background; building, house", "--ignore", "0"]
    assert main(["datasets", "new", "mytown", "tiles", *words]) == 0
    shown = capsys.readouterr().out
    assert "cards/mytown.yaml: 2 images" in shown and "ignored" in shown
    assert "note: `split`: images without a label are left out (1)" in shown and "`bands`" not in shown
    assert f"python -m bench datasets check mytown --cards {Path('cards')}" in shown
    card = load_card("mytown", [Path("cards")])
    assert card.classes == ("background", "building") and card.vocabularies["cvpr2025"][1] == ("building", "house")
    assert card.folders == (str(tmp_path / "tiles"),)  # not below the data root
    assert card.split is not None and set(card.split.names) == {"0", "1"}
    assert main(["datasets", "check", "mytown", "--cards", "cards"]) == 0
    assert "mytown: fine" in capsys.readouterr().out
    ran = bench.run("clip", "mytown", cards="cards", backbone="demo", device="cpu", results="r", workers=0)
    with pytest.raises(BenchError, match=r"--demo has no dataset 'mytown'; leave --demo out; `--backbone demo` runs"):
        bench.run("clip", "mytown", cards="cards", demo=True)
    assert ran.failures == () and ran.scores.images.item() == 2


MISTAKES: dict[str, dict[str, Any]] = {
    "My Town: names of datasets": {"name": "My Town"},
    r"\.\./town: names of datasets": {"name": "../town"},
    "x: names of datasets are made of at most 64": {"name": "x" * 300},
    "two classes are called 'a'": {"classes": [["a"], ["a", "b"]]},
    "loveda: there is a card of that name; give another": {"name": "loveda"},
    r"town: there is a card of that name; give another, or remove .*town\.yaml": {"name": "town", "written": True},
    "nowhere: no such folder": {"folder": "nowhere"},
    r"--classes names 3 classes, the labels hold 2 values: 0 \(.*%\), 1": {"classes": [["a"], ["b"], ["c"]]},
    "--ignore 7: the labels hold 0, 1": {"ignored": ["7"]},
    "the labels hold 0, 1: fewer than two classes": {"ignored": ["1"]},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_named(message: str, tmp_path: Path) -> None:
    case: dict[str, Any] = {"name": "town", "folder": "tiles", "written": False, **MISTAKES[message]}
    save(tmp_path / "tiles/images/a.png", picture())
    save(tmp_path / "tiles/labels/a.png", values(0, 1))
    if case.pop("written"):
        (tmp_path / "town.yaml").write_text("")
    with pytest.raises(BenchError, match=message):
        new_card(case.pop("name"), tmp_path, tmp_path / case.pop("folder"), tmp_path, **case)


def test_shades_of_grey_are_not_listed_one_by_one(tmp_path: Path) -> None:
    """As of masks saved with loss, which hold up to 256 values."""
    save(tmp_path / "tiles/images/a.png", picture())
    save(tmp_path / "tiles/labels/a.png", (np.arange(CLASSES.size) % 200).reshape(CLASSES.shape).astype(np.uint8))
    with pytest.raises(BenchError, match=r"hold 200 values: 0 .* and 192 more; .* without shades of grey$") as said:
        new_card("town", tmp_path, tmp_path / "tiles", tmp_path, [["a"], ["b"]])
    assert len(str(said.value)) < 300


def test_folders_without_labels_are_named(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / f"images/{number}.png", picture())
    with pytest.raises(BenchError, match="3 images, but no two of one name"):
        find_pairs(tmp_path)
    save(tmp_path / "other/0.png", picture())
    with pytest.raises(BenchError, match="both hold pictures: "):
        find_pairs(tmp_path)


def test_a_card_that_lacks_something_says_all_of_it(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\nlayouts: {original: {image: '{n}.png'}}\n")
    with pytest.raises(BenchError, match=r"mine\.yaml: lacks classes, vocabularies, layouts\.original\.label; `bench"):
        load_card("mine", [tmp_path])


def test_check_says_what_the_card_lacks_and_says_it_once(tmp_path: Path) -> None:
    for number in range(9):
        save(tmp_path / f"town/images/{number}.png", picture())
        save(tmp_path / f"town/labels/{number}.png", values(0, 17, 42))
    card, _ = new_card("town", tmp_path / "cards", tmp_path / "town", tmp_path, [["a"], ["b"]], ["0"])
    plain = card.layouts["original"].model_copy(update={"labels": IndexRule()})
    text = card.model_copy(update={"layouts": {"original": plain}}).model_dump_json(exclude_defaults=True)
    (tmp_path / "cards" / "town.yaml").write_text(text)
    (error,) = [
        one for one in check(load_card("town", [tmp_path / "cards"]), tmp_path).problems if one.severity == "error"
    ]
    assert error.what == (
        "labels hold 0, 17, 42, the card has 2 classes, numbered from 0: if 17, 42 are the classes, write "
        "`labels: {raw_ids: [17, 42]}`, others are ignored"
    )
    assert error.advice == "correct that, then check again"
