"""The README's first command, on a part of the demo, against the reference in results/demo."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from project import SMALL

from bench.cli import main
from bench.config import load_config
from bench.errors import BenchError
from bench.store.result import TIES
from bench.store.store import Store
from bench.verify.demo import A_FEW, CONFUSIONS, SCORES, compare, printed, write_reference

REFERENCE = Path(__file__).resolve().parents[2] / "results" / "demo"


def run_a_few(folder: Path, *flags: str) -> None:
    """A few cells of the demo."""
    for dataset, rows in A_FEW.items():
        command = ["run", "--demo", "--datasets", dataset, "--methods", ",".join(rows), "--results", str(folder)]
        assert main([*command, *flags]) == 0


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few cells of the demo on small windows."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "small.yaml").write_text(SMALL)
    run_a_few(folder / "results", "--config", str(folder / "small.yaml"))
    return folder / "results"


def test_all_cells_of_the_demo_have_a_reference() -> None:
    config = load_config()
    wanted = set(itertools.product(config.default_rows, config.default_datasets))
    for name, table in config.tables.items():
        if name.isdigit():  # of all six tables of the paper; weights of NAF are drawn in the demo
            wanted |= set(itertools.product([row for row in table.rows if not row.endswith("+naf")], table.columns))
    scores = pd.read_csv(REFERENCE / SCORES)
    assert set(zip(scores.row, scores.dataset, strict=True)) == wanted
    with np.load(REFERENCE / CONFUSIONS) as arrays:
        for line in scores.itertuples():
            assert printed(arrays[f"{line.dataset}/{line.row}"], line.metric) == f"{line.per_cent:.1f}"
    assert {file.name for file in (REFERENCE / "tables").iterdir()} >= {"table1-demo.md", "leaderboard-demo.csv"}


@pytest.mark.slow
def test_a_fresh_run_moves_at_most_a_few_pixels(tmp_path: Path) -> None:
    """Ties are decided differently by other processors, threads and batch sizes."""
    run_a_few(tmp_path)
    moved = compare(Store(tmp_path, demo=True).cells(), REFERENCE)
    assert {(cell.row, cell.dataset) for cell in moved} == {(row, name) for name, rows in A_FEW.items() for row in rows}
    assert max(cell.pixels for cell in moved) <= TIES


def test_moved_pixels_and_numbers_are_named(results: Path, tmp_path: Path) -> None:
    cells = Store(results, demo=True).cells()
    assert write_reference(cells, tmp_path) == 4
    assert all(cell.pixels == 0 and cell.expected == cell.found for cell in compare(cells, tmp_path))
    assert write_reference(cells[:1], tmp_path) == 1  # the others stay
    assert len(compare(cells, tmp_path)) == 4 == len(pd.read_csv(tmp_path / SCORES))
    with np.load(tmp_path / CONFUSIONS) as arrays:
        changed = {name: arrays[name].copy() for name in arrays.files}
    array = changed["wbs_si/clip"]
    half = int(array[0, 0]) // 2
    array[0, 0] -= half
    array[0, 1] += half
    np.savez_compressed(tmp_path / CONFUSIONS, **changed)
    (other,) = (cell for cell in compare(cells, tmp_path) if cell.pixels)
    assert (other.row, other.dataset) == ("clip", "wbs_si")
    assert other.pixels == pytest.approx(1e6 * half / array.sum())
    assert other.expected != other.found
    array[0, 0] += 1
    np.savez_compressed(tmp_path / CONFUSIONS, **changed)
    with pytest.raises(BenchError, match="wbs_si/clip of the demo counts other images"):
        compare(cells, tmp_path)
    del changed["wbs_si/clip"]
    np.savez_compressed(tmp_path / CONFUSIONS, **changed)
    with pytest.raises(BenchError, match="no reference of wbs_si/clip; write it with"):
        compare(cells, tmp_path)


def test_the_demo_cannot_be_mistaken_for_results(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tables", "--results", str(results), "--out", str(tmp_path / "tables"), "--table", "1"]) == 0
    text = (tmp_path / "tables" / "table1-demo.md").read_text()
    assert text.startswith("# Table 1 [demo]")
    assert "These are no results on real data" in text
    assert "difference" not in text.split("Per cent.")[0]
    capsys.readouterr()
    assert main(["run", "--demo", "--backbone", "demo"]) == 2
    assert "--demo brings its backbone and data" in capsys.readouterr().err
