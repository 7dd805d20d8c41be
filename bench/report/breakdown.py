"""Where the difference between two stored rows on one dataset comes from: classes, images, confusion, objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import pandas as pd

from bench.data.samples import SampleSet
from bench.errors import BenchError
from bench.metrics import Ints, class_parts, iou, label_area, overall_accuracy, ratio, score
from bench.metrics.objects import DISTANCES, SIZES, distance_counts, size_counts
from bench.store.maps import LabelMaps
from bench.store.result import StoredResult

NO_CLASS: Final = "no class"
SIZE_NAMES: Final = [*(f"below {round(size**0.5)}²" for size in SIZES), "larger"]
DISTANCE_NAMES: Final = [*(f"up to {distance}" for distance in DISTANCES), "further"]


@dataclass(frozen=True, eq=False)
class Breakdown:
    """Two rows on one dataset, first - second; fractions, nan where there is nothing to divide by.

    classes: a line for each class: class, labelled (its share of the labelled pixels), first and second (IoU),
    difference, adds (how much of the difference of the two scores is of this class; these sum to it).
    images: a line for each image, the greatest gain first: index, id, scene, first and second (score of the image),
    difference, right (difference of the shares of its labelled pixels that are right).
    confusion: a line for each class that is taken for another, the greatest change first: label, predicted, first and
    second (share of the label's pixels), difference, of_all (of all labelled pixels, how many more).
    """

    first: str
    second: str
    dataset: str
    metric: str
    classes: pd.DataFrame
    images: pd.DataFrame
    confusion: pd.DataFrame


def breakdown(first: StoredResult, second: StoredResult) -> Breakdown:
    """Break the difference of two stored rows down, each at its own threshold.

    Raises ValueError for rows that were counted on other images or labels, or are scored by another metric.
    """
    both = first.areas(), second.areas()
    labelled, others = (label_area(areas) for areas in both)
    if first.indices != second.indices or first.metric != second.metric or not np.array_equal(labelled, others):
        raise ValueError(f"{first.row} and {second.row} on {first.dataset}: other images, labels or metric")
    metric, of_class = first.metric, [iou(areas.total) for areas in both]
    parts = [class_parts(areas.total, metric) for areas in both]
    pixels = labelled.sum(0)
    classes: pd.DataFrame = pd.DataFrame(
        {
            "class": first.classes,
            "labelled": ratio(pixels, np.full_like(pixels, pixels.sum())),
            "first": of_class[0],
            "second": of_class[1],
            "difference": of_class[0] - of_class[1],
            "adds": parts[0] - parts[1],
        }
    )
    scores, right = ([of(areas) for areas in both] for of in (lambda one: score(one, metric), overall_accuracy))
    images: pd.DataFrame = pd.DataFrame(
        {
            "index": first.indices,
            "id": first.ids,
            "scene": first.scenes,
            "first": scores[0],
            "second": scores[1],
            "difference": scores[0] - scores[1],
            "right": right[0] - right[1],
        }
    )
    return Breakdown(
        first=first.row,
        second=second.row,
        dataset=first.dataset,
        metric=metric,
        classes=classes,
        images=images.sort_values("difference", ascending=False, kind="stable", ignore_index=True),
        confusion=_changes(first, second),
    )


def _changes(first: StoredResult, second: StoredResult) -> pd.DataFrame:
    names = [*first.classes, NO_CLASS]
    counts = np.zeros((2, len(first.classes), len(names)), np.int64)
    for place, cell in enumerate((first, second)):
        found = cell.total_confusion()[: len(first.classes)]
        counts[place, :, : found.shape[1]] = found
    label, predicted = np.nonzero((counts.sum(0) > 0) & ~np.eye(*counts.shape[1:], dtype=bool))
    of_label, pixels = counts[0].sum(-1), counts[0].sum()
    shares = ratio(counts, np.broadcast_to(of_label[:, None], counts.shape))[:, label, predicted]
    of_all = np.subtract(*counts[:, label, predicted]) / max(1, pixels)
    frame: pd.DataFrame = pd.DataFrame(
        {
            "label": [names[place] for place in label],
            "predicted": [names[place] for place in predicted],
            "first": shares[0],
            "second": shares[1],
            "difference": shares[0] - shares[1],
            "of_all": of_all,
        }
    )
    changes: pd.DataFrame = frame.sort_values("of_all", key=abs, ascending=False, kind="stable", ignore_index=True)
    return changes


@dataclass(frozen=True, eq=False)
class ObjectBreakdown:
    """Two rows on the images of a dataset whose label maps both have kept; fractions.

    sizes: a line for each size of the objects in the label (pixels): size, objects, of_all (their share of the labelled
    pixels), first and second (share of them that is right), difference, found_first and found_second (share of the
    objects of which at least half is right).
    distances: a line for each distance from the nearest edge between classes of the label (pixels): distance, of_all,
    first, second, difference.
    images: how many of how many.
    """

    sizes: pd.DataFrame
    distances: pd.DataFrame
    images: tuple[int, int]


class ObjectCounts(NamedTuple):
    """What `size_counts` and `distance_counts` say of the label maps of some rows, added up over images.

    images: how many of how many.
    """

    sizes: Ints
    distances: Ints
    images: tuple[int, int]


def object_counts(cells: Sequence[StoredResult], samples: SampleSet, most: int | None = None) -> ObjectCounts | None:
    """Count the label maps of rows by size of objects and distance from edges; None without any.

    samples: those that were counted; the images are those of which all rows have kept their label map.
    most: so many of them at most, spread evenly. Raises BenchError where their labels are others, or cannot be read.
    """
    maps, classes = [LabelMaps.of(cell) for cell in cells], len(cells[0].classes)
    areas = dict(zip(cells[0].ids, label_area(cells[0].areas()), strict=True))
    kept = set.intersection(*(of.kept(cell.ids) for of, cell in zip(maps, cells, strict=True)))
    names = [name for name in samples.ids if name in kept and name in areas]
    if most is not None and len(names) > most:
        names = [names[place] for place in np.linspace(0, len(names) - 1, most).round().astype(int)]
    wanted = set(names)
    sizes = np.zeros((len(SIZE_NAMES), 1 + len(cells), 2), np.int64)
    distances, used = np.zeros((len(DISTANCE_NAMES), 1 + len(cells)), np.int64), 0
    for source, indices in enumerate(samples.sources):
        if wanted.isdisjoint(samples.ids[index] for index in indices):
            continue
        for sample in samples.read_source(source):
            labels = [of.labels(sample.id) for of in maps] if sample.id in wanted else [None]
            predictions = [one for one in labels if one is not None]
            if len(predictions) < len(cells):
                continue
            counted = np.bincount(sample.label.ravel(), minlength=256)[:classes]
            if not np.array_equal(counted, areas[sample.id]):
                where = f"{samples.root}: the label of {sample.id}"
                raise BenchError(f"{where} is not the one that was counted; give the folder of the run (--data-root)")
            sizes += size_counts(sample.label, predictions, classes)
            distances += distance_counts(sample.label, predictions, classes)
            used += 1
    return ObjectCounts(sizes, distances, (used, len(samples))) if used else None


def object_breakdown(first: StoredResult, second: StoredResult, samples: SampleSet) -> ObjectBreakdown | None:
    """Break the difference of two stored rows down by size of objects and distance from edges; None without label maps.

    samples: those that were counted. Raises BenchError where their labels are others, or cannot be read.
    """
    found = object_counts([first, second], samples)
    if found is None:
        return None
    sizes = found.sizes
    by_size = _shares("size", SIZE_NAMES, sizes[..., 1])
    by_size.insert(1, "objects", sizes[:, 0, 0])
    for column, name in ((1, "found_first"), (2, "found_second")):
        by_size[name] = ratio(sizes[:, column, 0], sizes[:, 0, 0])
    return ObjectBreakdown(by_size, _shares("distance", DISTANCE_NAMES, found.distances), found.images)


def _shares(key: str, names: list[str], pixels: Ints) -> pd.DataFrame:
    """Return the shares of pixels (n, 3) that are right: those that there are, and those that each row has right."""
    right = ratio(pixels[:, 1:], np.broadcast_to(pixels[:, :1], (len(pixels), 2)))
    of_all = pixels[:, 0] / max(1, pixels[:, 0].sum())
    columns = {key: names, "of_all": of_all, "first": right[:, 0], "second": right[:, 1]}
    frame: pd.DataFrame = pd.DataFrame(columns | {"difference": right[:, 0] - right[:, 1]})
    return frame
