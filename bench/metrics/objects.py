"""How right label maps are by the size of the objects in the label, and by the distance from their edges.

An object is a connected region (8 neighbours) of one class.
Pixels whose label is ignored, or no class, are in no count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np

from bench.metrics.pixel_counts import Ints, Uint8s

SIZES: Final = (32**2, 96**2, 256**2)  # pixels; the first two are COCO's
DISTANCES: Final = (2, 4, 8, 16)  # pixels; the one beside an edge has distance 1


def size_counts(label: Uint8s, predictions: Sequence[Uint8s], classes: int) -> Ints:
    """Count objects and pixels (4, P + 1, 2) by size: below each of SIZES, and the rest; they add up over images.

    label, predictions: (H, W) class numbers.
    Column 0 holds the objects and pixels that there are, column p + 1 the objects of which prediction p has at least
    half, and the pixels that it has right.

    >>> label = np.repeat(np.array([[0, 1]], np.uint8), [40, 24], axis=1).repeat(32, axis=0)
    >>> size_counts(label, [np.zeros_like(label)], classes=2)[:2].tolist()
    [[[1, 768], [0, 0]], [[1, 1280], [1, 1280]]]
    """
    total = np.zeros((len(SIZES) + 1, len(predictions) + 1, 2), np.int64)
    right = [prediction == label for prediction in predictions]
    for value in np.unique(label[label < classes]):
        number, regions = cv2.connectedComponents((label == value).astype(np.uint8), connectivity=8)
        areas, *hits = (np.bincount(of, minlength=number)[1:] for of in (regions.ravel(), *(regions[r] for r in right)))
        place = np.digitize(areas, SIZES)
        for column, of in enumerate((areas, *hits)):
            np.add.at(total[:, column], place, np.stack([2 * of >= areas, of], axis=-1))
    return total


def distance_counts(label: Uint8s, predictions: Sequence[Uint8s], classes: int) -> Ints:
    """Count pixels (5, P + 1) by distance from the nearest edge between classes: up to each of DISTANCES, and more.

    Column 0 holds the pixels that there are, column p + 1 those that prediction p has right.

    >>> label = np.array([[0, 0, 0, 1, 1]], np.uint8)
    >>> distance_counts(label, [np.zeros_like(label)], classes=2)[:2].tolist()
    [[4, 2], [1, 1]]
    """
    known, edge = label < classes, np.zeros(label.shape, bool)
    for before, after in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        differ = (label[before] != label[after]) & known[before] & known[after]
        edge[before] |= differ
        edge[after] |= differ
    distance = cv2.distanceTransform((~edge).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) + 1
    place, size = np.digitize(distance, DISTANCES, right=True), len(DISTANCES) + 1
    if not edge.any():
        place[:] = len(DISTANCES)
    right = [prediction == label for prediction in predictions]
    counted = [np.bincount(place[known & of], minlength=size) for of in (known, *right)]
    return np.stack(counted, axis=-1).astype(np.int64)
