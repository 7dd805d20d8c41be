from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from store_helpers import (
    CLASSES,
    INPUTS,
    certain,
    counts_file,
    edit,
    full_disk,
    names,
    opened,
    random_counts,
    record,
    settings,
    spec,
    the_cell,
    write,
)

from bench.errors import BenchError
from bench.metrics import confusion_at, mean_iou, summary
from bench.metrics.boundary import boundary_iou
from bench.runtime.checksum import sealed
from bench.settings import Settings
from bench.store.count_table import ImageCounts
from bench.store.history import changes_for_recount, setting_changes
from bench.store.record import SCORING, Cost
from bench.store.store import Store, limits

ROOT = Path(__file__).resolve().parent.parent.parent


# ---------------------------------------------------------------------------------------- what comes back


def test_counts_come_back_as_they_were_added(tmp_path: Path) -> None:
    store = Store(tmp_path)
    writer = opened(store, 3)
    for index in (2, 0, 1):  # any order
        writer.add(index, *random_counts(index))
    writer.finish(seconds=3.0, peak_memory=1000)
    cell = the_cell(store)
    assert (cell.status, cell.reason, cell.total) == ("ok", None, 3)
    assert cell.indices == [0, 1, 2]
    assert cell.ids == ["img000", "img001", "img002"]
    assert cell.scenes == ["scene0", "scene0", "scene1"]
    expected = [confusion_at(*random_counts(i), 3, 0.0, 0) for i in range(3)]
    np.testing.assert_array_equal(cell.confusion(), expected)
    assert cell.record.cost == Cost(images=3, seconds=3.0, peak_memory_bytes=1000)
    assert cell.classes == CLASSES


def test_every_threshold_is_applied_to_the_stored_counts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write(store, 2, settings=settings(threshold=0.4))
    cell = the_cell(store)
    for threshold in (0.0, 0.4, 0.99):
        expected = [confusion_at(*random_counts(i), 3, threshold, 0) for i in range(2)]
        np.testing.assert_array_equal(cell.confusion(threshold), expected)
    np.testing.assert_array_equal(cell.confusion(), cell.confusion(0.4))


def test_numbers_of_cell_json_follow_from_the_counts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    writer = opened(store, 2)
    writer.add(0, *certain([[6, 2, 0], [0, 4, 0], [0, 0, 0]]))
    writer.add(1, *certain([[2, 0, 0], [2, 2, 0], [0, 0, 0]]))
    writer.finish()
    metrics = record(tmp_path)["metrics"]
    assert isinstance(metrics, dict)
    # background: 8 of 8 + 2 + 2, roof: 6 of 6 + 2 + 2, road: nowhere, so null and out of the mean
    assert metrics["iou"] == [8 / 12, 6 / 10, None]
    assert metrics["miou"] == metrics["score"] == pytest.approx((8 / 12 + 6 / 10) / 2)
    assert mean_iou(the_cell(store).confusion().sum(0)) == metrics["score"]
    assert metrics.keys() == summary(the_cell(store).confusion(), "miou").keys()


def test_boundary_counts_are_kept_and_asked_for_again_when_missing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write(store, 2)
    assert the_cell(store).boundary() is None
    writer = opened(store, 2, boundary=True)
    assert writer.done == set()
    counts = [np.array([[1, 4], [2, 2], [0, 0]]), np.array([[1, 4], [0, 2], [0, 0]])]
    for index in range(2):
        writer.add(index, *random_counts(index), counts[index])
    writer.finish()
    np.testing.assert_array_equal(the_cell(store).boundary(), counts)
    assert opened(store, 2, boundary=True).done == {0, 1}
    metrics = record(tmp_path)["metrics"]
    opened(store, 2, boundary=True).finish()
    metrics = record(tmp_path)["metrics"]
    assert isinstance(metrics, dict)
    assert metrics["boundary_iou"] == [0.25, 0.5, None]
    assert metrics["mean_boundary_iou"] == 0.375
    assert boundary_iou(sum(counts))[1] == 0.5


def test_boundary_counts_belong_to_a_threshold(tmp_path: Path) -> None:
    store = Store(tmp_path)
    writer = opened(store, 1, boundary=True)
    writer.add(0, *random_counts(0), np.array([[1, 4], [2, 2], [0, 0]]))
    writer.finish()
    opened(store, 1, settings=settings(threshold=0.5)).finish()
    assert the_cell(store).boundary() is None
    assert opened(store, 1, settings=settings(threshold=0.5), boundary=True).done == set()
    assert opened(store, 1, settings=settings(threshold=0.5)).done == {0}


def test_limited_results_lie_apart(tmp_path: Path) -> None:
    write(Store(tmp_path, limit=2), 2)
    assert Store(tmp_path).cells() == []
    cell = the_cell(Store(tmp_path, limit=2))
    assert (cell.status, cell.record.limit) == ("ok", 2)
    assert limits(tmp_path) == [2]


def test_demo_results_never_replace_real_ones(tmp_path: Path) -> None:
    write(Store(tmp_path), 6)
    with pytest.raises(BenchError, match=r"holds results of real data for sclip on loveda.*--results"):
        opened(Store(tmp_path, demo=True))


def test_cells_lists_all_in_order(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for row, dataset in [("sclip+ours", "udd5"), ("sclip@clip-vit-b32", "loveda"), ("a/b", "loveda")]:
        write(store, 1, settings=settings(row, dataset))
    assert [(c.dataset, c.row) for c in store.cells()] == [
        ("loveda", "a/b"),
        ("loveda", "sclip@clip-vit-b32"),
        ("udd5", "sclip+ours"),
    ]


def test_folders_of_two_machines_merge_by_copying(tmp_path: Path) -> None:
    write(Store(tmp_path / "a"), 6, settings=settings("sclip"))
    write(Store(tmp_path / "b"), 6, settings=settings("gem"))
    shutil.copytree(tmp_path / "b", tmp_path / "a", dirs_exist_ok=True)
    assert [cell.status for cell in Store(tmp_path / "a").cells()] == ["ok", "ok"]


@pytest.mark.parametrize("content", ['{"settings": {}}', "", "{", '{"format": 99}', "null", "\xff"])
def test_a_damaged_cell_json_is_one_damaged_cell(tmp_path: Path, content: str) -> None:
    store = Store(tmp_path)
    write(store, 6)
    opened(store, 6, settings=settings("gem")).finish()
    file = tmp_path / "cells/loveda/sclip/cell.json"
    file.write_text(content, encoding="latin-1")
    assert [cell.row for cell in store.cells()] == ["gem"] and store.cell("sclip", "loveda") is None
    ((cell, reason),) = store.damaged().items()
    assert cell == ("sclip", "loveda") and str(file) in reason and "no cell.json that can be read" in reason
    assert opened(store).done == set()  # nothing says that its counts are as they were written


# ---------------------------------------------------------------------------------------- failures


def test_a_failing_image_leaves_the_cell_partial_and_is_tried_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    writer = opened(store, 3)
    writer.add(0, *random_counts(0))
    writer.take(ImageCounts(1, error="truncated file"))
    writer.add(2, *random_counts(2))
    writer.finish()
    cell = the_cell(store)
    assert (cell.status, cell.indices, cell.failures) == ("partial", [0, 2], {"img001": "truncated file"})
    assert cell.reason == "1 of 3 images failed, the first: img001: truncated file"
    again = opened(store, 3)
    assert again.done == {0, 2}
    again.add(1, *random_counts(1))
    again.finish()
    assert (the_cell(store).status, the_cell(store).failures, the_cell(store).reason) == ("ok", {}, None)


def test_a_failed_cell_keeps_its_reason_and_its_counts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    writer = opened(store, 3)
    writer.add(0, *random_counts(0))
    writer.finish(reason="RuntimeError: out of memory")
    assert (the_cell(store).status, the_cell(store).reason) == ("failed", "RuntimeError: out of memory")
    assert opened(store, 3).done == {0}


def test_a_cell_that_could_not_start_is_recorded(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.record_gap(spec(0), "no data", "data/loveda is not there")
    assert (the_cell(store).status, the_cell(store).reason) == ("no data", "data/loveda is not there")
    write(store, 6)
    store.record_gap(spec(0), "no data", "disk unplugged")
    assert the_cell(store).status == "ok"
    store.record_gap(spec(0), "failed", "no checkpoint")
    assert (the_cell(store).status, the_cell(store).reason) == ("failed", "no checkpoint")
    assert opened(store).done == set(range(6))  # the counts were not touched


def test_a_full_disk_is_named_and_costs_nothing_that_was_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    writer = opened(store)
    writer.add(0, *random_counts(0))
    writer.flush()

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full_disk)
        writer.add(1, *random_counts(1))
        with pytest.raises(BenchError, match=r"loveda/sclip: cannot be written \(No space left on device\)"):
            writer.flush()
    assert not list(tmp_path.rglob("*.tmp"))
    assert (the_cell(store).status, the_cell(store).indices) == ("partial", [0])
    write(store, 6)
    write(Store(tmp_path / "other"), 6)
    assert counts_file(tmp_path) == counts_file(tmp_path / "other")


# ---------------------------------------------------------------------------------------- shards


def write_shard(folder: Path, number: int, of: int, **options: object) -> None:
    mine = range(number, 6, of)
    writer = opened(Store(folder, shard=(number, of)), indices=mine, **options)
    for index in mine:
        writer.add(index, *random_counts(index))
    writer.finish()


def test_shards_are_merged_when_all_are_there(tmp_path: Path) -> None:
    write(Store(tmp_path / "whole"), 6)
    store = Store(tmp_path / "shards")
    write_shard(store.folder, 0, 2)
    assert (the_cell(store).status, the_cell(store).indices) == ("partial", [0, 2, 4])
    write_shard(store.folder, 1, 2)
    assert the_cell(store).status == "ok"
    assert the_cell(store).table.equals(the_cell(Store(tmp_path / "whole")).table)
    assert [cell.status for cell in store.cells()] == ["ok"]


def test_a_shard_of_other_settings_is_left_out(tmp_path: Path) -> None:
    write_shard(tmp_path, 0, 2, settings=settings(debias=0.3))
    stale = tmp_path / "cells/loveda/sclip/shard-0-of-2/cell.json"
    edit(stale, written="2020-01-01T00:00:00+00:00")
    write_shard(tmp_path, 1, 2)
    cell = the_cell(Store(tmp_path))
    assert (cell.status, cell.indices) == ("partial", [1, 3, 5])
    assert cell.reason == "shard-0-of-2: of other settings or inputs, left out"


# ---------------------------------------------------------------------------------------- staleness


def test_changes_are_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write(store, 6)
    cell = the_cell(store)
    assert changes_for_recount(cell, settings(), INPUTS) == setting_changes(cell.settings, settings()) == []
    new = settings(debias=0.3, options={"sigma": 5.0}, threshold=0.3)
    assert changes_for_recount(cell, new, INPUTS | {"plug-in": "xx", "upsampler": "yy"}) == [
        "debias 0.0 -> 0.3",
        "option sigma none -> 5.0",
        "plug-in changed",
        "upsampler changed",
    ]
    assert setting_changes(cell.settings, new, only=SCORING) == ["threshold 0.0 -> 0.3"]


def test_options_are_what_they_are_as_json(tmp_path: Path) -> None:
    """A plug-in's defaults may be tuples, which are stored as lists."""
    now = settings(options={"sizes": (1, 2), "table": {1: 2}})
    write(Store(tmp_path), 1, settings=now)
    assert not changes_for_recount(the_cell(Store(tmp_path)), now, INPUTS)
    other = now.model_copy(update={"options": {**now.options, "sizes": (1, 3)}})
    assert setting_changes(the_cell(Store(tmp_path)).settings, other) == ["option sizes [1, 2] -> [1, 3]"]


@pytest.mark.parametrize("change", [{"threshold": 0.3}, {"background": 1}, {"row": "other", "dataset": "x"}])
def test_scoring_and_names_do_not_decide_counts(change: dict[str, object]) -> None:
    base = settings()
    assert (
        spec(settings=base.model_copy(update=change), inputs=INPUTS).fingerprint
        == spec(settings=base, inputs=INPUTS).fingerprint
    )


@pytest.mark.parametrize("name", ["debias", "window", "stride", "scale"])
def test_every_other_setting_decides_counts(name: str) -> None:
    base = settings()
    changed = base.model_copy(update={name: getattr(base, name) + 1})
    assert spec(settings=changed, inputs=INPUTS).fingerprint != spec(settings=base, inputs=INPUTS).fingerprint
    assert (
        spec(settings=base, inputs=INPUTS | {"weights": "zz"}).fingerprint
        != spec(settings=base, inputs=INPUTS).fingerprint
    )


def test_a_new_threshold_needs_no_images(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write(store, 2)
    before = counts_file(tmp_path)
    opened(store, 2, settings=settings(threshold=0.5)).finish()
    expected = sum(confusion_at(*random_counts(i), 3, 0.5, 0) for i in range(2))
    metrics = record(tmp_path)["metrics"]
    assert isinstance(metrics, dict) and metrics["score"] == mean_iou(np.asarray(expected))
    assert counts_file(tmp_path) == before
    assert the_cell(store).record.cost.images == 2  # what the counts cost, not what the new score cost


def test_a_row_that_differs_in_its_threshold_takes_the_counts_of_the_other(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write(store, 2)
    strict = settings("strict", method="sclip", threshold=0.5)
    writer = opened(store, 2, settings=strict)
    assert writer.done == {0, 1}
    writer.finish()
    expected = sum(confusion_at(*random_counts(i), 3, 0.5, 0) for i in range(2))
    assert store.cell("strict", "loveda").record.metrics["score"] == mean_iou(np.asarray(expected))
    assert opened(store, 2, settings=settings("other", method="sclip", debias=0.3)).done == set()


def test_a_stale_cell_is_counted_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write(store, 6, settings=settings(debias=0.3))
    assert opened(store).done == set()
    assert the_cell(store).status == "partial"
    assert opened(store, settings=settings(debias=0.3)).done == set(range(6))  # nothing lost by a change of mind


def test_new_scene_names_reach_stored_counts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write(store, 2)
    renamed = [(name, "one") for name, _ in names(2)]
    store.open(replace(spec(2), images=renamed)).finish()
    assert the_cell(store).scenes == ["one", "one"]


def test_an_isaid_sized_cell_is_small(tmp_path: Path) -> None:
    """11,644 tiles of 16 classes, 900 keys a tile: docs/performance.md has the size of a realistic one."""
    store = Store(tmp_path)
    generator = np.random.default_rng(0)
    writer = opened(store, 11_644, classes=tuple(f"class{k}" for k in range(16)))
    for index in range(0, 11_644, 10):
        keys = np.flatnonzero(generator.random(17 * 16 * 100) < 900 / 27_200).astype(np.int32)
        writer.add(index, keys, (generator.pareto(1, len(keys)) * 50).astype(np.int64) + 1)
    writer.finish()
    assert (tmp_path / "cells/loveda/sclip/counts.parquet").stat().st_size < 3_500_000  # a tenth of the tiles


def test_the_documented_cell_json_has_the_keys_of_a_real_one(tmp_path: Path) -> None:
    documented = json.loads((ROOT / "docs/cell.json").read_text(encoding="utf-8"))
    write(Store(tmp_path), 1)
    assert documented.keys() == record(tmp_path).keys() and documented == sealed(documented)
    assert documented["settings"].keys() == settings().model_dump().keys()
    assert (
        spec(settings=Settings(**documented["settings"]), inputs=documented["inputs"]).fingerprint
        == documented["fingerprint"]
    )
