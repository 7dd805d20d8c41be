"""The cells of a run as one small table for a terminal."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence

from tabulate import tabulate

from bench.metrics import score
from bench.store.result import StoredResult
from bench.store.store import Store

MEAN = "mean"


def summary_table(store: Store, rows: Sequence[str], datasets: Sequence[str], width: int | None = None) -> str:
    """Rows and datasets as they are stored: per cent, or what is wrong; with the mean of rows that have all datasets.

    Stands on its side where it is wider than the terminal (`width`, columns), and in parts where that is too wide too.
    """
    width = width or shutil.get_terminal_size().columns
    marks = [*(["demo"] if store.demo else []), *([f"first {store.limit} images only"] if store.limit else [])]
    title = f"% ({', '.join(marks)})" if marks else "%"
    entries = {(row, dataset): _entry(store.cell(row, dataset)) for row in rows for dataset in datasets}
    means = {row: _mean([entries[row, dataset] for dataset in datasets]) for row in rows}
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


def _mean(entries: Sequence[str]) -> str:
    """Of whole numbers alone."""
    try:
        return f"{sum(map(float, entries)) / len(entries):.1f}" if entries else ""
    except ValueError:
        return ""


def _entry(cell: StoredResult | None) -> str:
    if cell is None:
        return "missing"
    number = f"{100 * score(cell.areas().total, cell.metric):.1f}" if cell.images.num_rows else ""
    return f"{number} {'' if cell.status == 'ok' else cell.status}".strip()
