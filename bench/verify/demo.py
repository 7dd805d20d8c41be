"""The demo's stored reference, score and confusion array of each cell, and its comparison with a fresh run."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.errors import BenchError
from bench.metrics import Ints, moved_pixels, score
from bench.paths import shipped
from bench.store.result import StoredResult

SCORES, CONFUSIONS = "scores.csv", "confusions.npz"
A_FEW = {"wbs_si": ("clip", "segearth-ov"), "whu_aerial": ("gem", "maskclip+ours")}
"""Dataset -> rows that are run where not all are asked for: seconds."""


class Moved(NamedTuple):
    """One cell: pixels per million that are in another place of the confusion array, and the printed scores."""

    row: str
    dataset: str
    pixels: float
    expected: str
    found: str


def write_reference(cells: Iterable[StoredResult], folder: Path) -> int:
    """Write these cells to scores.csv and confusions.npz; other rows and datasets stay. Returns how many."""
    arrays: dict[str, Any] = {}
    lines: dict[str, list[str]] = {}
    if (folder / SCORES).exists():
        with np.load(folder / CONFUSIONS) as stored:
            arrays = {name: stored[name] for name in stored.files}
        with (folder / SCORES).open(newline="", encoding="utf-8") as file:
            lines = {f"{line[1]}/{line[0]}": line for line in list(csv.reader(file))[1:]}
    written = 0
    for cell in cells:
        total, name = cell.confusion().sum(0), f"{cell.dataset}/{cell.row}"
        arrays[name] = total.astype(np.int32)
        lines[name] = [cell.row, cell.dataset, cell.metric, printed(total, cell.metric), str(cell.counted)]
        written += 1
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / SCORES).open("w", newline="", encoding="utf-8") as file:
        heads = ["row", "dataset", "metric", "per_cent", "images"]
        csv.writer(file, lineterminator="\n").writerows([heads, *(lines[name] for name in sorted(lines))])
    np.savez_compressed(folder / CONFUSIONS, **{name: arrays[name] for name in sorted(arrays)})
    return written


def compare(cells: Iterable[StoredResult], folder: Path | None = None) -> list[Moved]:
    """Compare each cell with the reference. BenchError for a cell that is incomplete or not in the reference."""
    folder = folder or shipped("results/demo")
    moved = []
    with np.load(folder / CONFUSIONS) as arrays:
        for cell in cells:
            name = f"{cell.dataset}/{cell.row}"
            if name not in arrays.files:
                raise BenchError(
                    f"{folder / CONFUSIONS}: no reference of {name}; write it with `bench verify demo --write`"
                )
            if cell.status != "ok":
                raise BenchError(f"{name} of the demo is {cell.status}: {cell.reason}")
            expected, found = arrays[name].astype(np.int64), cell.confusion().sum(0)
            if expected.shape != found.shape or expected.sum() != found.sum():
                raise BenchError(
                    f"{name} of the demo counts other images than the reference; write it again with --write"
                )
            shown = printed(expected, cell.metric), printed(found, cell.metric)
            moved.append(Moved(cell.row, cell.dataset, moved_pixels(found, expected), *shown))
    return moved


def printed(confusion: Ints, metric: str) -> str:
    """Print a score as tables do."""
    return f"{100 * float(score(confusion, metric)):.1f}"
