"""Cutting big scenes into tiles, as the converters of mmsegmentation and SegEarth-OV do.

Both families of converters come to the same grid. iSAID's and UAVid's walks in steps of (tile − overlap) and
slides a tile that would pass the border back. Potsdam's, Vaihingen's and Inria's counts steps of a "stride"
but places the k-th tile at k·tile, slid back as well; the surplus ones repeat the last box, and carry its
name, so the stride has no effect.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.data.schema import Tiling
from bench.errors import BenchError
from bench.settings import IGNORED


class TileBox(NamedTuple):
    """Pixels x0 ≤ x < x1, y0 ≤ y < y1 of a scene (padded, where the tiling pads)."""

    x0: int
    y0: int
    x1: int
    y1: int


def boxes(tiling: Tiling, height: int, width: int) -> tuple[TileBox, ...]:
    """Return the tiles of a scene, row by row, each once.

    A scene with one side exactly a tile's and the other one smaller is not padded (see `padding`); its boxes
    start below zero, and cut what numpy's slices cut: the converters do that, and the published numbers hold
    such tiles.

    Raises BenchError for a scene smaller than a tile where the tiling does not pad.
    """
    if not (tiling.pad or tiling.fill) and (height < tiling.height or width < tiling.width):
        raise BenchError(
            f"a scene of {width}x{height} pixels is smaller than the tile, {tiling.width}x{tiling.height}; "
            "use the original download, not one that is cut already"
        )
    bottom, right = padding(tiling, height, width)
    rows = _starts(height + bottom, tiling.height, tiling.overlap)
    columns = _starts(width + right, tiling.width, tiling.overlap)
    return tuple(TileBox(x, y, x + tiling.width, y + tiling.height) for y in rows for x in columns)


def padding(tiling: Tiling, height: int, width: int) -> tuple[int, int]:
    """Pixels to add at the bottom and on the right.

    Like the converters', the rule leaves a scene alone when one side is exactly a tile's and the other one
    smaller.
    """
    if tiling.fill:
        return _missing(height, tiling.height, tiling.overlap), _missing(width, tiling.width, tiling.overlap)
    short, narrow = height < tiling.height, width < tiling.width
    exact = height == tiling.height or width == tiling.width
    if not tiling.pad or exact:
        return 0, 0
    return (tiling.height - height if short else 0), (tiling.width - width if narrow else 0)


def pad(image: NDArray[np.uint8], label: NDArray[np.uint8], tiling: Tiling) -> tuple[NDArray[np.uint8], ...]:
    """Pad a scene as it is cut: image (H, W, 3) with 0, label (H, W) with 255."""
    bottom, right = padding(tiling, *label.shape)
    if not bottom and not right:
        return image, label
    edges = ((0, bottom), (0, right))
    return np.pad(image, (*edges, (0, 0))), np.pad(label, edges, constant_values=IGNORED)


def crop(array: NDArray[np.uint8], box: TileBox) -> NDArray[np.uint8]:
    """Copy one tile of an image or a label; a view would keep the whole scene in memory."""
    return np.array(array[box.y0 : box.y1, box.x0 : box.x1])


def _missing(length: int, tile: int, overlap: int) -> int:
    """Pixels that the last tile lacks, where tiles begin every (tile - overlap) until all pixels are in one."""
    return -(length - tile) % (tile - overlap) if length > tile else tile - length


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    return sorted({min(start, length - tile) for start in range(0, length, tile - overlap)})
