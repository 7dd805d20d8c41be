"""Where the difference between two stored rows on one dataset comes from: classes, images, confusion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench.metrics import class_parts, iou, label_area, overall_accuracy, ratio, score
from bench.store.result import StoredResult

NO_CLASS = "no class"


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
