"""The README's first command, on a part of the demo, against what is committed in results/demo."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from bench.cli import main
from bench.config import load_config
from bench.store import Store

COMMITTED = Path(__file__).resolve().parents[1] / "results" / "demo"
PART = {"wbs_si": ("clip", "segearth-ov"), "whu_aerial": ("gem", "maskclip+ours")}


def test_all_cells_of_the_demo_are_committed() -> None:
    config, store = load_config(), Store(COMMITTED, demo=True)
    wanted = set(itertools.product(config.default_rows, config.default_datasets))
    for table in config.tables.values():  # of all six tables
        wanted |= set(itertools.product(table.rows, table.columns))
    for row, dataset in wanted:
        cell = store.cell(row, dataset)
        assert cell.status == "ok", (row, dataset)
        assert cell.record["demo"]
    assert {file.name for file in (COMMITTED / "tables").iterdir()} >= {"table1-demo.md", "leaderboard-demo.csv"}


@pytest.mark.parametrize("dataset", PART)
def test_the_demo_run_gives_what_is_committed(tmp_path: Path, dataset: str) -> None:
    """Up to rounding, which differs between processors: one pixel in ten thousand may cross a tie."""
    assert (
        main(["run", "--demo", "--datasets", dataset, "--methods", ",".join(PART[dataset]), "--results", str(tmp_path)])
        == 0
    )
    for row in PART[dataset]:
        ours, committed = (Store(folder, demo=True).cell(row, dataset) for folder in (tmp_path, COMMITTED))
        assert ours.ids == committed.ids
        difference = np.abs(ours.confusion() - committed.confusion()).sum() / ours.confusion().sum()
        assert difference < 2e-4


def test_the_demo_cannot_be_mistaken_for_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (COMMITTED, tmp_path):
        assert main(["tables", "--results", str(folder), "--out", str(tmp_path / "tables"), "--table", "1"]) == 0
    text = (tmp_path / "tables" / "table1-demo.md").read_text()
    assert text.startswith("# Table 1 [demo]")
    assert "These are no results on real data" in text
    assert "difference" not in text.split("Per cent.")[0]
    capsys.readouterr()
    assert main(["run", "--demo", "--backbone", "demo"]) == 2
    assert "--demo has a backbone and data of its own" in capsys.readouterr().err
