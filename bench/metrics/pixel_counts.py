"""Pixel counts of an image, and confusion arrays at a threshold.

Counts are kept, numbers are derived (`bench.metrics.scores`). For every image and row the joint histogram of label,
winning class and bin of the winning probability is stored sparsely (`count`); a threshold turns it into a confusion
array (`confusions_at`).

A confusion array is (..., K + 1, K) int64: the last axis is the prediction, the one before it the label,
whose extra row K holds pixels with a label outside 0..K-1. Those pixels count in the predicted area of a
class and never in a label area, which is what mmsegmentation's IoUMetric does. Pixels labelled 255 are in no
count. Where pixels below the threshold are given no class (background 255), a further column K counts them: they are
in the label area of their class, and in no predicted area. `Areas` are the sums of it that metrics need; of many images
and classes they are far smaller.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.settings import IGNORED

BINS = 100
HALF_AN_ULP = 1 << 28  # of a float32, as a bit of the same number in float64
Uint8s: TypeAlias = NDArray[np.uint8]
Int32s: TypeAlias = NDArray[np.int32]
Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Counts: TypeAlias = NDArray[np.integer[Any] | np.floating[Any]]  # floats: sums of weighted counts


@dataclass(frozen=True, eq=False)
class Areas:
    """Pixels of each class that metrics need of confusion arrays (...).

    stack: (..., 3, K), the pixels that have the class both as label and as prediction, as label, and as prediction.
    """

    stack: Counts

    @property
    def total(self) -> Areas:
        """Sum over all images: areas of stack (3, K)."""
        return Areas(self.stack.reshape(-1, *self.stack.shape[-2:]).sum(0))


Counted: TypeAlias = Counts | Areas  # confusion arrays, or what counts of them

_STRIP = 1 << 21  # pixels that a thread counts at a time; OpenCV counts in float32, exact up to 2**24


# Counting one image


def probability_bin(probability: NDArray[np.float32]) -> Uint8s:
    """Bin 0..99 of each winning probability: the number of edges k/100, k = 1..99, that are <= it.

    So p < float32(k/100) if and only if its bin is below k. An edge is k/100 rounded to float32, at most half an ulp
    away. So half an ulp more lifts each edge to k/100 or above it, and no number below an edge beyond k/100.

    >>> probability_bin(np.float32([0, 0.29, 0.995, 1])).tolist()
    [0, 29, 99, 99]
    """
    lifted = probability.astype(np.float64)
    lifted.view(np.int64)[...] |= HALF_AN_ULP
    lifted *= BINS
    bins: Uint8s = np.minimum(lifted.astype(np.uint8), np.uint8(BINS - 1))
    return bins


def count(label: Uint8s, predicted: Uint8s, probability_bins: Uint8s, classes: int) -> tuple[Int32s, Ints]:
    """Histogram of one image over label, winning class (before any threshold) and bin of its probability.

    All three maps are uint8 of one shape. Returns the keys that occur, ascending int32, and how many pixels
    have each, int64. ``key = (label * classes + predicted) * 100 + bin``, where a label outside 0..classes-1
    is `classes`. Raises ValueError for maps that do not fit each other or `classes`.

    >>> maps = np.array([[0, 1, 1, 255], [0, 0, 0, 0], [9, 5, 5, 5]], np.uint8)  # label, winning class, bin
    >>> [of.tolist() for of in count(*maps, classes=2)]
    [[9, 205], [1, 2]]
    """
    _check_maps(label, predicted, probability_bins, classes)
    row = np.minimum(np.arange(256), classes).astype(np.uint8)
    row[IGNORED] = 255  # outside of the histogram
    sizes = [classes + 1, classes, BINS]
    ends = [float(end) for size in sizes for end in (0, size)]
    maps = [pixels.reshape(1, -1) for pixels in (np.ascontiguousarray(label), predicted, probability_bins)]

    def histogram(start: int) -> Ints:
        labels, *others = (pixels[:, start : start + _STRIP] for pixels in maps)
        rows = labels if labels.max() < classes else cv2.LUT(labels, row)
        counted = cv2.calcHist([rows, *others], [0, 1, 2], None, sizes, ends)
        flat: Ints = counted.ravel().astype(np.int64)
        return flat

    starts = range(0, label.size, _STRIP)
    with ThreadPoolExecutor(max(1, cv2.getNumThreads())) as pool:
        counted = pool.map(histogram, starts) if len(starts) > 1 else map(histogram, starts)
        total = sum(counted, np.zeros(math.prod(sizes), np.int64))
    keys = np.flatnonzero(total)
    return keys.astype(np.int32), total[keys]


def _check_maps(label: Uint8s, predicted: Uint8s, probability_bins: Uint8s, classes: int) -> None:
    if not label.shape == predicted.shape == probability_bins.shape:
        raise ValueError(f"shapes differ: {label.shape}, {predicted.shape}, {probability_bins.shape}")
    if not label.dtype == predicted.dtype == probability_bins.dtype == np.uint8:
        raise ValueError(f"not uint8: {label.dtype}, {predicted.dtype}, {probability_bins.dtype}")
    if classes >= IGNORED:
        raise ValueError(f"{classes} classes: labels are bytes and {IGNORED} is the ignored one, so at most 254")
    if label.size and (predicted.max() >= classes or probability_bins.max() >= BINS):
        raise ValueError(f"predicted {predicted.max()} or bin {probability_bins.max()}: not below {classes}, {BINS}")


def confusion(label: Uint8s, predicted: Uint8s, classes: int) -> Ints:
    """Confusion array (classes + 1, classes) of one image from two label maps (uint8, one shape).

    >>> confusion(np.array([[0, 1, 7]], np.uint8), np.array([[0, 0, 1]], np.uint8), classes=2).tolist()
    [[1, 0], [1, 0], [0, 1]]
    """
    keys, counts = count(label, predicted, np.zeros_like(predicted), classes)
    return confusion_at(keys, counts, classes, threshold=0.0, background=0)


# Applying a threshold


def confusion_at(keys: Int32s, counts: Ints, classes: int, threshold: float, background: int) -> Ints:
    """Confusion array (classes + 1, classes) of one image: `confusions_at` for what `count` returned.

    >>> confusion_at(np.array([9, 205]), np.array([1, 2]), classes=2, threshold=0.08, background=1).tolist()
    [[1, 0], [0, 2], [0, 0]]
    """
    alone = SparseCounts(keys, counts, np.array([0, len(keys)]), classes)
    image: Ints = confusions_at(alone, threshold, background)[0]
    return image


class SparseCounts(NamedTuple):
    """Counts of N images over K classes as `count` gives them, one image after the other.

    keys, counts: image i has the entries offsets[i]..offsets[i + 1] of both (N + 1 offsets).
    """

    keys: Int32s
    counts: Ints
    offsets: Ints
    classes: int


def confusions_at(sparse: SparseCounts, threshold: float, background: int) -> Ints:
    """Confusion arrays (N, K + 1, K) of N images at a threshold.

    Pixels whose winning probability is below `threshold` count as class `background`; (N, K + 1, K + 1) where that is
    255, no class. Raises BenchError for a threshold that is no whole hundredth in 0..0.99: other thresholds cannot be
    recovered from the bins. Raises ValueError for a background that is neither.

    >>> sparse = SparseCounts(np.array([9, 205]), np.array([1, 2]), np.array([0, 1, 2]), classes=2)
    >>> confusions_at(sparse, threshold=0.0, background=0).tolist()
    [[[1, 0], [0, 0], [0, 0]], [[0, 0], [2, 0], [0, 0]]]
    """
    keys, counts, offsets, classes = sparse
    label, predicted = _at(keys, classes, threshold, background)
    columns = classes + (background == IGNORED)
    images, cells = len(offsets) - 1, (classes + 1) * columns
    image = np.repeat(np.arange(images), np.diff(offsets))
    # bincount adds in float64: exact below 2**53 pixels
    total = np.bincount(image * cells + label * columns + predicted, weights=counts, minlength=images * cells)
    return total.astype(np.int64).reshape(images, classes + 1, columns)


def areas_at(sparse: SparseCounts, threshold: float, background: int) -> Areas:
    """Areas (N) of the arrays that `confusions_at` gives of the same, without making them.

    >>> sparse = SparseCounts(np.array([9, 205]), np.array([1, 2]), np.array([0, 1, 2]), classes=2)
    >>> areas_at(sparse, threshold=0.0, background=0).total.stack.tolist()
    [[1, 0], [1, 2], [3, 0]]
    """
    keys, counts, offsets, classes = sparse
    (label, predicted), images = _at(keys, classes, threshold, background), len(offsets) - 1
    first = np.repeat(np.arange(images) * classes, np.diff(offsets))  # place of an image's class 0

    def added(of: Int32s, where: NDArray[np.bool_]) -> Ints:
        total = np.bincount((first + of)[where], weights=counts[where], minlength=images * classes)
        area: Ints = total.astype(np.int64).reshape(images, classes)
        return area

    known = predicted < classes
    parts = added(label, (label == predicted) & known), added(label, label < classes), added(predicted, known)
    return Areas(np.stack(parts, axis=1))


def _at(keys: Int32s, classes: int, threshold: float, background: int) -> tuple[Int32s, Int32s]:
    """Label and prediction of each key at a threshold; prediction `classes` is no class."""
    if not (0 <= background < classes or background == IGNORED):
        raise ValueError(f"background {background} is none of the {classes} classes")
    cell, probability_bins = np.divmod(keys, BINS)
    label, winner = np.divmod(cell, classes)
    below = probability_bins < first_kept_bin(threshold)
    return label, np.where(below, np.int32(min(background, classes)), winner)


def first_kept_bin(threshold: float) -> int:
    """Lowest bin of probability that is not below a threshold; BenchError for a threshold between two bins.

    >>> first_kept_bin(0.29)
    29
    """
    nearest = round(threshold * BINS)
    if abs(threshold * BINS - nearest) > 1e-6 or not 0 <= nearest < BINS:
        raise BenchError(f"threshold {threshold}: counts are kept in steps of 0.01; give one of 0, 0.01, … 0.99")
    return nearest


def probability_histogram(keys: Int32s, counts: Ints, classes: int) -> Ints:
    """Dense (classes + 1, classes, 100) histogram; equal keys (of many images) add up.

    >>> int(probability_histogram(np.array([9, 205, 9]), np.array([1, 2, 3]), classes=2)[0, 0, 9])
    4
    """
    total = np.bincount(keys, weights=counts, minlength=(classes + 1) * classes * BINS)
    return total.astype(np.int64).reshape(classes + 1, classes, BINS)


def moved_pixels(found: Ints, expected: Ints) -> float:
    """Pixels per million that one of two count arrays of the same images has in another place.

    >>> moved_pixels(np.array([3, 1]), np.array([4, 0]))
    250000.0
    """
    return 1e6 * float(np.abs(found - expected).sum()) / 2 / (float(expected.sum()) or 1.0)


def sweep(histogram: Ints, background: int) -> Ints:
    """Confusion arrays (100, K + 1, K) at the thresholds 0, 0.01, … 0.99 from a `probability_histogram`.

    (100, K + 1, K + 1) where the background is 255, no class.

    >>> histogram = probability_histogram(np.array([9, 205]), np.array([1, 2]), classes=2)
    >>> sweep(histogram, background=1)[[0, 6, 10]].tolist()
    [[[1, 0], [2, 0], [0, 0]], [[1, 0], [0, 2], [0, 0]], [[0, 1], [0, 2], [0, 0]]]
    """
    below = np.cumsum(histogram, axis=-1) - histogram  # [..., k]: pixels with a bin under k
    kept: Ints = np.moveaxis(histogram.sum(-1, keepdims=True) - below, -1, 0).copy()
    uncertain = np.moveaxis(below, -1, 0).sum(-1)
    if background == IGNORED:
        return np.concatenate([kept, uncertain[..., None]], axis=-1)
    kept[..., background] += uncertain
    return kept
