"""What the page shows of single images, pairs of rows and ranks."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from store_helpers import stored

from bench.inference.visualize import palette_png
from bench.metrics.bootstrap import Draws
from bench.report.site.blocks import confusion_shares, image_scores, mean_ranks, paired, thumbnails
from bench.store.maps import LabelMaps
from bench.store.store import Store

GOOD, FAIR, BAD = [[40, 0], [0, 40]], [[20, 20], [0, 40]], [[0, 40], [40, 0]]


def draws(values: list[float], resample: tuple[int, int] = (0, 0)) -> Draws:
    return Draws(float(np.mean(values)), np.array(values), "image", 4, resample)


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


def test_paired_intervals_by_hand() -> None:
    spread = [0.1 * number for number in range(10)]
    two = {
        ("a", "x"): draws([value + 0.2 for value in spread]),
        ("b", "x"): draws(spread),
        ("a", "y"): draws([0.5, 0.7] * 5),
        ("b", "y"): draws([0.7, 0.5] * 5),
        ("a", "z"): draws(spread, (0, 1)),
        ("b", "z"): draws(spread, (0, 2)),  # other images
    }
    found = paired(two, ["a", "b"], ["x", "y", "z"])["a\tb"]
    assert found["x"] == [20.0, 20.0, 0.2]  # never on the other side of 0 in ten draws: 1/10, times two datasets
    low, high, p = found["y"]
    assert (low, high, p) == (-20.0, 20.0, 1.0)
    assert "z" not in found


def test_mean_ranks_and_the_critical_difference_of_the_literature() -> None:
    """Demšar 2006, Table 5a: q is 2.569 for four rows; with 14 datasets the critical difference is 1.25."""
    generator = np.random.default_rng(0)
    values = {name: list(generator.random(14)) for name in "abcd"}
    values["a"] = [2.0] * 14  # always first
    found = mean_ranks(values)
    assert found is not None and found["critical"] == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 14)), abs=2e-3)
    assert found["ranks"]["a"] == 1.0 and sum(found["ranks"].values()) == pytest.approx(10, abs=0.01)
    assert mean_ranks({"a": [1.0, 2.0]}) is None and mean_ranks({"a": [1.0], "b": [2.0]}) is None
