from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.inference.windows import Box, WindowMean, pad_to_multiple, squashed_size, window_boxes, window_starts
from bench.settings import WHOLE


def test_starts_of_the_paper() -> None:
    assert window_starts(448, 224, 112) == [0, 112, 224]


def test_last_window_is_moved_back_inside() -> None:
    assert window_starts(400, 224, 112) == [0, 112, 176]
    assert window_starts(225, 224, 112) == [0, 1]


def test_axis_shorter_than_a_window_gives_one() -> None:
    assert window_starts(100, 224, 112) == [0]
    assert window_boxes(100, 224, 224, 112) == [Box(0, 0, 100, 224)]


@given(st.integers(1, 60), st.integers(1, 60), st.integers(4, 40), st.integers(2, 40))
def test_windows_cover_the_image_are_equal_in_size_and_in_order(
    height: int, width: int, window: int, stride: int
) -> None:
    stride = min(stride, window)
    boxes = window_boxes(height, width, window, stride)
    seen = torch.zeros(height, width)
    for box in boxes:
        assert (box.bottom - box.top, box.right - box.left) == (min(window, height), min(window, width))
        seen[box.top : box.bottom, box.left : box.right] += 1
    assert seen.min() >= 1
    assert boxes == sorted(set(boxes))


def test_padding_is_even_and_the_odd_pixel_goes_right_and_bottom() -> None:
    padded, inside = pad_to_multiple(torch.ones(1, 3, 13, 16), 16)
    assert padded.shape == (1, 3, 16, 16)
    assert inside == Box(1, 0, 14, 16)
    assert padded[0, 0, 0].sum() == 0
    assert padded[0, 0, 14:].sum() == 0
    assert padded[0, 0, 1:14].min() == 1


def test_canvas_averages_overlapping_windows() -> None:
    canvas = WindowMean((2, 1), 1, 3, torch.device("cpu"))
    for box, values in ((Box(0, 0, 1, 2), [1.0, 3.0]), (Box(0, 1, 1, 3), [5.0, 7.0])):
        canvas.add(box, torch.tensor([[[values]], [[[10 * value for value in values]]]]).view(2, 1, 1, 2))
    assert canvas.mean().tolist() == [[[[1.0, 4.0, 7.0]]], [[[10.0, 40.0, 70.0]]]]


def test_no_window_is_the_whole_image() -> None:
    assert window_boxes(30, 50, WHOLE, 1) == [Box(0, 0, 30, 50)]


def test_images_are_stretched_to_multiples_and_not_below_a_window() -> None:
    assert squashed_size(252, 448, 1, 224) == (252, 448)
    assert squashed_size(432, 448, 16, 224) == (432, 448)
    assert squashed_size(420, 448, 16, 224) == (432, 448)
    assert squashed_size(252, 448, 16, 336) == (336, 448)
    assert squashed_size(300, 450, 112, 224) == (448, 560)
