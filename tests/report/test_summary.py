"""The small table that a run ends with."""

from __future__ import annotations

from pathlib import Path

from store_helpers import stored

from bench.report.summary import summary_table
from bench.store.store import Store

GOOD, FAIR = [[40, 0], [0, 40]], [[20, 20], [0, 40]]


def test_it_has_means_and_says_what_is_missing(tmp_path: Path) -> None:
    stored(tmp_path, "clip", "loveda", [GOOD])
    stored(tmp_path, "clip", "vdd", [FAIR])
    stored(tmp_path, "sclip", "loveda", [GOOD], total=2)
    lines = summary_table(Store(tmp_path), ["clip", "sclip"], ["loveda", "vdd"], width=100).splitlines()
    assert lines[0].split() == ["%", "loveda", "vdd", "mean"]
    assert lines[2].split() == ["clip", "100.0", "58.3", "79.2"]
    assert lines[3].split() == ["sclip", "100.0", "partial", "missing"]


def test_it_fits_the_terminal(tmp_path: Path) -> None:
    rows = [f"method-number-{number}" for number in range(6)]
    datasets = [f"a_rather_long_name_{number}" for number in range(9)]
    for width in (60, 80, 120, 400):
        text = summary_table(Store(tmp_path), rows, datasets, width)
        assert max(map(len, text.splitlines())) <= width
        assert all(row in text for row in rows) and all(dataset in text for dataset in datasets)
