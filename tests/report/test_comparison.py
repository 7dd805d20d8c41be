from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import pytest
from store_helpers import stored

from bench.cli import compare as command
from bench.errors import BenchError
from bench.report.comparison import against_all, compare
from bench.store.store import Store

GOOD = [[60, 20], [20, 100]]
FAIR = [[40, 40], [40, 80]]  # the same labels
OTHER = [[40, 40], [40, 81]]


def put(folder: Path, row: str, dataset: str, images: list[list[list[int]]], **options: object) -> None:
    stored(folder, row, dataset, images, metric="foreground_iou", **options)


def run(*flags: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.main(parser.parse_args(flags))


def test_paired_numbers_of_one_dataset(tmp_path: Path) -> None:
    put(tmp_path, "a", "vdd", [GOOD, FAIR] * 4)  # four scenes of the same two images
    put(tmp_path, "b", "vdd", [FAIR, FAIR] * 4)
    result = compare(Store(tmp_path), "a", "b")
    (pair,) = result.pairs
    assert (pair.dataset, pair.images, pair.total) == ("vdd", 8, 8)
    assert (pair.first, pair.second) == (pytest.approx(0.6), 0.5)
    # every scene is the same, so no draw differs from another and only all-or-nothing swaps are as extreme
    assert (pair.interval.low, pair.interval.high) == (pytest.approx(0.1), pytest.approx(0.1))
    assert (pair.test.p_value, pair.test.exact, pair.test.permutations) == (2 / 16, True, 16)
    assert (pair.test.unit, pair.test.clusters) == ("scene", 4)
    assert pair.adjusted == 2 / 16
    assert result.over_datasets is not None
    assert (result.over_datasets.wins, result.over_datasets.losses) == (1, 0)


def test_holm_runs_over_the_datasets(tmp_path: Path) -> None:
    for dataset, scenes in (("vdd", 4), ("udd5", 3)):
        put(tmp_path, "a", dataset, [GOOD, FAIR] * scenes)
        put(tmp_path, "b", dataset, [FAIR, FAIR] * scenes)
    pairs = {pair.dataset: pair for pair in compare(Store(tmp_path), "a", "b").pairs}
    assert (pairs["vdd"].test.p_value, pairs["udd5"].test.p_value) == (2 / 16, 2 / 8)
    assert (pairs["vdd"].adjusted, pairs["udd5"].adjusted) == (2 * 2 / 16, 2 / 8)


def test_only_images_that_both_have_are_compared(tmp_path: Path) -> None:
    put(tmp_path, "a", "vdd", [GOOD, FAIR, GOOD, GOOD])
    put(tmp_path, "b", "vdd", [FAIR, FAIR], total=4)
    (pair,) = compare(Store(tmp_path), "a", "b").pairs
    assert (pair.images, pair.total) == (2, 4)
    assert pair.first == pytest.approx(180 / 300)


def test_what_cannot_be_compared_is_left_out_with_its_reason(tmp_path: Path) -> None:
    for row, image in (("a", GOOD), ("b", OTHER)):
        put(tmp_path, row, "vdd", [image])
    put(tmp_path, "a", "udd5", [GOOD])
    put(tmp_path, "a", "wbs_si", [GOOD])
    put(tmp_path, "b", "wbs_si", [], total=3, size=2)
    result = compare(Store(tmp_path), "a", "b")
    assert result.pairs == []
    assert result.over_datasets is None
    assert result.left_out == {
        "udd5": "not stored for both rows",
        "vdd": "the two rows were not counted on the same images and labels",
        "wbs_si": "b: partial",
    }


def test_equal_rows_do_not_differ(tmp_path: Path) -> None:
    for row in ("a", "b"):
        put(tmp_path, row, "vdd", [GOOD, FAIR, FAIR, GOOD])
    (pair,) = compare(Store(tmp_path), "a", "b").pairs
    assert (pair.interval.estimate, pair.test.p_value) == (0.0, 1.0)


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, "a", "vdd", [GOOD, FAIR] * 4, demo=True)
    put(tmp_path, "b", "vdd", [FAIR, FAIR] * 4, demo=True)
    out = tmp_path / "out.csv"
    flags = ["--results", str(tmp_path), "--datasets", "vdd,loveda", "--out", str(out)]
    assert run("a", "b", *flags) == 0
    text = capsys.readouterr().out
    assert text.startswith("# a against b [demo]\n")
    line = [cell.strip() for cell in text.splitlines()[4].strip("|").split("|")]
    assert line == [
        "vdd", "foreground_iou", "8 (4 scenes)", "60.0", "50.0", "+10.0", "+10.0 to +10.0", "0.125", "0.125",
    ]  # fmt: skip
    assert "Over 1 datasets: 1 wins, 0 losses, median difference +10.0" in text
    assert "Left out: loveda: not stored for both rows." in text
    with out.open() as file:
        (record,) = csv.DictReader(file)
    assert (record["difference"], record["p"], record["exact"]) == ("10.0", "0.125", "True")


def test_limited_results_are_compared_among_themselves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for row in ("a", "b"):
        put(tmp_path, row, "vdd", [GOOD, FAIR], limit=2)
    assert run("a", "b", "--results", str(tmp_path), "--limit", "2") == 0
    assert capsys.readouterr().out.startswith("# a against b [limited to 2 images]\n")
    with pytest.raises(BenchError, match="nothing is stored of row 'a'"):
        run("a", "b", "--results", str(tmp_path))


def test_an_unknown_row_is_answered_with_the_closest(tmp_path: Path) -> None:
    put(tmp_path, "segearth-ov", "vdd", [GOOD])
    with pytest.raises(BenchError, match=r"row 'segearth_ov' in .*; did you mean segearth-ov\?"):
        compare(Store(tmp_path), "segearth-ov", "segearth_ov")


def test_an_unwritable_output_is_named(tmp_path: Path) -> None:
    put(tmp_path, "a", "vdd", [GOOD])
    with pytest.raises(BenchError, match=r"--out .*nowhere/x\.csv: cannot be written"):
        run("a", "a", "--results", str(tmp_path), "--out", str(tmp_path / "nowhere/x.csv"))


def test_the_numbers_do_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(50, 150, (8, 2, 1))
    for row in ("a", "b"):
        hits = generator.integers(0, 50, (8, 2, 1))
        confusions = np.concatenate([hits, labels - hits], axis=2)
        put(tmp_path, row, "vdd", confusions.tolist())
    (ab,), (ba,) = (compare(Store(tmp_path), *rows).pairs for rows in (("a", "b"), ("b", "a")))
    assert ab.interval.estimate == -ba.interval.estimate
    assert ab.interval.low == pytest.approx(-ba.interval.high)
    assert ab.test.p_value == ba.test.p_value


def test_one_row_against_all_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for dataset in ("vdd", "udd5", "inria"):
        put(tmp_path, "a", dataset, [GOOD, FAIR] * 4)
        put(tmp_path, "b", dataset, [FAIR, FAIR] * 4)
        put(tmp_path, "c", dataset, [GOOD, GOOD] * 4)
    put(tmp_path, "alone", "loveda", [GOOD])
    found = {one.second: (one, p) for one, p in against_all(Store(tmp_path), "a")}
    assert list(found) == ["b", "c"]
    assert [found[row][0].over_datasets.wins for row in ("b", "c")] == [3, 0]  # type: ignore[union-attr]
    assert all(p == 2 * one.over_datasets.p_value for one, p in found.values())  # type: ignore[union-attr]
    assert run("a", "--results", str(tmp_path), "--out", str(tmp_path / "all.csv")) == 0
    shown = capsys.readouterr().out
    assert "# a against all" in shown and "| b " in shown and "+10.0" in shown
    with (tmp_path / "all.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [(line["row"], line["dataset"]) for line in lines[:3]] == [("b", "inria"), ("b", "udd5"), ("b", "vdd")]
    with pytest.raises(BenchError, match="no other row shares a dataset with 'alone'"):
        against_all(Store(tmp_path), "alone")
    with pytest.raises(BenchError, match="nothing is stored of row 'd'"):
        against_all(Store(tmp_path), "d")
