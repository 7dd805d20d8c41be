"""The cells of a run as one small table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from bench.metrics import score
from bench.store.result import StoredResult
from bench.store.store import Store


def summary_table(store: Store, rows: Sequence[str], datasets: Sequence[str]) -> str:
    """Rows × datasets as they are stored: per cent, or what is wrong."""
    table = [[row, *(_entry(store.cell(row, dataset)) for dataset in datasets)] for row in rows]
    marks = [*(["demo"] if store.demo else []), *([f"first {store.limit} images only"] if store.limit else [])]
    title = f" ({', '.join(marks)})" if marks else ""
    return tabulate(
        table, headers=[f"%{title}", *datasets], disable_numparse=True, stralign="right", colalign=("left",)
    )


def _entry(cell: StoredResult | None) -> str:
    if cell is None:
        return "missing"
    number = f"{100 * score(cell.areas().total, cell.metric):.1f}" if cell.images.num_rows else ""
    return f"{number} {'' if cell.status == 'ok' else cell.status}".strip()
