"""bench verify statistics: the simulated worlds, and what is said of them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from bench.cli import main
from bench.verify import statistics
from bench.verify.statistics import Coverage, good, simulate


def test_few_trials_print_what_holds_and_nothing_for_too_few_scenes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "SIZES", (5, 6, 14))
    monkeypatch.setattr(statistics, "MANY", 20_000)
    file = tmp_path / "found.json"
    assert main(["verify", "statistics", "--trials", "60", "--seed", "1", "--json", str(file)]) == 0
    text = capsys.readouterr().out
    assert "Per cent of 60 trials" in text
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[4:]]
    assert [line[1] for line in lines[:4]] == ["5", "6", "14", "mean of 3, 4, 6, 10, 25"]
    assert lines[0][2:] == ["–"] * 5
    assert all(float(line[4]) > 85 and float(line[6]) < 14 for line in lines if line[2] != "–")
    assert len(json.loads(file.read_text())) == 8


def test_a_seed_gives_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "SIZES", (6,))
    monkeypatch.setattr(statistics, "MANY", 1000)
    first, again, other = (list(simulate(5, seed)) for seed in (3, 3, 4))
    assert first == again
    assert first != other


@pytest.mark.parametrize("world", statistics.WORLDS)
def test_two_rows_see_the_same_labels_and_are_equally_good(world: str) -> None:
    first, second = statistics._rows(world, 20_000, np.random.default_rng(0))
    np.testing.assert_array_equal(first.label_counts, second.label_counts)
    assert (first.label_counts[:, -1] == 0).all()
    assert first.score == pytest.approx(second.score, abs=0.01)
    assert not np.array_equal(first.areas.stack, second.areas.stack)


def test_a_bad_interval_or_test_is_seen() -> None:
    line = Coverage("easy", "14", 0.95, 0.95, 0.05, 0.04, 0.05)
    assert good(line, 1000)
    assert not good(line._replace(pair=0.86), 1000)
    assert not good(line._replace(false_positives=0.11), 1000)
    assert good(line._replace(pair=math.nan, false_positives=math.nan), 1000)
