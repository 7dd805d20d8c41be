"""The small table that a run ends with."""

from __future__ import annotations

from pathlib import Path

import pytest
from table_helpers import CONFIG, FAIR, GOOD, put

from bench.report.summary import summary_table
from bench.store.store import Store

pytestmark = pytest.mark.usefixtures("any_count")


def test_it_has_means_and_says_what_is_missing(tmp_path: Path) -> None:
    put(tmp_path, "clip", "loveda", [GOOD])
    put(tmp_path, "clip", "vdd", [FAIR])
    put(tmp_path, "sclip", "loveda", [GOOD], total=2)
    lines = summary_table(Store(tmp_path), ["clip", "sclip"], ["loveda", "vdd"], CONFIG, width=100).splitlines()
    assert lines[0].split() == ["%", "loveda", "vdd", "mean"]
    assert lines[2].split() == ["clip", "71.4", "50.0", "60.7"]
    assert lines[3].split() == ["sclip", "71.4", "(1", "of", "2", "images)", "missing"]


def test_it_fits_the_terminal(tmp_path: Path) -> None:
    rows = [f"method-number-{number}" for number in range(6)]
    datasets = [f"a_rather_long_name_{number}" for number in range(9)]
    for width in (60, 80, 120, 400):
        text = summary_table(Store(tmp_path), rows, datasets, CONFIG, width=width)
        assert max(map(len, text.splitlines())) <= width
        assert all(row in text for row in rows) and all(dataset in text for dataset in datasets)
