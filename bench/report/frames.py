"""Stored results as pandas frames, comparisons and tables: the part of the Python API that needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pandas as pd

from bench.config import load_config
from bench.data.cards import card_names
from bench.errors import BenchError, did_you_mean
from bench.metrics import score, summary
from bench.metrics.significance import PERMUTATIONS
from bench.paths import shipped
from bench.report.analysis import (
    others_table,
    per_class_table,
    rank_changes,
    synonym_table,
    threshold_curves,
    threshold_table,
    vocabulary_table,
)
from bench.report.comparison import Comparison
from bench.report.comparison import compare as compare_rows
from bench.report.escape import csv_text
from bench.report.files import write_tables
from bench.report.scores import collect
from bench.report.site.page import page
from bench.runtime.atomic import write_atomic
from bench.store import Store

FORMATS: Final = ("md", "csv", "latex", "latex-intervals", "html")


def scores(results: str | Path = "results", limit: int | None = None) -> pd.DataFrame:
    """Stored cells, one line each: row, dataset, status, images, metric, and every number of it as a fraction."""
    lines = []
    for cell in Store(results, limit=limit).cells():
        line = {"row": cell.row, "dataset": cell.dataset, "status": cell.status, "images": cell.counted}
        line |= {"total": cell.total, "metric": cell.metric, "demo": cell.record.demo}
        numbers = summary(cell.areas(), cell.metric) if cell.counted else {}
        lines.append(line | {name: value for name, value in numbers.items() if not isinstance(value, list)})
    frame: pd.DataFrame = pd.DataFrame(lines)
    return frame


def per_class(results: str | Path = "results", limit: int | None = None) -> pd.DataFrame:
    """IoU, accuracy, precision and F1 of each class of the stored cells, one line for each row, dataset and class."""
    lines = []
    for cell in Store(results, limit=limit).cells():
        numbers = summary(cell.areas().total, cell.metric) if cell.counted else {}
        for index, name in enumerate(cell.classes if numbers else ()):
            of_class = {key: values[index] for key, values in numbers.items() if isinstance(values, list)}
            lines.append({"row": cell.row, "dataset": cell.dataset, "class": name, **of_class})
    frame: pd.DataFrame = pd.DataFrame(lines)
    return frame


def per_image(row: str, dataset: str, results: str | Path = "results", limit: int | None = None) -> pd.DataFrame:
    """The score of each image of a stored cell: index, id, scene, score (a fraction, nan where undefined)."""
    cell = Store(results, limit=limit).cell(row, dataset)
    if cell is None:
        raise BenchError(f"{results}: nothing is stored of {row} on {dataset}; `bench.scores()` lists what is")
    values = score(cell.areas(), cell.metric)
    columns = {"index": cell.indices, "id": cell.ids, "scene": cell.scenes, "score": values}
    frame: pd.DataFrame = pd.DataFrame(columns)
    return frame


def compare(
    first: str, second: str, results: str | Path = "results", datasets: Sequence[str] | None = None
) -> Comparison:
    """Paired differences first - second of two stored rows, with intervals and tests: `bench compare` as an object."""
    return compare_rows(Store(results), first, second, datasets)


def tables(
    results: str | Path = "results",
    out: str | Path | None = None,
    formats: Sequence[str] = ("md", "csv"),
    only: Sequence[str] | None = None,
    config: str | Path | None = None,
    draws: int | None = None,
) -> list[Path]:
    """Writes the tables of benchmark.yaml, the leaderboard and the costs from what is stored; returns the files.

    out: folder (default: tables/ in the results folder). only: names of tables. draws: swaps of each permutation test.
    """
    for name in formats:
        if name not in FORMATS:
            raise BenchError(f"--format {','.join(formats)}: unknown format '{name}'; {did_you_mean(name, FORMATS)}")
    loaded, folder = load_config(config), Path(results)
    for name in only or ():
        if name not in loaded.tables:
            raise BenchError(f"--table {name}: no such table; {did_you_mean(name, loaded.tables)}")
    if not folder.is_dir():
        raise BenchError(f"results folder {folder}: does not exist; run something first, or give another --results")
    known = card_names()
    for name, table in loaded.tables.items():
        for column in table.columns:
            if column not in known and config is not None:
                raise BenchError(
                    f"{config}: tables.{name}.columns: no dataset '{column}'; {did_you_mean(column, known)}"
                )
    collections = collect(folder, loaded, draws or PERMUTATIONS)
    written = [] if only else _write_analysis(folder, Path(out) if out else folder / "tables", draws or PERMUTATIONS)
    return written + write_tables(collections, loaded, Path(out) if out else folder / "tables", formats, only)


def _write_analysis(results: Path, out: Path, permutations: int) -> list[Path]:
    """Per class, by threshold and by vocabulary, as CSV; of full runs, or of the demo where that is all there is."""
    cells = Store(results).cells()
    mark = "-demo" if cells and all(cell.record.demo for cell in cells) else ""
    words = vocabulary_table(cells, permutations)
    frames = {
        f"per_class{mark}.csv": per_class_table(cells),
        f"thresholds{mark}.csv": threshold_table(cells),
        f"threshold_curves{mark}.csv": threshold_curves(cells),
        f"words{mark}.csv": words,
        f"words_order{mark}.csv": rank_changes(cells, permutations) if len(words) else words,
        f"synonyms{mark}.csv": synonym_table(cells),
    }
    others = others_table(cells, shipped("results/published") / "others.csv")
    if others.measured.notna().any():
        frames["others.csv"] = others
    written = []
    for name, frame in frames.items():
        if len(frame):
            _write(out / name, csv_text(frame))
            written.append(out / name)
    return written


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, text.encode())
    except OSError as error:
        raise BenchError(
            f"tables folder {file.parent}: cannot be written ({error.strerror}); give another --out"
        ) from None


def html_report(
    results: str | Path = "results",
    out: str | Path | None = None,
    *,
    limit: int | None = None,
    draws: int | None = None,
    config: str | Path | None = None,
) -> Path:
    """Writes one page with leaderboard, charts and provenance of all that is stored, which needs no server; returns it.

    out: the file (default: report.html in the results folder). limit: of the results of runs on the first N images.
    Raises BenchError where nothing is stored.
    """
    loaded, folder = load_config(config), Path(results)
    if not folder.is_dir():
        raise BenchError(f"results folder {folder}: does not exist; run something first, or give another --results")
    found = [one for one in collect(folder, loaded, draws or PERMUTATIONS) if one.scores]
    fitting = [one for one in found if {score.limit for score in one.scores.values()} == {limit}]
    if not fitting:
        names = ", ".join(one.name or "full runs" for one in found) or "nothing"
        raise BenchError(f"results folder {folder}: holds {names}; give --limit, or run something first")
    file = Path(out) if out else folder / "report.html"
    _write(file, page(folder, fitting[0], loaded))
    return file
