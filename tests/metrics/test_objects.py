from __future__ import annotations

import numpy as np
from scipy import ndimage

from bench.metrics.objects import DISTANCES, SIZES, distance_counts, size_counts
from bench.settings import IGNORED


def scene(seed: int, size: tuple[int, int] = (150, 120)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Label of 3 classes in blobs, with ignored pixels, and two predictions."""
    generator = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(generator.normal(size=size), 4)
    label = np.digitize(smooth, np.quantile(smooth, [0.3, 0.9])).astype(np.uint8)
    label[60:64, :50] = IGNORED
    wrong = generator.integers(0, 3, (2, *size)).astype(np.uint8)
    first, second = np.where(generator.random((2, *size)) < [[[0.2]], [[0.6]]], wrong, label)
    return label, first, second


def test_objects_by_size_are_those_of_scipy() -> None:
    label, *both = scene(0)
    found = size_counts(label, both, classes=3)
    expected = np.zeros_like(found)
    for value in range(3):
        regions, number = ndimage.label(label == value, np.ones((3, 3)))
        for region in range(1, number + 1):
            inside = regions == region
            place = sum(inside.sum() >= size for size in SIZES)
            hits = [(one[inside] == value).sum() for one in both]
            expected[place] += [[2 * of >= inside.sum(), of] for of in (inside.sum(), *hits)]
    assert np.array_equal(found, expected) and (found[:3, 0, 0] > 0).all()
    assert found[:, 0, 1].sum() == (label != IGNORED).sum()


def test_pixels_by_distance_from_an_edge_between_classes() -> None:
    label, *both = scene(1)
    found, known = distance_counts(label, both, classes=3), label != IGNORED
    ys, xs = np.nonzero(known)
    near = np.full(label.shape, np.inf)
    others = {value: np.argwhere(known & (label != value)) for value in range(3)}
    beside = np.zeros(label.shape, bool)  # a neighbour of another class
    for value, places in others.items():
        away = ndimage.binary_dilation(known & (label != value), ndimage.generate_binary_structure(2, 1))
        beside |= away & (label == value)
        assert len(places)
    edges = np.argwhere(beside)
    for y, x in zip(ys, xs, strict=True):
        near[y, x] = 1 + np.sqrt(((edges - (y, x)) ** 2).sum(1).min())
    place = np.digitize(near, DISTANCES, right=True)
    for column, of in enumerate((known, *(one == label for one in both))):
        assert np.bincount(place[known & of], minlength=5).tolist() == found[:, column].tolist()


def test_a_label_without_edges_is_far_from_them() -> None:
    label = np.zeros((20, 30), np.uint8)
    label[10:] = IGNORED
    assert distance_counts(label, [label], classes=2).tolist() == [[0, 0]] * 4 + [[300, 300]]
    nothing = np.full_like(label, IGNORED)
    assert not distance_counts(nothing, [nothing], 2).any() and not size_counts(nothing, [nothing], 2).any()
