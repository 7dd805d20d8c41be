"""What the page shows of single images, confusion and pairs of rows."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
from store_helpers import stored
from table_helpers import FAIR as FOUND
from table_helpers import GOOD as BETTER
from table_helpers import only, put

from bench.report.comparison import compare
from bench.report.site.blocks import NO_SCORE, confusion_shares, image_scores, paired
from bench.store.store import Store

GOOD, FAIR, BAD = [[40, 0], [0, 40]], [[20, 20], [0, 40]], [[0, 40], [40, 0]]


def test_scores_of_single_images_by_their_index(tmp_path: Path) -> None:
    stored(tmp_path, "clip", "whu_aerial", [GOOD, BAD, FAIR, [[0, 0], [0, 0]]], metric="miou")
    found = np.frombuffer(base64.b64decode(image_scores(Store(tmp_path).cell("clip", "whu_aerial"))), "<u2")
    assert found.tolist() == [10_000, 0, 5833, NO_SCORE]  # (20 / 40 + 40 / 60) / 2


def test_confusion_in_shares_of_the_true_class(tmp_path: Path) -> None:
    stored(tmp_path, "clip", "whu_aerial", [FAIR, GOOD], metric="miou")
    assert confusion_shares(Store(tmp_path).cell("clip", "whu_aerial")) == [[75.0, 25.0], [0.0, 100.0]]
    changes = {"threshold": 0.5, "background": 255}
    stored(tmp_path, "gem", "whu_aerial", [FAIR], metric="miou", changes=changes)
    assert confusion_shares(Store(tmp_path).cell("gem", "whu_aerial")) == [[50.0, 50.0, 0.0], [0.0, 100.0, 0.0]]


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
