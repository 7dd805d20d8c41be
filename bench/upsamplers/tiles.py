"""One ×2 step cut into tiles: which pixels, which taps of their kernels, which source pixels behind the taps.

Axes in the shapes below: i, j are a pixel's row and column in its tile; s, t the column and row of the tile.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.parallel import in_threads

Result = TypeVar("Result")

TILE = 4  # pixels; larger tiles waste more of the dense products, smaller ones make them too thin to be fast
_IN_CACHE = 2048  # pixels at a time; fewer stay in a core's own cache, but then calls cost more than they save
_ON_ACCELERATOR = 1 << 16  # the same on a GPU: all of 224 × 224, and a part of what is larger


def small_pieces(device: torch.device) -> bool:
    """Whether work is cut into pieces that fit into a core's cache, and not done at once."""
    return device.type == "cpu"


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
        self.device = device
        self._row_folds, self._column_folds = (_folds(size, radius, device) for size in (height, width))
        self._margin = _margin(radius)
        pixels = self.down * TILE**2  # of a column of tiles
        self._columns_at_once = max(1, (_IN_CACHE if small_pieces(device) else _ON_ACCELERATOR) // pixels)

    def strips(self) -> list[Strip]:
        """The whole image, strip by strip."""
        firsts = range(0, self.across, self._columns_at_once)
        return [Strip(first, min(first + self._columns_at_once, self.across)) for first in firsts]

    def for_strips(self, work: Callable[[Strip], object]) -> None:
        """Has `work` done on each strip: on a CPU by several threads, elsewhere one after the other."""
        self.for_images(lambda _, strip: work(strip), 1)

    def for_images(self, work: Callable[[int, Strip], Result], count: int) -> Iterator[tuple[int, Strip, Result]]:
        """The same for `count` images, by number. Gives what `work` made of each of their strips, in order."""
        pieces = list(itertools.product(range(count), self.strips()))
        if small_pieces(self.device):
            found = in_threads(lambda piece: work(*piece), pieces)
        else:
            found = [work(*piece) for piece in pieces]
        return ((*piece, result) for piece, result in zip(pieces, found, strict=True))

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
        return _overlapping(_columns(padded, strip, TILE, side), self.down, TILE, side)

    def source(self, channels: int) -> Tensor:
        """Room for a source (height / 2, width / 2, n), to be filled through `inner`, and for what tiles see beyond."""
        down, across = (tiles * TILE // 2 + 2 * self._margin for tiles in (self.down, self.across))
        return torch.empty(down, across, channels, device=self.device)

    def inner(self, source: Tensor) -> Tensor:
        """The source itself in what `source` gave."""
        rows, columns = (slice(self._margin, self._margin + size // 2) for size in (self.height, self.width))
        return source[rows, columns]

    def repeat_edge(self, source: Tensor) -> None:
        """Fills what lies beyond `inner` with its edge, as for bicubic enlargement."""
        for axis, size in ((source, self.height), (source.transpose(0, 1), self.width)):
            last = self._margin + size // 2 - 1
            axis[: self._margin] = axis[self._margin]
            axis[last + 1 :] = axis[last]

    def pad_source(self, images: Tensor) -> Tensor:
        """Sources (B, height / 2, width / 2, n) with their edges repeated, each laid out as `source` is."""
        for axis, tiles in ((1, self.down), (2, self.across)):
            index = torch.arange(-self._margin, tiles * TILE // 2 + self._margin, device=images.device)
            images = images.index_select(axis, index.clamp(0, images.shape[axis] - 1))
        return images

    def source_reach(self, source: Tensor, strip: Strip, first: int = 0, last: int | None = None) -> Tensor:
        """All source pixels behind those of a strip: (s, t, (TILE / 2 + 2 * margin)², n).

        source: filled, edge and all. first, last: only these rows of tiles, `last` not included.
        """
        half, side = TILE // 2, TILE // 2 + 2 * self._margin
        last = self.down if last is None else last
        pixels = source[first * half : (last - 1) * half + side]
        return _overlapping(_columns(pixels, strip, half, side), last - first, half, side)

    def taps(self, products: Tensor) -> Tensor:
        """Of products (s, t, TILE², reach) of pixels and reach, those of taps: (i, j, s, t, d, d)."""
        side = TILE + 2 * self.radius
        across, down = products.shape[:2]
        tile = TILE**2 * side**2
        # a pixel further down or right in the tile, the square of its taps lies as much further in the reach
        strides = (TILE * side**2 + side, side**2 + 1, down * tile, tile, side, 1)
        return products.as_strided((TILE, TILE, across, down, self.diameter, self.diameter), strides)

    def on_source(self, kernels: Tensor, strip: Strip) -> Tensor:
        """Kernels (i, j, s, t, d, d) on the enlarged source as kernels on the source, (s, t, TILE², source reach).

        The enlarged source need never be made. `kernels` is overwritten.
        """
        self._fold_border(kernels, strip)
        weights = _tap_weights(self.radius, self.device)
        pixels = kernels.view(TILE**2, -1, self.diameter**2)
        out = kernels.new_empty(pixels.shape[1], TILE**2, weights.shape[2])
        torch.bmm(pixels, weights, out=out.transpose(0, 1))
        return out.view(*kernels.shape[2:4], *out.shape[1:])

    def on_source_adjoint(self, grads: Tensor, strip: Strip) -> Tensor:
        """Gradients for what `on_source` gives -> for its kernels, (i, j, s, t, d, d)."""
        weights = _tap_weights(self.radius, self.device)
        kernels = torch.bmm(grads.permute(2, 0, 1, 3).flatten(1, 2), weights.mT)
        kernels = kernels.view(TILE, TILE, *grads.shape[:2], self.diameter, self.diameter)
        self._fold_border(kernels, strip, adjoint=True)
        return kernels

    def _fold_border(self, kernels: Tensor, strip: Strip, adjoint: bool = False) -> None:
        """Reflect padding: taps outside the image are added, in place, to those that they mirror."""
        for row, fold in self._row_folds.items():
            tiles = kernels[:, :, :, row]
            tiles.copy_((fold.mT if adjoint else fold)[:, None, None] @ tiles)
        for column, fold in self._column_folds.items():
            if strip.first <= column < strip.last:
                tiles = kernels[:, :, column - strip.first]
                tiles.copy_(tiles @ (fold if adjoint else fold.mT)[:, None])

    def read(self, image: Tensor, strip: Strip) -> Tensor:
        """The pixels of a strip of an image (height, width, n), in the order that `write` takes: (s, t, TILE², n)."""
        columns = strip.last - strip.first
        part = image[:, strip.first * TILE : strip.last * TILE]
        part = F.pad(part, (0, 0, 0, columns * TILE - part.shape[1], 0, self.down * TILE - self.height))
        tiles = part.view(self.down, TILE, columns, TILE, -1).permute(2, 0, 1, 3, 4)
        return tiles.flatten(2, 3)

    def empty(self, channels: int) -> Tensor:
        """An image (height, width, channels) to `write` to, strip by strip."""
        return torch.empty(self.height, self.width, channels, device=self.device)

    def write(self, tiles: Tensor, out: Tensor, strip: Strip) -> None:
        """Put the pixels (s, t, TILE², n) of a strip, in this order, at their place in the image `out` (height, width,
        n).
        """
        pixels = tiles.view(strip.last - strip.first, self.down, TILE, TILE, -1)
        image = pixels.permute(1, 2, 0, 3, 4).flatten(2, 3).flatten(0, 1)
        target = out[:, strip.first * TILE : strip.last * TILE]
        target.copy_(image[: target.shape[0], : target.shape[1]])


def tiled_product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, all (s, t, …). The tiles of `b` may overlap: both axes as one batch would make a copy of them."""
    if not small_pieces(a.device):
        return a @ b
    out = a.new_empty(*a.shape[:3], b.shape[3])
    for column in range(len(a)):
        torch.bmm(a[column], b[column], out=out[column])
    return out


def source_columns(first: int, last: int, radius: int) -> tuple[int, int]:
    """Columns of the source behind columns `first` up to `last` of the enlarged image: their taps' bicubic neighbours.
    May lie outside the source.
    """
    return (first - radius) // 2 - 2, (last - 1 + radius) // 2 + 3


def _columns(padded: Tensor, strip: Strip, tile: int, side: int) -> Tensor:
    """What each column of tiles of a strip touches of a padded image: (s, padded rows, side, n).

    Tiles are `tile` pixels wide and touch `side`.
    """
    columns = padded[:, strip.first * tile : (strip.last - 1) * tile + side]
    return columns.unfold(1, side, tile).permute(1, 0, 3, 2).contiguous()


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


@functools.lru_cache
def _folds(size: int, radius: int, device: torch.device) -> dict[int, Tensor]:
    """Of the tiles along an axis from which taps reach outside: (TILE, d, d), from each tap to the one that counts."""
    folds = {}
    for tile, first in enumerate(range(0, size, TILE)):
        pixels = torch.arange(first, first + TILE)[:, None]
        taps = pixels + torch.arange(-radius, radius + 1)
        counts = torch.where(pixels < size, _reflected(taps, size), taps)  # pixels beyond the image are never used
        if not torch.equal(counts, taps):
            fold = F.one_hot(counts - pixels + radius, 2 * radius + 1).mT
            folds[tile] = fold.to(device, torch.float32)
    return folds


@functools.lru_cache
def _tap_weights(radius: int, device: torch.device) -> Tensor:
    low = TILE // 2 + 2 * _margin(radius)
    spare = 2  # so that the line's own ends are out of bicubic's sight
    enlarged = _bicubic(low + 2 * spare)[:, spare:-spare]
    first = 2 * (spare + _margin(radius)) - radius
    line = enlarged[first:].unfold(0, 2 * radius + 1, 1)[:TILE].mT  # (i, d, low)
    weights = torch.einsum("iya,jxb->ijyxab", line, line).reshape(TILE**2, (2 * radius + 1) ** 2, low**2)
    return weights.contiguous().to(device)  # einsum leaves it transposed


def _margin(radius: int) -> int:
    """Source pixels that count beyond a tile, bicubic's own two included."""
    return radius // 2 + 2


def _bicubic(size: int) -> Tensor:
    """The matrix (2 * size, size) of torch's bicubic ×2 enlargement of a line."""
    lines = torch.eye(size)[None, :, :, None]
    return F.interpolate(lines, (2 * size, 1), mode="bicubic", align_corners=False)[0, :, :, 0].T
