from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import pytest
from table_helpers import FAIR, GOOD, put

from bench.cli import compare as command
from bench.config import load_config
from bench.errors import BenchError
from bench.report.comparison import against_all, compare
from bench.store.store import Store

pytestmark = pytest.mark.usefixtures("any_count")

OTHER = [[40, 40], [40, 81]]


def run(*flags: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.main(parser.parse_args(flags))


def test_paired_numbers_of_one_dataset(tmp_path: Path) -> None:
    put(tmp_path, "a", "vdd", [GOOD, FAIR] * 8)  # eight scenes of the same two images
    put(tmp_path, "b", "vdd", [FAIR, FAIR] * 8)
    result = compare(Store(tmp_path), "a", "b")
    (pair,) = result.pairs
    assert (pair.dataset, pair.images) == ("vdd", 16)
    assert (pair.first, pair.second) == (pytest.approx(0.6), 0.5)
    # every scene is the same, so none left out changes anything and only all-or-nothing swaps are as extreme
    assert (pair.interval.low, pair.interval.high) == (pytest.approx(0.1), pytest.approx(0.1))
    assert (pair.test.p_value, pair.test.exact, pair.test.permutations) == (2 / 256, True, 256)
    assert (pair.test.unit, pair.test.scenes, pair.improvement) == ("scene", 8, 1)
    assert (pair.adjusted, result.family) == (2 / 256, 1)
    assert result.over_datasets is not None
    assert result.over_datasets.interval.estimate == pair.interval.estimate
    assert result.over_datasets.test.p_value == pair.test.p_value
    assert np.isnan(result.over_datasets.wilcoxon.p_value)  # one dataset says nothing about others


def test_holm_runs_over_the_datasets(tmp_path: Path) -> None:
    for dataset, scenes in (("vdd", 7), ("udd5", 6), ("inria", 5)):
        put(tmp_path, "a", dataset, [GOOD, FAIR] * scenes)
        put(tmp_path, "b", dataset, [FAIR, FAIR] * scenes)
    pairs = {pair.dataset: pair for pair in compare(Store(tmp_path), "a", "b").pairs}
    assert (pairs["vdd"].test.p_value, pairs["udd5"].test.p_value) == (2 / 2**7, 2 / 2**6)
    assert (pairs["vdd"].adjusted, pairs["udd5"].adjusted) == (2 * 2 / 2**7, 2 / 2**6)
    assert np.isnan([pairs["inria"].test.p_value, pairs["inria"].adjusted]).all()  # of no family


def test_what_cannot_be_compared_is_left_out_with_its_reason(tmp_path: Path) -> None:
    for row, image in (("a", GOOD), ("b", OTHER), ("c", GOOD)):
        put(tmp_path, row, "vdd", [image])
    put(tmp_path, "a", "udd5", [GOOD])
    put(tmp_path, "a", "wbs_si", [GOOD])
    put(tmp_path, "b", "wbs_si", [], total=3)
    result = compare(Store(tmp_path), "a", "b")
    assert result.pairs == []
    assert result.over_datasets is None
    assert result.left_out == {
        "udd5": "not stored for both rows",
        "vdd": "b: other labels: its labels are not those of most rows",
        "wbs_si": "b: 0 of 3 images",
    }


def test_equal_rows_do_not_differ(tmp_path: Path) -> None:
    for row in ("a", "b"):
        put(tmp_path, row, "vdd", [GOOD, FAIR, FAIR, GOOD] * 3)
    (pair,) = compare(Store(tmp_path), "a", "b").pairs
    assert (pair.interval.estimate, pair.test.p_value) == (0.0, 1.0)


def test_many_datasets_on_which_one_row_wins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = load_config().default_datasets
    for dataset in names:
        put(tmp_path, "a", dataset, [GOOD], demo=True)
        put(tmp_path, "b", dataset, [FAIR], demo=True)
    assert run("a", "b", "--results", str(tmp_path)) == 0
    assert "17 wins, 0 losses of 17" in (said := capsys.readouterr().out) and "Wilcoxon signed-rank p: < 0.001." in said


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for dataset, scenes in (("vdd", 8), ("udd5", 3)):
        put(tmp_path, "a", dataset, [GOOD, FAIR] * scenes, demo=True)
        put(tmp_path, "b", dataset, [FAIR, FAIR] * scenes, demo=True)
    out = tmp_path / "out.csv"
    flags = ["--results", str(tmp_path), "--datasets", "vdd,udd5,loveda", "--out", str(out)]
    assert run("a", "b", *flags) == 0
    text = capsys.readouterr().out
    assert text.startswith("# a against b [demo]\n")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[4:7]]
    assert lines == [
        ["vdd", "foreground_iou", "16 (8 scenes: few)", "60.0", "50.0", "+10.0", "+10.0 to +10.0", "0.008", "0.008",
         "100 %", "–", "6 scenes (12 images)"],
        ["udd5", "miou", "6 (3 scenes: no interval)", "52.7", "41.7", "+11.1", "–", "–", "–", "100 %", "–",
         "6 scenes (12 images)"],
        ["mean", "", "", "", "", "+10.5", "+10.5 to +10.5", "< 0.001", "", "", "", ""],
    ]  # fmt: skip
    assert "Too few scenes for an interval or a test: udd5 (3 scenes)" in text
    assert "Wilcoxon" not in text
    assert "Left out: loveda: not stored for both rows." in text
    with out.open() as file:
        (record, few) = csv.DictReader(file)
    assert (record["difference"], record["p"], record["exact"]) == ("10.0", "0.0078125", "True")
    assert (few["units"], few["low"], few["p"]) == ("3", "", "")


def test_what_no_number_can_say_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for dataset in ("vdd", "udd5", "inria", "wbs_si"):
        put(tmp_path, "a", dataset, [GOOD, FAIR] * 6)
        put(tmp_path, "b", dataset, [FAIR, FAIR] * 6)
    put(tmp_path, "a", "loveda", [[[9, 0], [0, 0]]] * 2 + [[[5, 1], [1, 3]]] * 2 + [[[9, 0], [0, 0]]] * 12)
    put(tmp_path, "b", "loveda", [[[9, 0], [0, 0]]] * 2 + [[[4, 2], [1, 3]]] * 2 + [[[9, 0], [0, 0]]] * 12)
    assert run("a", "b", "--results", str(tmp_path)) == 0
    text = capsys.readouterr().out
    assert "; Holm corrects for 5 tests. " in text
    assert "vdd: 6 scenes: no p below 0.031, so none below 0.05 after Holm." in text
    assert "loveda: labelled in one scene only: class1" in text


def test_limited_results_are_compared_among_themselves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for row in ("a", "b"):
        put(tmp_path, row, "vdd", [GOOD, FAIR], limit=2)
    assert run("a", "b", "--results", str(tmp_path), "--limit", "2") == 0
    text = capsys.readouterr().out
    assert text.startswith("# a against b [limited to 2 images]\n") and "Holm corrects" not in text
    with pytest.raises(BenchError, match="nothing is stored of row 'a'"):
        run("a", "b", "--results", str(tmp_path))


def test_an_unknown_row_is_answered_with_the_closest(tmp_path: Path) -> None:
    put(tmp_path, "segearth-ov", "vdd", [GOOD])
    with pytest.raises(BenchError, match=r"row 'segearth_ov' in .*; did you mean segearth-ov\?"):
        compare(Store(tmp_path), "segearth-ov", "segearth_ov")


def test_an_unwritable_output_is_named(tmp_path: Path) -> None:
    put(tmp_path, "a", "vdd", [GOOD])
    (tmp_path / "file").touch()
    with pytest.raises(BenchError, match=r"--out .*file/x\.csv: cannot be written .*; give another place"):
        run("a", "a", "--results", str(tmp_path), "--out", str(tmp_path / "file/x.csv"))


def test_the_numbers_do_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(50, 150, (16, 2, 1))
    for row in ("a", "b"):
        hits = generator.integers(0, 50, (16, 2, 1))
        confusions = np.concatenate([hits, labels - hits], axis=2)
        put(tmp_path, row, "vdd", confusions.tolist())
    (ab,), (ba,) = (compare(Store(tmp_path), *rows).pairs for rows in (("a", "b"), ("b", "a")))
    assert ab.interval.estimate == -ba.interval.estimate
    assert ab.interval.low == pytest.approx(-ba.interval.high)
    assert ab.test.p_value == ba.test.p_value


def test_one_row_against_all_others_without_scenes_for_a_test(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for row in ("a", "b"):
        put(tmp_path, row, "vdd", [GOOD, FAIR])
    assert run("a", "--results", str(tmp_path)) == 0
    shown = capsys.readouterr().out
    assert "No wins and losses: too few scenes for a test." in shown and "all 0 tests" not in shown
    assert run("a", "b", "--results", str(tmp_path)) == 0
    printed = repr(compare(Store(tmp_path), "a", "b"))
    assert printed.startswith("# a against b\n") and printed in capsys.readouterr().out


def test_one_row_against_all_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for dataset, scenes in (("vdd", 10), ("udd5", 6), ("inria", 3)):
        put(tmp_path, "a", dataset, [GOOD, FAIR] * scenes)
        put(tmp_path, "b", dataset, [FAIR, FAIR] * scenes)
        put(tmp_path, "c", dataset, [GOOD, GOOD] * scenes)
    put(tmp_path, "alone", "loveda", [GOOD])
    found = {one.second: one for one in against_all(Store(tmp_path), "a")}
    assert list(found) == ["b", "c"]
    for one in found.values():
        assert one.over_datasets is not None
        assert one.over_datasets.adjusted == 2 * one.over_datasets.test.p_value
        adjusted = {pair.dataset: pair.adjusted for pair in one.pairs if not np.isnan(pair.adjusted)}
        assert adjusted == {"vdd": 4 * 2 / 2**10, "udd5": 2 * 2 / 2**6}  # over both rows and both testable datasets
    assert run("a", "--results", str(tmp_path), "--out", str(tmp_path / "all.csv")) == 0
    shown = capsys.readouterr().out
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in shown.splitlines()[4:6]]
    assert [line[:5] for line in lines] == [["b", "3", "1", "0", "+10.4"], ["c", "3", "0", "1", "−11.9"]]  # after Holm
    with (tmp_path / "all.csv").open() as file:
        written = list(csv.DictReader(file))
    assert [(line["row"], line["dataset"]) for line in written[:3]] == [("b", "inria"), ("b", "udd5"), ("b", "vdd")]
    with pytest.raises(BenchError, match="no other row shares a dataset with 'alone'"):
        against_all(Store(tmp_path), "alone")
    with pytest.raises(BenchError, match="nothing is stored of row 'd'"):
        against_all(Store(tmp_path), "d")
