"""What the page shows of single images, pairs of rows and ranks."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from store_helpers import stored
from table_helpers import FAIR as FOUND
from table_helpers import GOOD as BETTER
from table_helpers import only, put

from bench.inference.visualize import palette_png
from bench.report.comparison import compare
from bench.report.site.blocks import confusion_shares, image_scores, paired, thumbnails
from bench.store.maps import LabelMaps
from bench.store.store import Store

GOOD, FAIR, BAD = [[40, 0], [0, 40]], [[20, 20], [0, 40]], [[0, 40], [40, 0]]


def test_single_images_and_the_worst(tmp_path: Path) -> None:
    stored(tmp_path, "clip", "whu_aerial", [GOOD, BAD, FAIR, GOOD], metric="miou")
    found = image_scores(Store(tmp_path).cell("clip", "whu_aerial"))
    assert found["at"] == [0, 1, 2, 3]
    assert found["each"] == [100.0, 0.0, 58.3, 100.0]  # (20 / 40 + 40 / 60) / 2
    assert [value for _, value in found["worst"]] == [0.0, 58.3, 100.0, 100.0]


def test_confusion_in_shares_of_the_true_class(tmp_path: Path) -> None:
    stored(tmp_path, "clip", "whu_aerial", [FAIR, GOOD], metric="miou")
    assert confusion_shares(Store(tmp_path).cell("clip", "whu_aerial")) == [[75.0, 25.0], [0.0, 100.0]]


def test_thumbnails_are_of_kept_maps_alone(tmp_path: Path) -> None:
    stored(tmp_path, "clip", "whu_aerial", [GOOD, BAD], metric="miou")
    cell = Store(tmp_path).cell("clip", "whu_aerial")
    assert cell is not None
    assert thumbnails([cell]) == {}
    maps = LabelMaps.of(cell)
    maps.begin()
    maps.write(cell.ids[1], palette_png(np.ones((300, 150), np.uint8), [(0, 0, 0), (255, 0, 0)]))
    found = thumbnails([cell])["clip\twhu_aerial"]
    assert list(found) == [cell.ids[1]]
    picture = Image.open(io.BytesIO(base64.b64decode(found[cell.ids[1]].partition(",")[2])))
    assert picture.size == (48, 96) and picture.convert("RGB").getpixel((5, 5)) == (255, 0, 0)


def test_every_cell_gets_a_thumbnail_before_one_gets_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = []
    for row in ("clip", "sclip"):
        stored(tmp_path, row, "whu_aerial", [GOOD, BAD], metric="miou")
        cells.append(Store(tmp_path).cell(row, "whu_aerial"))
        maps = LabelMaps.of(cells[-1])
        maps.begin()
        for name in cells[-1].ids:
            noise = np.random.default_rng(0).integers(0, 2, (96, 96), dtype=np.uint8)
            maps.write(name, palette_png(noise, [(0, 0, 0), (255, 0, 0)]))
    picture = next(iter(thumbnails(cells)["clip\twhu_aerial"].values()))
    monkeypatch.setattr("bench.report.site.blocks.BUDGET", len(picture) + 1)  # spent by the second picture
    assert {key: list(pictures) for key, pictures in thumbnails(cells).items()} == {
        f"{cell.row}\twhu_aerial": [cell.ids[1]] for cell in cells
    }


def test_pairs_have_the_p_of_compare_and_holm_over_all_that_can_be_browsed(tmp_path: Path) -> None:
    scenes = {"vdd": 8, "udd5": 7, "inria": 3}
    for dataset, count in scenes.items():
        for row, image in (("clip", BETTER), ("gem", FOUND), ("sclip", FOUND)):
            put(tmp_path, row, dataset, [image] * (2 * count), demo=True)
    found = paired(only(tmp_path), ["clip", "gem", "sclip"], list(scenes))
    gain = round(100 * (100 / 140 - 80 / 160), 2)
    assert found["clip\tgem"]["vdd"] == [gain, gain, round(2 / 2**8, 5), round(6 * 2 / 2**8, 5)]
    assert found["clip\tgem"]["udd5"][2:] == [round(2 / 2**7, 5), round(4 * 2 / 2**7, 5)]
    assert found["clip\tgem"]["inria"] == [None] * 4
    assert found["gem\tsclip"]["vdd"] == [0, 0, 1, 1]
    (pair,) = compare(Store(tmp_path), "clip", "gem", ["udd5"]).pairs
    assert found["clip\tgem"]["udd5"][2] == round(pair.test.p_value, 5)


def test_rows_on_other_images_have_no_pair(tmp_path: Path) -> None:
    put(tmp_path, "clip", "vdd", [BETTER] * 12, demo=True)
    put(tmp_path, "gem", "vdd", [[[1, 2], [3, 4]]] * 12, demo=True)
    assert paired(only(tmp_path), ["clip", "gem"], ["vdd"]) == {}
