"""Tables from stored counts: per class, by threshold, by vocabulary, beside other papers."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from store_helpers import certain, opened, random_counts, settings, stored, the_cell, write
from table_helpers import as_configured

from bench.errors import BenchError
from bench.metrics import confusion_at, score
from bench.report.analysis import (
    others_table,
    per_class_table,
    rank_changes,
    removals,
    removed_classes,
    synonym_table,
    threshold_curve,
    threshold_table,
    vocabulary_table,
)
from bench.report.frames import tables
from bench.store.store import Store

pytestmark = pytest.mark.usefixtures("any_count")

GOOD = [[40, 0, 0], [0, 40, 0], [0, 0, 20]]
FAIR = [[20, 20, 0], [0, 40, 0], [10, 0, 10]]


def test_every_threshold_is_that_of_the_counts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write(store, 3, settings=settings(threshold=0.4))
    curve = threshold_curve(the_cell(store))
    for threshold in (0.0, 0.17, 0.4, 0.99):
        total = sum(confusion_at(*random_counts(i), 3, threshold, 0) for i in range(3))
        assert curve[round(100 * threshold)] == pytest.approx(float(score(np.asarray(total), "miou")))
    (line,) = threshold_table(store.cells()).to_dict("records")
    assert line["score"] == pytest.approx(100 * curve[40], abs=1e-4)
    assert line["upper_bound"] == pytest.approx(100 * curve.max(), abs=1e-4)
    assert line["best_threshold_by_labels"] == int(curve.argmax()) / 100


def test_a_class_that_a_threshold_removes_is_named(tmp_path: Path) -> None:
    for row, threshold in {"clip": 0.5, "sclip": 0.5, "gem": 0.0}.items():
        writer = opened(Store(tmp_path), 1, settings=settings(row, threshold=threshold))
        sure = dict(zip(*certain([[9, 0, 0], [0, 6, 0], [0, 0, 0]], 80), strict=True))
        unsure = dict(zip(*certain([[0, 0, 2], [0, 0, 0], [0, 0, 6]], 30), strict=True))
        keys, counts = zip(*sorted((sure | unsure).items()), strict=True)
        writer.add(0, np.array(keys, np.int32), np.array(counts))
        writer.finish()
    cells = {cell.row: cell for cell in Store(tmp_path).cells()}
    assert removed_classes(cells["gem"]) == {}
    assert removed_classes(cells["clip"]) == {"road": 6 / 8}  # the roof is sure, and what is never there is not lost
    assert removals(cells.values()) == [
        "loveda: road is never predicted at threshold 0.5 by clip (IoU at 0: 75.0), sclip (IoU at 0: 75.0)"
    ]


def test_per_class_numbers(tmp_path: Path) -> None:
    stored(tmp_path, "clip", "loveda", [GOOD, FAIR])
    table = per_class_table(Store(tmp_path).cells())
    assert list(table["class"]) == ["class0", "class1", "class2"]
    roof = table.iloc[1]
    assert roof.iou == pytest.approx(100 * 80 / 100) and roof.acc == 100.0
    assert roof.precision == pytest.approx(100 * 80 / 100) and np.isnan(roof.boundary_iou or np.nan)


def vocabularies(folder: Path, row: str, **confusions: list[list[list[int]]]) -> None:
    for vocabulary, images in confusions.items():
        name = row if vocabulary == "cvpr2025" else f"{row}[vocabulary={vocabulary}]"
        of = settings(name, "loveda", **{**as_configured(name, "loveda"), "method": row, "vocabulary": vocabulary})
        writer = opened(Store(folder), len(images), settings=of)
        for index, confusion in enumerate(images):
            writer.add(index, *certain(confusion))
        writer.finish()


def test_what_a_vocabulary_adds_is_paired(tmp_path: Path) -> None:
    vocabularies(tmp_path, "clip", cvpr2025=[FAIR, FAIR, GOOD, FAIR] * 3, plain=[GOOD] * 12)
    vocabularies(tmp_path, "sclip", cvpr2025=[GOOD, FAIR], plain=[FAIR, FAIR])
    vocabularies(tmp_path, "gem", cvpr2025=[FAIR, GOOD], plain=[FAIR, FAIR])
    vocabularies(tmp_path, "alone", cvpr2025=[GOOD, GOOD])
    table = vocabulary_table(Store(tmp_path).cells())
    assert set(table.row) == {"clip", "sclip", "gem"} and set(table.vocabulary) == {"cvpr2025", "plain"}
    clip = table[(table.row == "clip") & (table.vocabulary == "plain")].iloc[0]
    base = table[(table.row == "clip") & (table.vocabulary == "cvpr2025")].iloc[0]
    assert clip.adds == pytest.approx(clip.score - base.score) and clip.low <= clip.adds <= clip.high
    assert clip.background_iou == 100.0 and clip.without_background == 100.0
    assert (clip.unit, clip.units, clip.p) == ("scene", 6, 2 / 2**6) and clip.p_holm == clip.p  # the others: one scene
    assert np.isnan(base.adds) and table.p.notna().sum() == 1
    (order,) = rank_changes(Store(tmp_path).cells(), 50).to_dict("records")
    assert (order["first"], order["second"], order["rows"]) == ("cvpr2025", "plain", 3) and order["tau"] < 1
    assert np.isnan(order["low"])  # not on the same images


def test_the_order_of_rows_has_an_interval(tmp_path: Path) -> None:
    bad = [[0, 40, 0], [40, 0, 0], [20, 0, 0]]
    for row, plain in (("clip", GOOD), ("sclip", FAIR), ("gem", bad)):
        vocabularies(tmp_path, row, cvpr2025=[plain] * 18, plain=[plain] * 18)
    (order,) = rank_changes(Store(tmp_path).cells()).to_dict("records")
    assert (order["tau"], order["low"], order["high"]) == (1, 1, 1)  # p of 2 / 2**9 for each of the six pairs
    vocabularies(tmp_path, "clearclip", cvpr2025=[GOOD] * 18, plain=[bad] * 18)
    (order,) = rank_changes(Store(tmp_path).cells()).to_dict("records")
    # of six pairs three agree, sclip and clearclip change places, and two are equal under one of the vocabularies
    assert (order["low"], order["high"]) == (0, 0.667) and order["low"] <= order["tau"] <= order["high"]


def test_what_synonyms_add_by_class(tmp_path: Path) -> None:
    vocabularies(tmp_path, "clip", **{"cvpr2025": [GOOD, FAIR], "cvpr2025/first": [FAIR, FAIR], "plain": [FAIR, FAIR]})
    table = synonym_table(Store(tmp_path).cells())
    assert set(table.vocabulary) == {"cvpr2025"} and len(table) == 3
    first = table.iloc[0]
    assert first.adds == pytest.approx(first.iou - first.first_word_alone) and first.adds > 0
    assert (table.score_adds == first.score_adds).all()


def test_numbers_of_others_stand_beside_equal_words_only(tmp_path: Path) -> None:
    file = tmp_path / "others.csv"
    file.write_text(
        "# a comment\nsource,table,method,extra_models,backbone,vocabulary,dataset,metric,value,grade\n"
        "a,t,CLIP,,CLIP,cvpr2025,loveda,mIoU,10,primary\n"
        "a,t,CLIP,,CLIP,ov2,loveda,mIoU,11,primary\n"
        "a,t,CLIP,,CLIP,cvpr2025,loveda,mIoU,12,second-hand\n"
        "a,t,GSNet,trained,CLIP,unknown,loveda,mIoU,32.5,image\n"
        "a,t,GSNet,trained,CLIP,unknown,isaid,mIoU,53.7,image\n"
    )
    stored(tmp_path / "results", "clip", "loveda", [GOOD], info={"label": "CLIP"})
    found = others_table(Store(tmp_path / "results").cells(), file)
    assert found.measured.tolist()[0] == 100.0 and found.measured.isna().tolist() == [False, *4 * [True]]
    assert [bool(leak) for leak in found.leak] == [
        False,
        False,
        False,
        True,
        False,
    ] and "LandDiscover50K" in found.leak[3]


def test_the_files_are_written(tmp_path: Path) -> None:
    vocabularies(tmp_path, "clip", cvpr2025=[FAIR, FAIR], plain=[GOOD, GOOD])
    names = {file.name for file in tables(tmp_path, draws=20)}
    assert {"per_class.csv", "thresholds.csv", "threshold_curves.csv", "words.csv"} <= names
    curves = pd.read_csv(tmp_path / "tables" / "threshold_curves.csv")
    assert len(curves) == 200 and "words.csv" not in {f.name for f in tables(tmp_path, only=["1"], draws=20)}


def test_a_full_disk_leaves_all_tables_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def written() -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in (tmp_path / "tables").iterdir()}

    write(Store(tmp_path), 2)
    files, before = tables(tmp_path, draws=10), written()
    write(Store(tmp_path), 3)
    room = iter(range(len(files) // 2))

    def full(descriptor: int) -> None:
        if next(room, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(
            BenchError, match=r"tables: cannot be written \(No space left on device\); give another --out"
        ):
            tables(tmp_path, draws=10)
    assert written() == before
    tables(tmp_path, draws=10)
    assert written().keys() == before.keys() and written() != before
