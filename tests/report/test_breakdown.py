from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_helpers import certain, opened, settings
from table_helpers import put

from bench.metrics import score
from bench.report.breakdown import Breakdown, breakdown
from bench.store.result import StoredResult
from bench.store.store import Store

pytestmark = pytest.mark.usefixtures("any_count")

FIRST = [[[50, 0, 10], [0, 20, 0], [0, 0, 20]], [[10, 0, 0], [10, 30, 0], [0, 0, 50]]]
SECOND = [[[60, 0, 0], [10, 10, 0], [0, 0, 20]], [[10, 0, 0], [40, 0, 0], [0, 0, 50]]]


def cell(folder: Path, row: str, images: list[Any], **options: Any) -> StoredResult:
    put(folder, row, "udd5", images, **options)
    found = Store(folder).cell(row, "udd5")
    assert found is not None
    return found


def of(folder: Path) -> tuple[StoredResult, StoredResult, Breakdown]:
    first, second = cell(folder, "a", FIRST), cell(folder, "b", SECOND)
    return first, second, breakdown(first, second)


def test_what_the_classes_add_is_the_whole_difference(tmp_path: Path) -> None:
    first, second, found = of(tmp_path)
    whole = score(first.areas().total, "miou") - score(second.areas().total, "miou")
    assert (found.first, found.second, found.dataset, found.metric) == ("a", "b", "udd5", "miou")
    assert found.classes["adds"].sum() == pytest.approx(float(whole))
    (building,) = found.classes[found.classes["class"] == "class1"].to_dict("records")
    assert (building["labelled"], building["first"], building["second"]) == (60 / 200, 50 / 60, 10 / 60)
    assert building["adds"] == pytest.approx((50 / 60 - 10 / 60) / 3)
    assert np.isnan(found.classes["first"].iloc[-1]) and found.classes["adds"].iloc[-1] == 0  # neither has it


def test_images_come_by_gain(tmp_path: Path) -> None:
    *_, found = of(tmp_path)
    assert found.images["id"].tolist() == ["img001", "img000"]
    assert found.images["right"].tolist() == [pytest.approx(30 / 100), pytest.approx(0)]
    assert found.images["difference"].tolist() == (found.images["first"] - found.images["second"]).tolist()


def test_the_confusion_that_changed(tmp_path: Path) -> None:
    *_, found = of(tmp_path)
    lines = found.confusion[["label", "predicted", "first", "second", "of_all"]].values.tolist()
    assert lines == [
        ["class1", "class0", 10 / 60, 50 / 60, pytest.approx(-40 / 200)],
        ["class0", "class2", pytest.approx(10 / 70), 0, pytest.approx(10 / 200)],
    ]


def test_pixels_that_were_given_no_class_are_a_confusion(tmp_path: Path) -> None:
    whole, store = cell(tmp_path, "a", FIRST), Store(tmp_path)
    writer = opened(store, 2, settings=settings("b", "udd5", threshold=0.5, background=255), classes=whole.classes)
    padded = [np.pad(image, (0, len(whole.classes) - 3)).tolist() for image in FIRST]
    writer.add(0, *certain(padded[0], probability_bin=10))
    writer.add(1, *certain(padded[1]))
    writer.finish()
    unsure = store.cell("b", "udd5")
    assert unsure is not None
    found = breakdown(whole, unsure).confusion.set_index(["label", "predicted"])
    assert found.loc[("class0", "no class"), ["first", "second"]].tolist() == [0, pytest.approx(60 / 70)]


def test_rows_on_other_labels_are_refused(tmp_path: Path) -> None:
    first, other = cell(tmp_path, "a", FIRST), cell(tmp_path, "b", [FIRST[0], FIRST[0]])
    with pytest.raises(ValueError, match="a and b on udd5: other images, labels or metric"):
        breakdown(first, other)
