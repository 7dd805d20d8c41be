"""One ×2 step cut into tiles: which pixels, which taps of their kernels, which source pixels behind the taps.

Axes in the shapes below: i, j are a pixel's row and column in its tile; s, t the column and row of the tile.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

TILE = 4  # pixels; larger tiles waste more of the dense products, smaller ones make them too thin to be fast
_IN_CACHE = 1024  # pixels whose kernels and filtered features stay in a core's cache


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
        self._device = device
        self._margin = radius // 2 + 2  # source pixels that count beyond a tile, bicubic's own two included
        pixels = self.down * TILE**2  # of a column of tiles
        self._columns_at_once = max(1, _IN_CACHE // pixels) if device.type == "cpu" else self.across

    def strips(self) -> list[Strip]:
        """The whole image, strip by strip."""
        firsts = range(0, self.across, self._columns_at_once)
        return [Strip(first, min(first + self._columns_at_once, self.across)) for first in firsts]

    def pad(self, image: Tensor) -> Tensor:
        """(height, width, n) with a border of `radius`, reflected, and filled up to whole tiles."""
        rows = _reflected(torch.arange(-self.radius, self.down * TILE + self.radius), self.height)
        columns = _reflected(torch.arange(-self.radius, self.across * TILE + self.radius), self.width)
        return _take(image, rows, columns)

    def pixels(self, padded: Tensor, strip: Strip) -> Tensor:
        """The tiles of a padded image: (i, j, s, t, n)."""
        rows = padded[self.radius : -self.radius]
        inner = rows[:, self.radius + strip.first * TILE : self.radius + strip.last * TILE]
        tiles = inner.reshape(self.down, TILE, strip.last - strip.first, TILE, padded.shape[2])
        return tiles.permute(1, 3, 2, 0, 4)

    def reach(self, padded: Tensor, strip: Strip) -> Tensor:
        """All pixels of a padded image that the kernels of a tile touch: (s, t, (TILE + 2 * radius)², n)."""
        side = TILE + 2 * self.radius
        columns = padded[:, strip.first * TILE : strip.last * TILE + 2 * self.radius]
        columns = columns.unfold(1, side, TILE).permute(1, 0, 3, 2).contiguous()  # (s, padded rows, side, n)
        return _overlapping(columns, self.down, TILE, side)

    def source_reach(self, source: Tensor, strip: Strip) -> Tensor:
        """All source pixels behind those, of a source (height / 2, width / 2, n), whose edge counts as repeated, as
        for bicubic enlargement: (s, t, (TILE / 2 + 2 * margin)², n).
        """
        half, side = TILE // 2, TILE // 2 + 2 * self._margin
        height, width, channels = source.shape
        rows = torch.arange(-self._margin, self.down * half + self._margin, device=self._device).clamp(0, height - 1)
        tiles = torch.arange(strip.first, strip.last, device=self._device)[:, None] * half
        columns = (tiles + torch.arange(-self._margin, half + self._margin, device=self._device)).clamp(0, width - 1)
        index = rows[:, None] * width + columns[:, None]  # (s, padded rows, side)
        pixels = source.as_strided((height * width, channels), (source.stride(1), 1), source.storage_offset())
        gathered = pixels.index_select(0, index.flatten())
        return _overlapping(gathered.view(*index.shape, channels), self.down, half, side)

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

    def zeros(self, channels: int) -> Tensor:
        """An image (height, width, channels) to `write` to."""
        return torch.zeros(self.height, self.width, channels, device=self._device)

    def write(self, tiles: Tensor, out: Tensor, strip: Strip) -> None:
        """Put the pixels (s * t * TILE², n) of a strip at their place in the image `out` (height, width, n)."""
        pixels = tiles.view(strip.last - strip.first, self.down, TILE, TILE, -1)
        image = pixels.permute(1, 2, 0, 3, 4).flatten(2, 3).flatten(0, 1)
        target = out[:, strip.first * TILE : strip.last * TILE]
        target.copy_(image[: target.shape[0], : target.shape[1]])


def source_columns(first: int, last: int, radius: int) -> tuple[int, int]:
    """Columns of the source behind columns `first` up to `last` of the enlarged image: their taps' bicubic neighbours.
    May lie outside the source.
    """
    return (first - radius) // 2 - 2, (last - 1 + radius) // 2 + 3


def _overlapping(columns: Tensor, down: int, tile: int, side: int) -> Tensor:
    """Columns (s, padded rows, side, n) -> (s, down, side², n) at every `tile` rows: a view, in which what tiles
    share is held once.
    """
    across, rows, _, channels = columns.shape
    line = side * channels
    return columns.as_strided((across, down, side * side, channels), (rows * line, tile * line, channels, 1))


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
