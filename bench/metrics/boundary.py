"""Boundary IoU: the overlap of the outlines alone (Cheng et al., CVPR 2021, arXiv 2103.16562), per class.

For each class the mask of the label and of the prediction is eroded by a distance d; what the erosion takes
away is the boundary. d is 2 % of the image's diagonal, at least 1 pixel. The image border counts as an edge
of the mask, ignored pixels belong to no mask, and the counts of all images are added before the division.

One erosion for each class and map would be slow with many classes. A pixel survives the erosion of its
class's mask if and only if its (2 d + 1)-square holds nothing but that class, so the minimum and the maximum
of the label map over that square decide it for all classes at once.
"""

from __future__ import annotations

import math

import numpy as np

from bench.metrics import Counts, Floats, Ints, Uint8s, ratio
from bench.settings import IGNORED


def boundary_distance(height: int, width: int) -> int:
    """Thickness of the boundary in pixels: 2 % of the diagonal, rounded, at least 1.

    >>> boundary_distance(300, 400)
    10
    """
    return max(1, round(0.02 * math.hypot(height, width)))


def boundary_counts(label: Uint8s, predicted: Uint8s, classes: int) -> Ints:
    """Boundary pixels of one image: (classes, 2) int64, intersection and union; they add up over images.

    label, predicted: (H, W) uint8 class indices; label 255 is ignored, and no class where it is outside
    0..classes-1.

    >>> label = np.repeat(np.array([[0, 1]], np.uint8), 4, axis=1)
    >>> boundary_counts(label, label, classes=2).tolist()
    [[4, 4], [4, 4]]
    """
    distance = boundary_distance(*label.shape)
    of_label = _boundary(label, distance)
    of_prediction = _boundary(np.where(label == IGNORED, np.uint8(IGNORED), predicted), distance)
    agreed = of_label[of_label == of_prediction]
    intersection, labels, predictions = (
        np.bincount(pixels.ravel(), minlength=256)[:classes] for pixels in (agreed, of_label, of_prediction)
    )
    return np.stack([intersection, labels + predictions - intersection], axis=-1)


def boundary_iou(counts: Counts) -> Floats:
    """Boundary IoU (..., K) of counts (..., K, 2); nan for a class without any boundary.

    >>> boundary_iou(np.array([[1, 4], [0, 0]])).tolist()
    [0.25, nan]
    """
    return ratio(counts[..., 0], counts[..., 1])


def _boundary(classes: Uint8s, distance: int) -> Uint8s:
    """Set pixels further than `distance` from all that is not their class to IGNORED."""
    framed = np.pad(classes, distance, constant_values=IGNORED)
    width = 2 * distance + 1
    lowest, highest = (_running(_running(framed, width, of, 0), width, of, 1) for of in (np.minimum, np.maximum))
    return np.where(lowest == highest, np.uint8(IGNORED), classes)


def _running(values: Uint8s, width: int, extreme: np.ufunc, axis: int) -> Uint8s:
    """Minimum or maximum of every `width` neighbours along an axis, which gets width - 1 shorter.

    Doubles the covered width in each step: log2(width) passes whatever the distance.
    """
    values = np.moveaxis(values, axis, 0)
    covered = 1
    while covered < width:
        step = min(covered, width - covered)
        values = extreme(values[step:], values[:-step])
        covered += step
    return np.moveaxis(values, 0, axis)
