"""Data trees and results folders that are broken in a hundred ways: no traceback, no hang, nothing lost beside them.

`python -m pytest -m chaos` runs all of it, with `--chaos-seed N` for other damage; the ordinary suite runs a tenth.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from chaos import BREAKAGES, bench
from project import Project

from bench.store.store import Store

pytestmark = pytest.mark.chaos
ROWS = ("--methods", "clip,maskclip")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with the results of two rows on two datasets."""
    project = Project(tmp_path_factory.mktemp("whole"))
    assert project.run("--datasets", "loveda,whu_aerial", *ROWS) == 0
    return project


@pytest.mark.parametrize("name", BREAKAGES)
def test_breakage(name: str, whole: Project, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    random = np.random.default_rng([request.config.getoption("--chaos-seed"), list(BREAKAGES).index(name)])
    shutil.copytree(whole.root, tmp_path / "project")
    root = tmp_path / "project"
    breakage = BREAKAGES[name]
    cells = root / "results" / "cells"
    folder = root / "data" / "LoveDA"
    of_kind = {
        "image": sorted(folder.rglob("images_png/*.png")),
        "label": sorted(folder.rglob("masks_png/*.png")),
        "folder": [folder],
        "cell": [cells / "loveda" / "clip" / "cell.json"],
        "counts": [cells / "loveda" / "clip" / "counts.parquet"],
        "cells": [cells],
    }[breakage.target]
    target = of_kind[int(random.integers(len(of_kind)))]
    breakage.break_it(target, random)
    before = {file.relative_to(cells): file.read_bytes() for file in cells.rglob("whu_aerial/*/counts.parquet")}

    arguments = [argument.replace(str(whole.root), str(root)) for argument in whole.arguments(*ROWS)]
    told = ""
    if breakage.target in ("image", "label", "folder"):
        checked = bench("datasets", "check", "loveda", "--data-root", str(root / "data"))
        bench("datasets", "--data-root", str(root / "data"))
        told = checked.text
        assert checked.code == 1  # too few images in any case
    else:
        tables = bench("tables", "--results", str(root / "results"), "--draws", "10")
        assert tables.code == 0 and (root / "results" / "tables" / "leaderboard.csv").exists()
    ran = bench(*arguments, "--datasets", "all")
    told += ran.text

    for path, data in before.items():  # the other dataset is as it was
        assert (cells / path).read_bytes() == data
    store = Store(root / "results")
    if breakage.affects == "image":
        assert target.stem in told
        cell = store.cell("clip", "loveda")
        assert cell is not None and cell.counted in (2, 3)
    elif breakage.affects == "dataset":
        assert "loveda" in told
    else:  # whatever was broken has been made whole
        cell = store.cell("clip", "loveda")
        assert cell is not None and cell.counted == 3, ran.text
        original = Store(whole.root / "results").cell("clip", "loveda")
        assert original is not None and cell.table.equals(original.table)
