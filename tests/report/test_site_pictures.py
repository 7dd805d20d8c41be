"""Pictures of the page: which images have some, what they show, and where they are kept."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from store_helpers import certain, settings, spec, stored

from bench.data.cards import load_card
from bench.data.prepared import find_samples
from bench.demo.datasets import write_demo
from bench.inference.visualize import palette_png
from bench.report.frames import html_report
from bench.report.site.blocks import objects
from bench.report.site.pictures import SIDE, Pictures, pictures
from bench.store.maps import LabelMaps
from bench.store.result import StoredResult
from bench.store.store import Store

GOOD, FAIR, BAD = [[40, 0], [0, 40]], [[20, 20], [0, 40]], [[0, 40], [40, 0]]
PALETTE = [(0, 0, 0), (255, 0, 0)]
NAMES = ["img000", "img001", "img002"]


def cell_with_maps(folder: Path, row: str, images: list[list[list[int]]], names: list[str]) -> StoredResult:
    stored(folder, row, "whu_aerial", images, metric="miou")
    cell = Store(folder).cell(row, "whu_aerial")
    assert cell is not None
    maps = LabelMaps.of(cell)
    maps.begin()
    for name in names:
        value = NAMES.index(name) % 2
        maps.write(name, palette_png(np.full((320, 160), value, np.uint8), PALETTE))
    return cell


def opened(found: Pictures, name: str) -> Image.Image:
    return Image.open(io.BytesIO(found.files[name]))


def test_pictures_are_of_kept_maps_alone(tmp_path: Path) -> None:
    bare = cell_with_maps(tmp_path, "gem", [GOOD, BAD, FAIR], [])
    assert pictures([bare], lambda name: None).files == {}
    found = pictures([cell_with_maps(tmp_path, "clip", [GOOD, BAD, FAIR], NAMES[1:2])], lambda name: None)
    assert found.shown.keys() == {"whu_aerial"} and found.shown["whu_aerial"].keys() == {1}
    picture = opened(found, found.shown["whu_aerial"][1]["maps"]["clip"])
    assert picture.size == (SIDE // 2, SIDE) and picture.convert("RGB").getpixel((5, 5)) == (255, 0, 0)


def test_images_on_which_rows_differ_and_bad_ones_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"clip": [BAD, FAIR, GOOD], "sclip": [BAD, FAIR, BAD]}
    cells = [cell_with_maps(tmp_path, row, images, NAMES) for row, images in rows.items()]
    monkeypatch.setattr("bench.report.site.pictures.MOST", 2)
    shown = pictures(cells, lambda name: None).shown["whu_aerial"]
    assert list(shown) == [2, 0]  # the one is good in one row and bad in the other, the other is bad in both
    assert shown[2]["maps"].keys() == {"clip", "sclip"}


def test_image_and_label_stand_beside_the_maps(tmp_path: Path) -> None:
    write_demo(tmp_path / "data", ["whu_aerial"])
    samples = find_samples(load_card("whu_aerial"), tmp_path / "data")
    store, last = Store(tmp_path), len(samples) - 1
    known = spec(len(samples), settings=settings("clip", "whu_aerial"), classes=samples.card.classes)
    names = ["another file", *samples.ids[1:]]  # the first is none of the data
    writer = store.open(replace(known, images=[(name, None) for name in names]))
    for index in range(len(samples)):
        writer.add(index, *certain(GOOD))
    writer.finish()
    cell = store.cell("clip", "whu_aerial")
    assert cell is not None
    maps = LabelMaps.of(cell)
    maps.begin()
    for name in names:
        maps.write(name, palette_png(np.zeros((8, 8), np.uint8), PALETTE))
    found = pictures([cell], lambda name: samples)
    shown = found.shown["whu_aerial"]
    assert shown[0].keys() == {"maps"} and last > 0
    assert shown[last].keys() == {"maps", "image", "label"}
    assert objects([cell], lambda name: samples) == {}  # counted on other labels
    sample = samples.read(last)
    label = opened(found, shown[last]["label"])
    assert label.size == (SIDE, SIDE)
    counts = {tuple(colour): count for count, colour in label.getcolors()}
    for number, colour in enumerate(samples.card.colours):
        assert counts.get(colour, 0) / SIDE**2 == pytest.approx(float((sample.label == number).mean()), abs=0.02)
    image = np.asarray(opened(found, shown[last]["image"]).convert("RGB"), float)
    assert abs(image.mean() - sample.image.mean()) < 3  # small, and as JPEG


def test_where_there_are_many_they_are_files_beside_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell_with_maps(tmp_path, "clip", [GOOD, BAD, FAIR], NAMES)
    page, beside = tmp_path / "p.html", tmp_path / "p_pictures"
    assert "data:image/png;base64," in html_report(tmp_path, page, draws=10).read_text() and not beside.exists()
    monkeypatch.setattr("bench.report.site.pictures.INSIDE", 10)
    text = html_report(tmp_path, page, draws=10).read_text()
    names = [file.name for file in beside.iterdir()]
    assert len(names) == 2 and all(re.search(name, text) for name in names) and "data:image" not in text
    (beside / "0123456789abcdef.png").touch()  # of an earlier page
    (beside / "mine.png").touch()
    html_report(tmp_path, page, draws=10)
    assert sorted(file.name for file in beside.iterdir()) == sorted([*names, "mine.png"])
    (beside / "mine.png").unlink()
    monkeypatch.undo()
    html_report(tmp_path, page, draws=10)
    assert not beside.exists()
