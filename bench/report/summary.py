"""The cells of a run as one small table for a terminal."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from tabulate import tabulate

from bench.config import Config
from bench.report.scores import Score, scores_of
from bench.store.store import Store

MEAN = "mean"


def summary_table(
    store: Store,
    rows: Sequence[str],
    datasets: Sequence[str],
    config: Config,
    cards: Sequence[Path] = (),
    width: int | None = None,
) -> str:
    """Render rows and datasets as they are stored: per cent, or what is wrong, and the mean of rows with all datasets.

    Transposed where it is wider than the terminal (`width`, columns), and in parts where that is too wide too.
    """
    width = width or shutil.get_terminal_size().columns
    marks = [*(["demo"] if store.demo else []), *([f"first {store.limit} images only"] if store.limit else [])]
    title = f"% ({', '.join(marks)})" if marks else "%"
    scores = scores_of(store, config, cards=cards, datasets=datasets)
    entries = {(row, dataset): _entry(scores.get((row, dataset))) for row in rows for dataset in datasets}
    means = {row: _mean([scores.get((row, dataset)) for dataset in datasets]) for row in rows}
    extra = [MEAN] if len(datasets) > 1 else []

    def text(row: str, column: str) -> str:
        return means[row] if column == MEAN else entries[row, column]

    columns = [*datasets, *extra]
    lying = _table(title, rows, columns, text)
    if _width(lying) <= width:
        return lying
    blocks, rest = [], list(rows)
    while rest:  # on its side, as many rows as fit
        count = len(rest)
        while count > 1 and _width(_table(title, columns, rest[:count], lambda column, row: text(row, column))) > width:
            count -= 1
        blocks.append(_table(title, columns, rest[:count], lambda column, row: text(row, column)))
        rest = rest[count:]
    return "\n\n".join(blocks)


def _table(title: str, lines: Sequence[str], columns: Sequence[str], text: Callable[[str, str], str]) -> str:
    body = [[line, *(text(line, column) for column in columns)] for line in lines]
    return tabulate(body, headers=[title, *columns], disable_numparse=True, stralign="right", colalign=("left",))


def _width(table: str) -> int:
    return max(map(len, table.splitlines()))


def _mean(scores: Sequence[Score | None]) -> str:
    """Return the mean as text, only for rows that have all datasets."""
    values = [100 * score.value for score in scores if score and score.complete]
    return f"{sum(values) / len(values):.1f}" if values and len(values) == len(scores) else ""


def _entry(score: Score | None) -> str:
    if score is None:
        return "missing"
    return score.verdict.beside("" if math.isnan(score.value) else f"{100 * score.value:.1f}")
