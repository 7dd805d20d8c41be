"""Data of the page beyond tables: single images, confusion, pairs of rows."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import numpy as np

from bench.data.samples import SampleSet
from bench.errors import BenchError
from bench.metrics import ratio, score
from bench.metrics.intervals import interval
from bench.metrics.significance import holm
from bench.report.breakdown import DISTANCE_NAMES, SIZE_NAMES, object_counts
from bench.report.scores import Collection, rounded
from bench.store.maps import LabelMaps
from bench.store.result import StoredResult

NO_SCORE: Final = 65535
COUNTED: Final = 50  # images of a dataset whose objects are counted, spread evenly


def image_scores(cell: StoredResult) -> str:
    """Return the scores of a result's images, by index: base64 of 16 bits each, hundredths of a per cent.

    NO_SCORE stands for an image without one.
    """
    found = np.full(max(cell.indices, default=-1) + 1, NO_SCORE, "<u2")
    values = np.asarray(score(cell.areas(), cell.metric), float)
    known = ~np.isnan(values)
    found[np.asarray(cell.indices, int)[known]] = np.rint(10_000 * values[known])
    return base64.b64encode(found.tobytes()).decode("ascii")


def confusion_shares(cell: StoredResult) -> list[list[float | None]]:
    """Return per cent of each true class's pixels (a line) that were given each class (a column); None for no pixel.

    A last column is of no class, where pixels below the threshold are given none.
    """
    counts = cell.total_confusion()[: len(cell.classes)]
    shares = ratio(counts, np.broadcast_to(counts.sum(axis=1, keepdims=True), counts.shape))
    return [[rounded(value, 1) for value in line] for line in shares]


def objects(cells: Iterable[StoredResult], samples_of: Callable[[str], SampleSet | None]) -> dict[str, dict[str, Any]]:
    """Return how right label maps are by size of objects and distance from edges, of datasets whose labels are there.

    dataset -> "images": [counted, of how many]; "sizes" and "distances" -> "names", and "of" -> "all" (what there is)
    or a row (what it has right) -> [objects, pixels] of each size, pixels of each distance.
    """
    kept: dict[str, list[StoredResult]] = {}
    for cell in cells:
        if LabelMaps.of(cell).valid:
            kept.setdefault(cell.dataset, []).append(cell)
    found: dict[str, dict[str, Any]] = {}
    for dataset, of_dataset in kept.items():
        samples = samples_of(dataset)
        counts = None
        with contextlib.suppress(BenchError):  # other labels, or files that cannot be read
            bare = [cell.without_counts() for cell in of_dataset]  # their counts are freed with them
            counts = object_counts(bare, samples, COUNTED) if samples else None
        if counts is not None:
            places = ["all", *(cell.row for cell in of_dataset)]
            found[dataset] = {
                key: {"names": names, "of": dict(zip(places, np.moveaxis(of, 1, 0).tolist(), strict=True))}
                for key, names, of in (
                    ("sizes", SIZE_NAMES, counts.sizes),
                    ("distances", DISTANCE_NAMES, counts.distances),
                )
            } | {"images": counts.images}
    return found


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
