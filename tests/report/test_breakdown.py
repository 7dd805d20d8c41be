from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from project import Project
from store_helpers import certain, opened, settings
from table_helpers import put

from bench.cli import main
from bench.data.cards import load_card
from bench.data.prepared import find_samples
from bench.errors import BenchError
from bench.metrics import score
from bench.report.breakdown import Breakdown, breakdown, object_breakdown, object_counts
from bench.report.site.blocks import objects
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


def test_why_is_printed_with_objects_where_label_maps_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, results = Project(tmp_path).data, tmp_path / "results"
    samples, where = find_samples(load_card("loveda"), data), ["--results", str(results)]
    for seed, row in enumerate("ab"):
        (tmp_path / row).mkdir()
        for index, name in enumerate(samples.ids):
            label = samples.read(index).label
            guess = np.random.default_rng([seed, index]).integers(0, 7, label.shape)
            Image.fromarray(np.where(label < 4, label, guess).astype(np.uint8)).save(tmp_path / row / f"{name}.png")
        flags = ["--dataset", "loveda", "--row", row, "--data-root", str(data), *where]
        assert main(["score", str(tmp_path / row), *flags]) == 0
    store = Store(results)
    (store.place("b", "loveda") / f"predictions/{samples.ids[0]}.png").unlink()
    first, second = (store.cell(row, "loveda") for row in "ab")
    assert first is not None and second is not None
    found = object_breakdown(first, second, samples)
    assert found is not None and found.images == (2, 3)
    some = object_counts([first, second], samples, most=1)
    assert some is not None and some.images == (1, 3)
    of_page = objects([first, second], lambda name: samples)["loveda"]
    assert of_page["images"] == (2, 3) and of_page["sizes"]["names"] == found.sizes["size"].tolist()
    pixels = {key: np.array(of)[:, 1] for key, of in of_page["sizes"]["of"].items()}
    assert (pixels["a"] / pixels["all"]).tolist() == pytest.approx(found.sizes["first"].tolist(), nan_ok=True)
    assert (np.array(of_page["distances"]["of"]["b"]) <= np.array(of_page["distances"]["of"]["all"])).all()
    assert objects([first, second], lambda name: None) == {}
    areas = first.areas().stack[1:].sum(0)
    for frame in (found.sizes, found.distances):
        assert frame["of_all"].sum() == pytest.approx(1)
        assert (frame["first"].fillna(0) * frame["of_all"]).sum() == pytest.approx(areas[0].sum() / areas[1].sum())
    capsys.readouterr()
    assert main(["compare", "a", "b", "--why", "--data-root", str(data), *where]) == 0
    shown = capsys.readouterr().out
    assert "By class: IoU." in shown and "| below 32² " in shown and "on the 2 of 3 images" in shown
    asked = f"a b --results {results} --data-root {data}"
    assert f"Pictures: python -m bench figure loveda --gains {asked} -o gains.png" in shown
    assert main(["compare", "a", "b", "--why", "--data-root", str(tmp_path), *where]) == 0
    assert "`run --save-predictions` and `score` keep" in capsys.readouterr().out
    assert main(["compare", "a", "b", "--why", "--data-root", "nowhere", *where]) == 2
    assert "--data-root nowhere: no such folder" in capsys.readouterr().err
    assert main(["compare", "a", "--why", *where]) == 2
    assert "--why: takes two rows" in capsys.readouterr().err
    for pair in map(samples.pair, range(3)):  # other labels of the same sizes
        assert pair is not None
        file = pair.label.on_disk
        with Image.open(file) as picture:
            turned = np.rot90(np.asarray(picture), 2)
        Image.fromarray(np.where(turned == turned.max(), turned.min(), turned)).save(file)
    with pytest.raises(BenchError, match="is not the one that was counted; give the folder of the run"):
        object_breakdown(first, second, find_samples(load_card("loveda"), data))
