"""bench.metrics.boundary against its definition (erode each class's mask) and cases done by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from bench.metrics.boundary import boundary_counts, boundary_distance, boundary_iou


def by_definition(label: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Mask by mask: frame of zeros, as many erosions by 3 x 3 as the distance, mask minus what is left."""

    def boundary(mask: np.ndarray) -> np.ndarray:
        eroded = ndimage.binary_erosion(np.pad(mask, 1), np.ones((3, 3)), iterations=boundary_distance(*mask.shape))
        return mask & ~eroded[1:-1, 1:-1]

    counts = []
    for index in range(classes):
        one, other = (boundary((of == index) & (label != 255)) for of in (label, predicted))
        counts.append([(one & other).sum(), (one | other).sum()])
    return np.array(counts)


def test_a_shifted_square_by_hand():
    label, predicted = np.zeros((2, 7, 7), np.uint8)
    label[2:5, 2:5] = 1  # 3 x 3: its boundary is all but the centre (3, 3)
    predicted[2:5, 3:6] = 1  # one to the right: all but (3, 4)
    counts = boundary_counts(label, predicted, 3)
    # class 1: the squares share 2 columns of 3, less the two centres; 8 + 8 - 4
    assert counts[1].tolist() == [4, 12]
    # class 0: all 40 pixels of it in the label; in the prediction 49 - 9, less the 5 that see no
    # 1 and no border; both have what is in neither square (49 - 12) nor among those 5
    assert counts[0].tolist() == [32, 40 + 35 - 32]
    assert counts[2].tolist() == [0, 0]
    assert counts.dtype == np.int64
    np.testing.assert_equal(boundary_iou(counts)[1:], [1 / 3, np.nan])


def test_the_image_border_is_a_boundary():
    label = np.zeros((6, 6), np.uint8)
    assert boundary_counts(label, label, 1).tolist() == [[20, 20]]  # the outermost ring


@pytest.mark.parametrize(
    ("height", "width", "pixels"), [(1, 1, 1), (30, 40, 1), (60, 80, 2), (3000, 4000, 100), (448, 448, 13)]
)
def test_distance_is_two_percent_of_the_diagonal(height, width, pixels):
    assert boundary_distance(height, width) == pixels


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), shape=st.sampled_from([(1, 5), (3, 3), (17, 23), (60, 80), (110, 140)]))
def test_all_classes_at_once_equals_class_by_class(seed, shape):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(5, size=(shape[0] // 9 + 1, shape[1] // 9 + 1), dtype=np.uint8)
    label = np.kron(coarse, np.ones((9, 9), np.uint8))[: shape[0], : shape[1]]  # 4: out of range for 4 classes
    predicted = np.minimum(np.roll(label, rng.integers(0, 4, 2), (0, 1)), 3)
    label = label.copy()
    label[rng.random(shape) < 0.005] = 255
    np.testing.assert_array_equal(boundary_counts(label, predicted, 4), by_definition(label, predicted, 4))


def test_ignored_pixels_are_in_no_mask():
    label, predicted = np.zeros((2, 8, 8), np.uint8)
    label[:, 4:] = 255
    predicted[:, 4:] = 1  # not held against it
    assert boundary_counts(label, predicted, 2).tolist() == [[20, 20], [0, 0]]  # the rim of 8 x 4: 32 - 12
    assert not boundary_counts(np.full_like(label, 255), predicted, 2).any()


def test_class_numbers_do_not_matter():
    """They do where the label map itself is eroded and subtracted, as in detectron2."""
    rng = np.random.default_rng(0)
    label = np.kron(rng.integers(3, size=(5, 5), dtype=np.uint8), np.ones((6, 6), np.uint8))
    predicted = np.roll(label, 1, axis=1)
    renumber = np.array([2, 0, 1], np.uint8)
    renumbered = boundary_counts(renumber[label], renumber[predicted], 3)
    np.testing.assert_array_equal(renumbered[renumber], boundary_counts(label, predicted, 3))


def test_counts_of_images_add_up_before_the_division():
    images = np.array([[[1, 2], [0, 4]], [[3, 6], [0, 0]]])
    assert boundary_iou(images.sum(0)).tolist() == [4 / 8, 0.0]
    np.testing.assert_equal(boundary_iou(images), [[1 / 2, 0.0], [1 / 2, np.nan]])


def test_an_outline_error_weighs_more_than_in_the_area():
    label, predicted = np.zeros((2, 100, 100), np.uint8)
    label[20:80, 20:80] = 1
    predicted[22:82, 20:80] = 1
    area = (label & predicted).sum() / (label | predicted).sum()
    assert area > 0.9
    assert boundary_iou(boundary_counts(label, predicted, 2))[1] < 0.65
