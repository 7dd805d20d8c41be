"""One ×2 step cut into tiles: which pixels, which taps of their kernels, which source pixels behind the taps.

Axes in the shapes below: i, j are a pixel's row and column in its tile; s, t the column and row of the tile.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

TILE = 4  # pixels; larger tiles waste more of the dense products, smaller ones make them too thin to be fast


class Strip(NamedTuple):
    """Columns of tiles that are worked on together: `first` up to, not including, `last`."""

    first: int
    last: int


class TileGrid:
    """An enlarged image of `height` × `width` pixels, cut into `down` × `across` tiles of TILE × TILE.

    Tiles that stick out over the lower or right edge hold values that are never used.
    """

    def __init__(self, height: int, width: int, radius: int, device: torch.device) -> None:
        self.height, self.width, self.radius = height, width, radius
        self.diameter = 2 * radius + 1
        self.down, self.across = -(-height // TILE), -(-width // TILE)
        self._margin = radius // 2 + 2  # source pixels that count beyond a tile, bicubic's own two included
        self._columns_at_once = 1 if device.type == "cpu" else self.across  # one stays in the cache

    def strips(self) -> list[Strip]:
        """The whole image, strip by strip."""
        firsts = range(0, self.across, self._columns_at_once)
        return [Strip(first, min(first + self._columns_at_once, self.across)) for first in firsts]

    def pad(self, image: Tensor) -> Tensor:
        """(height, width, n) with a border of `radius`, reflected, and filled up to whole tiles."""
        rows = _reflected(torch.arange(-self.radius, self.down * TILE + self.radius), self.height)
        columns = _reflected(torch.arange(-self.radius, self.across * TILE + self.radius), self.width)
        return _take(image, rows, columns)

    def pad_source(self, source: Tensor) -> Tensor:
        """(height / 2, width / 2, n) with its edge repeated as for bicubic enlargement, and filled up."""
        rows = torch.arange(-self._margin, self.down * TILE // 2 + self._margin)
        columns = torch.arange(-self._margin, self.across * TILE // 2 + self._margin)
        return _take(source, rows.clamp(0, source.shape[0] - 1), columns.clamp(0, source.shape[1] - 1))

    def pixels(self, padded: Tensor, strip: Strip) -> Tensor:
        """The tiles of a padded image: (i, j, s, t, n)."""
        rows = padded[self.radius : -self.radius]
        inner = rows[:, self.radius + strip.first * TILE : self.radius + strip.last * TILE]
        tiles = inner.reshape(self.down, TILE, strip.last - strip.first, TILE, padded.shape[2])
        return tiles.permute(1, 3, 2, 0, 4)

    def reach(self, padded: Tensor, strip: Strip) -> Tensor:
        """All pixels of a padded image that the kernels of a tile touch: (s, t, (TILE + 2 * radius)², n)."""
        return self._around(padded, strip, TILE, self.radius)

    def source_reach(self, padded_source: Tensor, strip: Strip) -> Tensor:
        """All source pixels behind those: (s, t, (TILE / 2 + 2 * margin)², n)."""
        return self._around(padded_source, strip, TILE // 2, self._margin)

    def taps(self, products: Tensor) -> Tensor:
        """Of products (s, t, TILE², reach) of pixels and reach, those of taps: (i, j, s, t, d, d)."""
        side = TILE + 2 * self.radius
        across, down = products.shape[:2]
        tile = TILE**2 * side**2
        # a pixel further down or right in the tile, the square of its taps lies as much further in the reach
        strides = (TILE * side**2 + side, side**2 + 1, down * tile, tile, side, 1)
        return products.as_strided((TILE, TILE, across, down, self.diameter, self.diameter), strides)

    def tap_weights(self) -> Tensor:
        """Bicubic weights of the source pixels in each tap: (TILE², d * d, source reach).

        Kernels times these weights are kernels on the source, and the enlarged source need never be made.
        """
        low = TILE // 2 + 2 * self._margin
        spare = 2  # so that the line's own ends are out of bicubic's sight
        enlarged = _bicubic(low + 2 * spare)[:, spare:-spare]
        first = 2 * (spare + self._margin) - self.radius
        line = enlarged[first:].unfold(0, self.diameter, 1)[:TILE].mT  # (i, d, low)
        weights = torch.einsum("iya,jxb->ijyxab", line, line)
        return weights.reshape(TILE**2, self.diameter**2, low**2).contiguous()  # einsum leaves it transposed

    def fold_border(self, kernels: Tensor, strip: Strip) -> None:
        """Reflect padding: taps outside the image are added, in place, to those that they mirror.

        `kernels` is (i, j, s, t, d, d).
        """
        for outside in range(1, self.radius + 1):
            near = self.radius - outside
            for y in (near, self.height - 1 - near):
                _fold(kernels[y % TILE, :, :, y // TILE], -2, outside, at_start=y == near)
            for x in (near, self.width - 1 - near):
                if strip.first <= x // TILE < strip.last:
                    _fold(kernels[:, x % TILE, x // TILE - strip.first], -1, outside, at_start=x == near)

    def write(self, tiles: Tensor, out: Tensor, strip: Strip) -> None:
        """Put tiles (s, t, TILE², n) at their place in the image `out` (height, width, n)."""
        pixels = tiles.view(*tiles.shape[:2], TILE, TILE, -1)
        image = pixels.permute(1, 2, 0, 3, 4).flatten(2, 3).flatten(0, 1)
        target = out[:, strip.first * TILE : strip.last * TILE]
        target.copy_(image[: target.shape[0], : target.shape[1]])

    def _around(self, padded: Tensor, strip: Strip, tile: int, border: int) -> Tensor:
        side = tile + 2 * border
        columns = padded[:, strip.first * tile : strip.last * tile + 2 * border]
        columns = columns.unfold(1, side, tile).permute(1, 0, 3, 2).contiguous()  # (s, padded rows, side, n)
        across, rows, _, channels = columns.shape  # a view: what neighbouring tiles share is held once
        line = side * channels
        shape = (across, self.down, side * side, channels)
        return columns.as_strided(shape, (rows * line, tile * line, channels, 1))


def _take(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return image.index_select(0, rows.to(image.device)).index_select(1, columns.to(image.device))


def _reflected(index: Tensor, size: int) -> Tensor:
    """Indices beyond either end mirrored into 0 … size - 1; those of the filling, further out, clamped."""
    last = size - 1
    return (last - (last - index.abs()).abs()).clamp_min(0)


def _fold(kernels: Tensor, dim: int, outside: int, at_start: bool) -> None:
    """Move the first (or last) `outside` taps along `dim` onto their images in the next tap, the mirror."""
    taps = kernels.shape[dim]
    lost = kernels.narrow(dim, 0 if at_start else taps - outside, outside)
    kept = kernels.narrow(dim, outside + 1 if at_start else taps - 2 * outside - 1, outside)
    kept += lost.flip(dim)
    lost.zero_()


def _bicubic(size: int) -> Tensor:
    """The matrix (2 * size, size) of torch's bicubic ×2 enlargement of a line."""
    lines = torch.eye(size)[None, :, :, None]
    return F.interpolate(lines, (2 * size, 1), mode="bicubic", align_corners=False)[0, :, :, 0].T
