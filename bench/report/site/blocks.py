"""Data of the page beyond tables: single images, confusion, pairs of rows, ranks over datasets."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from PIL import Image

from bench.metrics import score
from bench.metrics.intervals import interval
from bench.metrics.significance import holm
from bench.report.scores import Collection, rounded
from bench.store.maps import LabelMaps
from bench.store.result import StoredResult

SHOWN: Final = 120  # images of a dataset whose scores the page holds, spread evenly over it
WORST: Final = 6  # images of a cell that are listed
THUMBNAIL: Final = 96  # pixels of the long side
BUDGET: Final = 300_000  # characters of all thumbnails


def image_scores(cell: StoredResult) -> dict[str, Any]:
    """Return scores of single images, in per cent with one digit: some that are spread over the dataset, and the worst.

    `at` and `each` go together; two cells of one dataset with equal `at` can be set against each other.
    """
    values, ids = np.asarray(score(cell.areas(), cell.metric), float), cell.ids
    at = np.unique(np.linspace(0, len(values) - 1, min(SHOWN, len(values))).round().astype(int))
    defined = np.flatnonzero(~np.isnan(values))
    worst = defined[np.argsort(values[defined], kind="stable")][:WORST]
    return {
        "at": [cell.indices[place] for place in at],
        "each": [rounded(values[place], 1) for place in at],
        "worst": [[ids[place], rounded(values[place], 1)] for place in worst],
    }


def thumbnails(cells: Iterable[StoredResult]) -> dict[str, dict[str, str]]:
    """Return small PNGs (data URI) of worst images whose label map was kept: "row, tab, dataset" -> image id -> PNG.

    The worst image of each cell, then the second worst of each, until the budget is spent.
    """
    kept = [(cell, maps) for cell in cells if (maps := LabelMaps.of(cell)).valid]
    worst = [(cell, maps, [sample for sample, _ in image_scores(cell)["worst"]]) for cell, maps in kept]
    found: dict[str, dict[str, str]] = {}
    spent = 0
    for place in range(WORST):
        for cell, maps, samples in worst:
            png = maps.find(samples[place]) if place < len(samples) and spent < BUDGET else None
            if png is not None:
                picture = _thumbnail(png)
                spent += len(picture)
                found.setdefault(f"{cell.row}\t{cell.dataset}", {})[samples[place]] = picture
    return found


def _thumbnail(png: bytes) -> str:
    picture = Image.open(io.BytesIO(png))
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def confusion_shares(cell: StoredResult) -> list[list[float | None]]:
    """Return per cent of each true class's pixels (a line) that were given each class (a column); None for no pixel.

    Pixels that were given no class are missing from a line.
    """
    counts = cell.confusion().sum(axis=0)[: len(cell.classes)].astype(float)
    total = counts.sum(axis=1, keepdims=True)
    shares = np.divide(100 * counts, total, out=np.full_like(counts, np.nan), where=total > 0)
    return [[rounded(value / 100, 1) for value in line[: len(cell.classes)]] for line in shares]


def paired(collection: Collection, rows: Sequence[str], datasets: Sequence[str]) -> dict[str, Any]:
    """Return the paired tests of first - second: "first, tab, second" -> dataset -> [low, high, p, p by Holm].

    The ends are in points, Holm's correction is over all that is here; None where there are too few scenes.
    Rows that were not counted on the same images have no entry.
    """
    p_values = {(*pair, dataset): p for dataset in datasets for pair, p in collection.p_values(rows, [dataset]).items()}
    adjusted = holm(list(p_values.values())).tolist()
    found: dict[str, Any] = {}
    for ((first, second, dataset), p), by_holm in zip(p_values.items(), adjusted, strict=True):
        one, other = (collection.scores[row, dataset].scenes for row in (first, second))
        if one is not None and other is not None:
            both = interval(one, other)
            line = [rounded(both.low, 2), rounded(both.high, 2), rounded(p, 5, 1), rounded(by_holm, 5, 1)]
            found.setdefault(f"{first}\t{second}", {})[dataset] = line
    return found
