"""Tilings: the grids of both families of converters, recounted with their own arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.data.cards import load_card
from bench.data.schema import Tiling
from bench.data.tiling import TileBox, boxes, crop, pad, padding
from bench.errors import BenchError

ISAID = Tiling(width=896, height=896, overlap=384, pad=True)
UAVID = Tiling(width=1280, height=1080, pad=True)
VAIHINGEN_VAL = [  # width, height; recalled, but they give the published count exactly
    (2428, 2767), (1887, 2557), (1887, 2557), (1887, 2557), (1887, 2557), (1922, 2575), (1919, 2565),
    (1919, 2565), (1866, 2315), (1903, 2546), (1903, 2546), (1917, 3313), (1917, 2563), (1980, 2555),
    (1581, 2555), (2805, 1884), (3816, 2550),
]  # fmt: skip


@pytest.mark.parametrize(
    ("width", "height", "count"),
    [(1147, 1023, 4), (824, 1464, 3), (884, 977, 2), (896, 896, 1), (300, 200, 1)],
)
def test_isaid_counts(width, height, count):
    assert len(boxes(ISAID, height, width)) == count


def test_isaid_slides_back_and_pads():
    assert boxes(ISAID, 1023, 1147) == (
        TileBox(0, 0, 896, 896), TileBox(251, 0, 1147, 896), TileBox(0, 127, 896, 1023), TileBox(251, 127, 1147, 1023),
    )  # fmt: skip
    assert boxes(ISAID, 977, 884) == (TileBox(0, 0, 896, 896), TileBox(0, 81, 896, 977))
    assert padding(ISAID, 977, 884) == (0, 12)


def test_one_side_exact_and_the_other_short_is_cut_as_the_converter_does():
    image = np.arange(800 * 896 * 3, dtype=np.uint32).reshape(800, 896, 3).astype(np.uint8)
    (box,) = boxes(ISAID, 800, 896)
    assert box == TileBox(0, -96, 896, 800)
    assert padding(ISAID, 800, 896) == (0, 0)
    np.testing.assert_array_equal(crop(image, box), image[704:])


@pytest.mark.parametrize(("width", "count"), [(3840, 6), (4096, 8)])
def test_uavid_counts(width, count):
    grid = boxes(UAVID, 2160, width)
    assert len(grid) == count
    assert grid[count // 2 - 1].x0 == width - 1280


def test_counts_of_the_untiled_downloads():
    potsdam, vaihingen, inria = (load_card(name) for name in ("potsdam", "vaihingen", "inria"))
    assert potsdam.tiling and vaihingen.tiling and inria.tiling
    grid = boxes(potsdam.tiling, 6000, 6000)
    assert [box.x0 for box in grid[:12]] == [*range(0, 5121, 512), 5488]
    assert len(grid) * len(potsdam.split.names) == potsdam.expected_count == 2016
    assert len(VAIHINGEN_VAL) == len(vaihingen.split.names)
    counts = [len(boxes(vaihingen.tiling, height, width)) for width, height in VAIHINGEN_VAL]
    assert sum(counts) == vaihingen.expected_count == 398
    assert len(boxes(inria.tiling, 5000, 5000)) * len(inria.split.names) == inria.expected_count == 675


def converter_starts(length: int, clip: int, stride: int) -> list[int]:
    """Starts along one axis in the converter of Potsdam, Vaihingen and Inria, as it counts them."""
    steps = math.ceil((length - clip) / stride)
    steps += steps * stride + clip < length
    return sorted({min(k * clip, length - clip) for k in range(steps + 1)})


@given(clip=st.integers(2, 40), stride=st.integers(1, 40), extra=st.integers(0, 200))
def test_counting_steps_of_a_stride_gives_the_same_grid(clip, stride, extra):
    """Whatever the stride, up to the tile's size: only multiples of the tile are starts."""
    length, stride = clip + extra, min(stride, clip)
    tiling = Tiling(width=clip, height=clip)
    assert [box.x0 for box in boxes(tiling, clip, length)] == converter_starts(length, clip, stride)


@st.composite
def tilings(draw):
    width, height = draw(st.integers(2, 30)), draw(st.integers(2, 30))
    overlap = draw(st.integers(0, min(width, height) - 1))
    return Tiling(width=width, height=height, overlap=overlap, pad=True)


@given(tiling=tilings(), height=st.integers(1, 90), width=st.integers(1, 90))
def test_tiles_cover_the_scene_in_order_and_once(tiling, height, width):
    image = np.zeros((height, width, 3), np.uint8)
    label = np.zeros((height, width), np.uint8)
    grid = boxes(tiling, height, width)
    assert list(grid) == sorted(grid, key=lambda box: (box.y0, box.x0))
    assert len(set(grid)) == len(grid)
    image, label = pad(image, label, tiling)
    seen = np.zeros(label.shape, bool)
    for box in grid:
        seen[box.y0 : box.y1, box.x0 : box.x1] = True
        if box.x0 >= 0 and box.y0 >= 0:
            assert crop(image, box).shape == (tiling.height, tiling.width, 3)
    exact = (height == tiling.height) != (width == tiling.width)
    if not (exact and (height < tiling.height or width < tiling.width)):
        assert seen.all()
        assert (label[height:] == 255).all() and (label[:, width:] == 255).all()
        assert (image[height:] == 0).all()


def test_a_crop_is_a_copy():
    label = np.zeros((4, 4), np.uint8)
    crop(label, TileBox(0, 0, 2, 2))[:] = 7
    assert not label.any()


def test_a_scene_smaller_than_a_tile_is_refused():
    with pytest.raises(BenchError, match="300x600 pixels is smaller than the tile, 512x512; use the original"):
        boxes(Tiling(width=512, height=512), 600, 300)


def test_tiles_that_are_filled_up_are_those_that_mess_counts():
    card = load_card("floodnet_mess")
    assert 383 * len(boxes(card.tiling, 3000, 4000)) + 65 * len(boxes(card.tiling, 3072, 4592)) == card.expected_count
    tiling = Tiling(width=40, height=30, overlap=10, fill=True)
    image, label = np.ones((45, 100, 3), np.uint8), np.ones((45, 100), np.uint8)
    grid = boxes(tiling, 45, 100)
    assert [(box.x0, box.y0) for box in grid] == [(x, y) for y in (0, 20) for x in (0, 30, 60)]
    filled, filled_label = pad(image, label, tiling)
    assert filled.shape == (50, 100, 3) and not filled[45:].any() and (filled_label[45:] == 255).all()
    assert [pad(image[:size], label[:size], tiling)[1].shape[0] for size in (1, 30, 31, 50)] == [30, 30, 50, 50]
