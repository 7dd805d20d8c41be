"""IoU, mIoU and the like: ratios of sums of confusion arrays, or of their `Areas`.

Every metric is a fraction 0..1 and nan where it is 0/0; a mean over classes leaves nan out. A class that is
absent from the labels and predicted somewhere has IoU 0 and counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from bench.errors import check_known
from bench.metrics.pixel_counts import Areas, Counted, Counts, Floats

Metric: TypeAlias = Callable[[Counted], Floats]


def areas(counted: Counted) -> Areas:
    """Areas of confusion arrays; `Areas` pass through.

    >>> counts = np.array([[3, 1], [2, 4], [0, 0]])
    >>> areas(counts).stack.tolist()
    [[3, 4], [4, 6], [5, 5]]
    """
    if isinstance(counted, Areas):
        return counted
    return Areas(np.stack([intersection(counted), label_area(counted), predicted_area(counted)], axis=-2))


def intersection(counted: Counted) -> Counts:
    """Pixels (..., K) that have class k both as label and as prediction.

    >>> counts = np.array([[3, 1], [2, 4], [0, 0]])
    >>> intersection(counts).tolist()
    [3, 4]
    """
    if isinstance(counted, Areas):
        return counted.stack[..., 0, :]
    return np.diagonal(counted[..., :-1, :], axis1=-2, axis2=-1)


def label_area(counted: Counted) -> Counts:
    """Pixels (..., K) labelled k.

    >>> counts = np.array([[3, 1], [2, 4], [0, 0]])
    >>> label_area(counts).tolist()
    [4, 6]
    """
    area: Counts = counted.stack[..., 1, :] if isinstance(counted, Areas) else counted[..., :-1, :].sum(-1)
    return area


def predicted_area(counted: Counted) -> Counts:
    """Pixels (..., K) predicted k, those with a label out of range included.

    >>> counts = np.array([[3, 1], [2, 4], [0, 1]])
    >>> predicted_area(counts).tolist()
    [5, 6]
    """
    if isinstance(counted, Areas):
        return counted.stack[..., 2, :]
    area: Counts = counted.sum(-2)[..., : counted.shape[-2] - 1]  # without the column of no class
    return area


def iou(counted: Counted) -> Floats:
    """Intersection over union per class (..., K).

    >>> counts = np.array([[3, 1], [2, 4], [0, 0]])
    >>> iou(counts).round(3).tolist()
    [0.5, 0.571]
    """
    shared = intersection(counted)
    return ratio(shared, label_area(counted) + predicted_area(counted) - shared)


def class_accuracy(counted: Counted) -> Floats:
    """Recall per class (..., K), which mmsegmentation calls Acc: correct pixels over labelled pixels.

    >>> counts = np.array([[3, 1], [2, 4], [0, 0]])
    >>> class_accuracy(counts).round(3).tolist()
    [0.75, 0.667]
    """
    return ratio(intersection(counted), label_area(counted))


def precision(counted: Counted) -> Floats:
    """Correct pixels over predicted pixels per class (..., K).

    >>> counts = np.array([[3, 1], [2, 4], [0, 0]])
    >>> precision(counts).tolist()
    [0.6, 0.8]
    """
    return ratio(intersection(counted), predicted_area(counted))


def f1(counted: Counted) -> Floats:
    """Harmonic mean of precision and recall per class (..., K), also known as Dice coefficient.

    >>> counts = np.array([[3, 1], [2, 4], [0, 0]])
    >>> f1(counts).round(3).tolist()
    [0.667, 0.727]
    """
    return ratio(2 * intersection(counted), label_area(counted) + predicted_area(counted))


def mean_iou(counted: Counted) -> Floats:
    """Mean IoU (...) over the classes with a union, background included.

    >>> counts = np.array([[3, 1], [2, 4], [0, 0]])
    >>> float(mean_iou(counts).round(3))
    0.536
    """
    return mean_over_classes(iou(counted))


def iou_of_labelled(counted: Counted) -> Floats:
    """IoU (..., K) of the classes that are in the labels; nan for others.

    >>> iou_of_labelled(np.array([[3, 1, 1], [2, 4, 0], [0, 0, 0], [0, 0, 0]])).round(3).tolist()
    [0.429, 0.571, nan]
    """
    return np.where(label_area(counted) > 0, iou(counted), np.nan)


def mean_iou_labelled(counted: Counted) -> Floats:
    """Mean IoU (...) over the classes that are in the labels, as detectron2 takes it.

    >>> counts = np.array([[3, 1, 1], [2, 4, 0], [0, 0, 0], [0, 0, 0]])
    >>> float(mean_iou_labelled(counts).round(3)), float(mean_iou(counts).round(3))
    (0.5, 0.333)
    """
    return mean_over_classes(iou_of_labelled(counted))


def mean_accuracy(counted: Counted) -> Floats:
    """Mean of `class_accuracy` (...) over the labelled classes: mAcc.

    >>> counts = np.array([[3, 1], [2, 4], [0, 0]])
    >>> float(mean_accuracy(counts).round(3))
    0.708
    """
    return mean_over_classes(class_accuracy(counted))


def mean_f1(counted: Counted) -> Floats:
    """Mean of `f1` (...) over the classes that are labelled or predicted: mmsegmentation's mDice, not its mFscore.

    >>> counts = np.array([[3, 1], [2, 4], [0, 0]])
    >>> float(mean_f1(counts).round(3))
    0.697
    """
    return mean_over_classes(f1(counted))


def overall_accuracy(counted: Counted) -> Floats:
    """Correct pixels over pixels with a label in range (...): aAcc.

    >>> counts = np.array([[3, 1], [2, 4], [0, 0]])
    >>> float(overall_accuracy(counts))
    0.7
    """
    return ratio(intersection(counted).sum(-1), label_area(counted).sum(-1))


def foreground_iou(counted: Counted) -> Floats:
    """IoU of class 1 (...), which the paper reports for buildings, roads and floods (background, object).

    >>> counts = np.array([[3, 1], [2, 4], [0, 0]])
    >>> float(foreground_iou(counts).round(3))
    0.571
    """
    return iou(counted)[..., 1]


def class_parts(counted: Counted, name: str) -> Floats:
    """Parts (..., K) of a score "miou", "miou_labelled" or "foreground_iou", by class; 0 for one that is left out.

    >>> counts = np.array([[3, 1], [2, 4], [0, 0]])
    >>> class_parts(counts, "miou").round(3).tolist(), class_parts(counts, "foreground_iou").round(3).tolist()
    ([0.25, 0.286], [0.0, 0.571])
    """
    if name == "foreground_iou":
        values = np.where(np.arange(label_area(counted).shape[-1]) == 1, iou(counted), np.nan)
    else:
        values = {"miou": iou, "miou_labelled": iou_of_labelled}[name](counted)
    known = ~np.isnan(values)
    parts: Floats = np.where(known, values, 0) / np.maximum(known.sum(-1, keepdims=True), 1)
    return parts


def mean_iou_per_image(counted: Counted) -> float:
    """mIoU^I of N images: the mean over images of an image's mean IoU over the classes in its label.

    A class that is only predicted is left out here, as in Wang et al., arXiv 2310.19252 (fine-grained mIoU);
    an image without any label in range is left out too.

    >>> round(mean_iou_per_image(np.array([[[3, 1], [2, 4], [0, 0]], [[4, 4], [0, 0], [0, 0]]])), 3)
    0.518
    """
    return float(mean_over_classes(mean_iou_labelled(counted)))


METRICS: dict[str, Metric] = {
    "miou": mean_iou,
    "miou_labelled": mean_iou_labelled,
    "foreground_iou": foreground_iou,
    "macc": mean_accuracy,
    "aacc": overall_accuracy,
    "mf1": mean_f1,
}


def score(counted: Counted, metric: str) -> Floats:
    """Metric called `metric` (a key of METRICS) of each confusion array, or its areas (...).

    >>> counts = np.array([[3, 1], [2, 4], [0, 0]])
    >>> float(score(counts, "aacc"))
    0.7
    """
    check_known(metric, METRICS, f"unknown metric {metric!r}")
    return METRICS[metric](counted)


def constant_score(labels: Counts, metric: str) -> float:
    """Score of the best prediction of one class for all pixels, on labels with these areas (K,).

    >>> constant_score(np.array([6, 4]), "aacc")
    0.6
    """
    one = np.eye(len(labels))  # a line for each predicted class
    stack = np.stack([one * labels, np.broadcast_to(labels, one.shape), one * labels.sum()], axis=1)
    return float(np.nanmax(score(Areas(stack), metric)))


def chance_score(labels: Counts, metric: str) -> float:
    """Score of the expected counts of a prediction that is drawn uniformly for each pixel.

    >>> chance_score(np.array([6, 4]), "aacc")
    0.5
    """
    classes = len(labels)
    expected = [labels / classes, labels, np.full(classes, labels.sum() / classes)]
    return float(score(Areas(np.stack(expected)), metric))


def summary(counted: Counted, metric: str) -> dict[str, Any]:
    """Every number of one cell, from its images (N, K + 1, K) or their sum (K + 1, K), or the areas of either.

    Plain floats in 0..1 or nan: `score` (the metric called `metric`), `miou`, `macc`, `aacc`, `mf1`, with two
    classes `foreground_iou`, and with the images apart `miou_per_image`. Lists of K floats: `iou`, `acc`,
    `precision`, `f1`.

    >>> summary(np.array([[3, 1], [2, 4], [0, 0]]), "aacc")["acc"]
    [0.75, 0.6666666666666666]
    """
    images = areas(counted)
    total, classes = images.total, images.stack.shape[-1]
    names = [name for name in METRICS if name != "foreground_iou" or classes == 2]
    numbers: dict[str, Any] = {"score": float(score(total, metric))}
    numbers |= {name: float(score(total, name)) for name in names}
    if images.stack.ndim == 3:
        numbers["miou_per_image"] = mean_iou_per_image(images)
    per_class = {"iou": iou, "acc": class_accuracy, "precision": precision, "f1": f1}
    return numbers | {name: function(total).tolist() for name, function in per_class.items()}


def ratio(numerator: Counts, denominator: Counts) -> Floats:
    """Divide, with nan where the denominator is 0.

    >>> ratio(np.array([1, 2]), np.array([4, 0])).tolist()
    [0.25, nan]
    """
    quotient = np.full(np.shape(denominator), np.nan)
    np.divide(numerator, denominator, out=quotient, where=np.asarray(denominator) != 0)
    return quotient


def mean_over_classes(values: Floats) -> Floats:
    """Mean over the last axis without its nan entries; nan where nothing is left.

    >>> mean_over_classes(np.array([[0.25, np.nan, 0.75], [np.nan] * 3])).tolist()
    [0.5, nan]
    """
    return ratio(np.nansum(values, axis=-1), np.count_nonzero(~np.isnan(values), axis=-1))
