"""What the page shows beyond tables: single images, confusion, pairs of rows, ranks over datasets."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, Final

import numpy as np
from PIL import Image
from scipy.stats import rankdata, studentized_range

from bench.metrics import score
from bench.metrics.bootstrap import Draws, difference
from bench.metrics.significance import holm
from bench.store.maps import LabelMaps
from bench.store.result import StoredResult

SHOWN: Final = 120  # images of a dataset whose scores the page holds, spread evenly over it
WORST: Final = 6  # images of a cell that are listed
THUMBNAIL: Final = 96  # pixels of the long side
BUDGET: Final = 300_000  # characters of all thumbnails


def image_scores(cell: StoredResult) -> dict[str, Any]:
    """Scores of single images, in per cent with one digit: of some that are spread over the dataset, and the worst.

    `at` and `each` go together; two cells of one dataset with equal `at` can be set against each other.
    """
    values, ids = np.asarray(score(cell.areas(), cell.metric), float), cell.ids
    at = np.unique(np.linspace(0, len(values) - 1, min(SHOWN, len(values))).round().astype(int))
    defined = np.flatnonzero(~np.isnan(values))
    worst = defined[np.argsort(values[defined], kind="stable")][:WORST]
    return {
        "at": [cell.indices[place] for place in at],
        "each": [_digit(values[place]) for place in at],
        "worst": [[ids[place], _digit(values[place])] for place in worst],
    }


def thumbnails(cells: Iterable[StoredResult]) -> dict[str, dict[str, str]]:
    """ "row, tab, dataset" -> image id -> small PNG (data URI) of each worst image whose label map was kept.

    The worst image of each cell, then the second worst of each, until the budget is spent.
    """
    kept = [(cell, maps) for cell in cells if (maps := LabelMaps.of(cell)).valid]
    worst = [(cell, maps, [sample for sample, _ in image_scores(cell)["worst"]]) for cell, maps in kept]
    found: dict[str, dict[str, str]] = {}
    spent = 0
    for place in range(WORST):
        for cell, maps, samples in worst:
            file = maps.find(samples[place]) if place < len(samples) and spent < BUDGET else None
            if file is not None:
                picture = _thumbnail(file.read_bytes())
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
    """Of the pixels of each true class (a line), per cent that were given each class (a column); None for no pixel."""
    counts = cell.confusion().sum(axis=0)[: len(cell.classes)].astype(float)
    total = counts.sum(axis=1, keepdims=True)
    shares = np.divide(100 * counts, total, out=np.full_like(counts, np.nan), where=total > 0)
    return [[_digit(value / 100) for value in line] for line in shares]


def paired(draws: Mapping[tuple[str, str], Draws], rows: Sequence[str], datasets: Sequence[str]) -> dict[str, Any]:
    """ "first, tab, second" -> dataset -> [low, high, p]: points, and p by Holm over the datasets of the pair.

    Of first - second on the same draws of scenes; p is twice the share of draws on the other side of 0, at least 1 of
    the number of draws. Rows that were not counted on the same images have no entry.
    """
    found: dict[str, Any] = {}
    for first, second in combinations(rows, 2):
        lines: dict[str, list[float]] = {}
        for dataset in datasets:
            one, other = draws.get((first, dataset)), draws.get((second, dataset))
            if one is None or other is None:
                continue
            try:
                both = difference(one, other)
            except ValueError:
                continue
            defined = both.values[~np.isnan(both.values)]
            if defined.size > 1:
                interval = both.interval()
                below = min(1.0, 2 * min((defined <= 0).mean(), (defined >= 0).mean()))
                lines[dataset] = [interval.low, interval.high, max(float(below), 1 / defined.size)]
        if not lines:
            continue
        adjusted = holm([line[2] for line in lines.values()])
        found[f"{first}\t{second}"] = {
            dataset: [round(100 * low, 2), round(100 * high, 2), round(float(p), 4)]
            for (dataset, (low, high, _)), p in zip(lines.items(), adjusted, strict=True)
        }
    return found


def mean_ranks(values: Mapping[str, Sequence[float]], level: float = 0.05) -> dict[str, Any] | None:
    """Mean rank of each row over datasets, and Nemenyi's critical difference (Demšar, JMLR 2006, section 3.2.2).

    values: row -> scores, one a dataset, the same datasets for all. None for fewer than two rows or datasets.
    """
    table = np.array(list(values.values()), float)  # (rows, datasets)
    if table.ndim != 2 or min(table.shape) < 2:
        return None
    ranks = rankdata(-table, axis=0).mean(axis=1)
    rows, datasets = table.shape
    critical = studentized_range.ppf(1 - level, rows, np.inf) / np.sqrt(2) * np.sqrt(rows * (rows + 1) / (6 * datasets))
    return {
        "ranks": {row: round(float(rank), 3) for row, rank in zip(values, ranks, strict=True)},
        "critical": round(float(critical), 3),
        "datasets": datasets,
    }


def _digit(value: float) -> float | None:
    return None if np.isnan(value) else round(100 * float(value), 1)
