"""One ×2 step cut into tiles: which pixels, which taps of their kernels, which source pixels behind the taps.

Everything here works on a batch of images. Axes in the shapes below: b the image; i, j a pixel's row and column in its
tile; s, t the column and row of the tile. What a column of tiles touches is laid out once, and the tiles are
overlapping views of it, so one strided batch of products serves all tiles of all images and no overlap is copied.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.runtime.threads import in_threads

Result = TypeVar("Result")

TILE = 4  # pixels; larger tiles waste more of the dense products, smaller ones make them too thin to be fast
_IN_CACHE = 2048  # pixels at a time on a CPU; fewer stay in a core's own cache, but then calls cost more than they save


def by_pieces(device: torch.device) -> bool:
    """Return whether work is cut into pieces that fit into a core's cache (a CPU), or done at once (accelerators)."""
    return device.type == "cpu"


class Strip(NamedTuple):
    """Columns of tiles that are worked on together: `first` up to, not including, `last`."""

    first: int
    last: int

    @property
    def across(self) -> int:
        return self.last - self.first


class Reach(NamedTuple):
    """Pixels of padded images that the tiles of a strip touch, as overlapping views.

    views: (n, area, channels), `per` of them for each column of tiles, of which the last ones are no real tiles.
    """

    views: Tensor
    per: int

    def dot(self, a: Tensor) -> Tensor:
        """Products of each tile's rows (c, t, m, channels) with all that it touches: (c, t, m, area)."""
        return self._product(a, self.views.mT)

    def weighted(self, a: Tensor) -> Tensor:
        """Sum all that each tile touches with its weights (c, t, m, area): (c, t, m, channels)."""
        return self._product(a, self.views)

    def _product(self, a: Tensor, views: Tensor) -> Tensor:
        columns, down, m, inner = a.shape
        filled = a.new_empty(columns, self.per, m, inner)
        filled[:, :down], filled[:, down:] = a, 0
        found = a.new_empty(columns * self.per, m, views.shape[2])
        torch.bmm(filled.view(-1, m, inner)[: len(views)], views, out=found[: len(views)])
        return found.view(columns, self.per, m, -1)[:, :down]


class TileGrid:
    """An enlarged image of `height` × `width` pixels, cut into `down` × `across` tiles of TILE × TILE.

    Tiles that stick out over the lower or right edge hold values that are never used.
    """

    def __init__(self, height: int, width: int, radius: int, device: torch.device) -> None:
        self.height, self.width, self.radius = height, width, radius
        self.diameter = 2 * radius + 1
        self.down, self.across = -(-height // TILE), -(-width // TILE)
        self.device = device
        self._margin = _margin(radius)

    def strips(self) -> list[Strip]:
        """Cut the whole image: on a CPU a few columns of tiles at a time, elsewhere all at once."""
        step = max(1, _IN_CACHE // (self.down * TILE**2)) if by_pieces(self.device) else self.across
        return [Strip(first, min(first + step, self.across)) for first in range(0, self.across, step)]

    def for_strips(self, work: Callable[[Strip], object]) -> None:
        """Do `work` on each strip, on a CPU by several threads."""
        if by_pieces(self.device):
            in_threads(work, self.strips())
        else:
            for strip in self.strips():
                work(strip)

    def for_images(self, work: Callable[[slice, Strip], Result], count: int) -> Iterator[tuple[slice, Strip, Result]]:
        """Do `work` on each strip of `count` images: on a CPU image by image by several threads, elsewhere at once.

        Yields what `work` made, in order.
        """
        apart = by_pieces(self.device)
        images = [slice(number, number + 1) for number in range(count)] if apart else [slice(0, count)]
        pieces = list(itertools.product(images, self.strips()))
        found = in_threads(lambda piece: work(*piece), pieces) if apart else [work(*piece) for piece in pieces]
        return ((*piece, result) for piece, result in zip(pieces, found, strict=True))

    def pad(self, images: Tensor) -> Tensor:
        """(b, height, width, n) with a border of `radius`, reflected, and filled up to whole tiles."""
        rows, columns = (_reflected_index(size, self.radius, self.device) for size in (self.height, self.width))
        return images.index_select(1, rows).index_select(2, columns)

    def pixels(self, padded: Tensor, strip: Strip) -> Tensor:
        """Return the tiles of padded images, a view (i, j, b, s, t, n)."""
        rows = slice(self.radius, self.radius + self.down * TILE)
        columns = slice(self.radius + strip.first * TILE, self.radius + strip.last * TILE)
        inner = _tiled(padded[:, rows, columns], self.down, strip.across)
        return inner.permute(2, 4, 0, 3, 1, 5)

    def reach(self, padded: Tensor, strip: Strip) -> Reach:
        """All pixels of padded images that the kernels of a tile touch, (TILE + 2 * radius)² of them."""
        return self._reach(padded, strip, TILE, TILE + 2 * self.radius)

    def pad_source(self, images: Tensor) -> Tensor:
        """Repeat the edges of sources (b, height / 2, width / 2, n) as far as bicubic enlargement sees."""
        rows, columns = (_edge_index(size, self._margin, self.device) for size in (self.height, self.width))
        return images.index_select(1, rows).index_select(2, columns)

    def source(self, images: int, channels: int) -> Tensor:
        """Room for sources laid out as `pad_source` does, to be filled through `inner` and `repeat_edge`."""
        down, across = (tiles * TILE // 2 + 2 * self._margin for tiles in (self.down, self.across))
        return torch.empty(images, down, across, channels, device=self.device)

    def inner(self, source: Tensor) -> Tensor:
        """Return the sources themselves in what `source` gave."""
        rows, columns = (slice(self._margin, self._margin + size // 2) for size in (self.height, self.width))
        return source[:, rows, columns]

    def repeat_edge(self, source: Tensor) -> None:
        """Fill what is beyond `inner` with its edge, as for bicubic enlargement."""
        for axis, size in ((1, self.height), (2, self.width)):
            lines, last = source.movedim(axis, 0), self._margin + size // 2 - 1
            lines[: self._margin] = lines[self._margin]
            lines[last + 1 :] = lines[last]

    def source_reach(self, source: Tensor, strip: Strip) -> Reach:
        """All source pixels behind a tile's pixels, (TILE / 2 + 2 * margin)², of what `pad_source` gave."""
        return self._reach(source, strip, TILE // 2, TILE // 2 + 2 * self._margin)

    def filtered(self, source: Tensor, kernels: Tensor, strip: Strip) -> Tensor:
        """Kernels on the source (b * s, t, TILE², source reach) times what `pad_source` gave: (b * s, t, TILE², n)."""
        return self.source_reach(source, strip).weighted(kernels)

    def _reach(self, padded: Tensor, strip: Strip, step: int, side: int) -> Reach:
        columns = padded[:, :, strip.first * step : (strip.last - 1) * step + side].unfold(2, side, step)
        columns = columns.permute(0, 2, 1, 4, 3).flatten(0, 1).contiguous()  # (b * s, rows, side, n)
        count, rows, _, channels = columns.shape
        per, line, real = rows // step, side * channels, (rows - side) // step + 1
        views = columns.as_strided(((count - 1) * per + real, side**2, channels), (step * line, channels, 1))
        return Reach(views, per)

    def taps(self, products: Tensor, images: int) -> Tensor:
        """Select each kernel tap from pixel × reach products (b * s, t, TILE², reach): a view (i, j, b, s, t, d, d)."""
        side = TILE + 2 * self.radius
        across, down = len(products) // images, products.shape[1]
        column, row = products.stride()[:2]
        # a pixel further down or right in the tile, the square of its taps is as much further in the reach
        strides = (TILE * side**2 + side, side**2 + 1, across * column, column, row, side, 1)
        return products.as_strided((TILE, TILE, images, across, down, self.diameter, self.diameter), strides)

    def on_source(self, kernels: Tensor, strip: Strip) -> Tensor:
        """Move kernels (i, j, b, s, t, d*d …) on the enlarged source to the source: (b * s, t, TILE², source reach).

        The enlarged source need never be made. `kernels` is overwritten; what stands beside its taps counts nowhere.
        """
        taps = self.diameter**2
        self._fold_border(torch.unflatten(kernels[..., :taps], -1, (self.diameter, self.diameter)), strip)
        pixels = kernels.view(TILE**2, -1, kernels.shape[-1])
        weights = _tap_weights(self.radius, pixels.shape[2] - taps, self.device)
        out = kernels.new_empty(pixels.shape[1], TILE**2, weights.shape[2])
        torch.bmm(pixels, weights, out=out.transpose(0, 1))
        return out.view(-1, self.down, *out.shape[1:])

    def on_source_adjoint(self, grads: Tensor, strip: Strip) -> Tensor:
        """Gradients for what `on_source` gives -> for its kernels, (i, j, b, s, t, d, d)."""
        weights = _tap_weights(self.radius, 0, self.device)
        kernels = torch.bmm(grads.permute(2, 0, 1, 3).flatten(1, 2), weights.mT)
        kernels = kernels.view(TILE, TILE, -1, strip.across, self.down, self.diameter, self.diameter)
        self._fold_border(kernels, strip, adjoint=True)
        return kernels

    def _fold_border(self, kernels: Tensor, strip: Strip, adjoint: bool = False) -> None:
        """Reflect padding: taps outside the image are added, in place, to those that they mirror."""
        for rows, folds in self._folded(kernels, 4, Strip(0, self.down), self.height):
            rows.copy_((folds.mT if adjoint else folds)[:, None, None, None] @ rows)  # (i, 1, 1, 1, t, d, d) in front
        for columns, folds in self._folded(kernels, 3, strip, self.width):
            columns.copy_(columns @ (folds if adjoint else folds.mT)[None, :, None, :, None])  # (1, j, 1, s, 1, d, d)

    def _folded(self, kernels: Tensor, axis: int, tiles: Strip, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the kernels of tiles along an axis from which taps reach outside, and their part of `_folds`."""
        for first, folds in _folds(size, self.radius, self.device):
            start, stop = max(first, tiles.first), min(first + folds.shape[1], tiles.last)
            if start < stop:
                yield kernels.narrow(axis, start - tiles.first, stop - start), folds[:, start - first : stop - first]

    def read(self, images: Tensor, strip: Strip) -> Tensor:
        """Return a strip's pixels of images (b, height, width, n), in the order of `write`: (b * s, t, TILE², n)."""
        part = images[:, :, strip.first * TILE : strip.last * TILE]
        beyond = (0, strip.across * TILE - part.shape[2], 0, self.down * TILE - self.height)
        part = _tiled(F.pad(part, (0, 0, *beyond)), self.down, strip.across)
        return part.permute(0, 3, 1, 2, 4, 5).flatten(3, 4).flatten(0, 1)

    def write(self, tiles: Tensor, out: Tensor, strip: Strip) -> None:
        """Put the pixels (b * s, t, TILE², n) of a strip at their place in the images `out` (b, height, width, n)."""
        pixels = tiles.view(len(out), strip.across, self.down, TILE, TILE, -1).permute(0, 2, 3, 1, 4, 5)
        target = out[:, :, strip.first * TILE : strip.last * TILE]
        if target.shape[1:3] == (self.down * TILE, strip.across * TILE):
            _tiled(target, self.down, strip.across).copy_(pixels)
        else:
            target.copy_(pixels.flatten(3, 4).flatten(1, 2)[:, : target.shape[1], : target.shape[2]])


def _tiled(pixels: Tensor, down: int, across: int) -> Tensor:
    """(b, down * TILE, across * TILE, n) -> a view (b, t, i, s, j, n)."""
    return torch.unflatten(torch.unflatten(pixels, 2, (across, TILE)), 1, (down, TILE))


def source_columns(first: int, last: int, radius: int) -> tuple[int, int]:
    """Return the source columns behind columns `first` up to `last` of the enlarged image.

    They are their taps' bicubic neighbours, and may be outside the source.
    """
    return (first - radius) // 2 - 2, (last - 1 + radius) // 2 + 3


@functools.lru_cache
@torch.inference_mode(False)  # so that training can use what inference made
def _reflected_index(size: int, radius: int, device: torch.device) -> Tensor:
    """Pixels of an axis with a reflected border, filled up to a whole number of tiles."""
    whole = -(-size // TILE) * TILE + 2 * radius
    return _reflected(torch.arange(-(-whole // TILE) * TILE) - radius, size).to(device)


@functools.lru_cache
@torch.inference_mode(False)  # so that training can use what inference made
def _edge_index(size: int, margin: int, device: torch.device) -> Tensor:
    """Source pixels of an enlarged axis with `margin` more on either side, the edge repeated."""
    tiles = -(-size // TILE)
    return torch.arange(-margin, tiles * TILE // 2 + margin).clamp(0, size // 2 - 1).to(device)


def _reflected(index: Tensor, size: int) -> Tensor:
    """Mirror indices beyond either end into 0 … size - 1; those of the filling, further out, are clamped."""
    last = size - 1
    return (last - (last - index.abs()).abs()).clamp_min(0)


@functools.lru_cache
@torch.inference_mode(False)  # so that training can use what inference made
def _folds(size: int, radius: int, device: torch.device) -> list[tuple[int, Tensor]]:
    """Return the first of each run of tiles along an axis from which taps reach outside, and the taps that count there.

    The latter as (TILE, n, d, d), from each tap to the one that it mirrors.
    """
    pixels = torch.arange(-(-size // TILE) * TILE)[:, None]
    taps = pixels + torch.arange(-radius, radius + 1)
    counts = torch.where(pixels < size, _reflected(taps, size), taps)  # pixels beyond the image are never used
    tiles = (counts != taps).view(-1, TILE * (2 * radius + 1)).any(1).nonzero().flatten()
    places = (counts - pixels + radius).view(-1, TILE, 2 * radius + 1)[tiles]
    folds = F.one_hot(places, 2 * radius + 1).mT.float().transpose(0, 1).to(device)
    cuts = ((tiles.diff() > 1).nonzero().flatten() + 1).tolist()
    runs = zip(tiles.tensor_split(cuts), folds.tensor_split(cuts, dim=1), strict=True)
    return [(int(run[0]), part.contiguous()) for run, part in runs]


@functools.lru_cache
@torch.inference_mode(False)  # so that training can use what inference made
def _tap_weights(radius: int, beside: int, device: torch.device) -> Tensor:
    """Return the bicubic weights (TILE², d*d + beside, source reach) behind each tap of a tile's pixels.

    Those of what stands beside the taps are zero.
    """
    low = TILE // 2 + 2 * _margin(radius)
    spare = 2  # so that the line's own ends are out of bicubic's sight
    enlarged = _bicubic(low + 2 * spare)[:, spare:-spare]
    first = 2 * (spare + _margin(radius)) - radius
    line = enlarged[first:].unfold(0, 2 * radius + 1, 1)[:TILE].mT  # (i, d, low)
    weights = torch.einsum("iya,jxb->ijyxab", line, line).reshape(TILE**2, (2 * radius + 1) ** 2, low**2)
    return F.pad(weights, (0, 0, 0, beside)).contiguous().to(device)  # einsum leaves it transposed


def _margin(radius: int) -> int:
    """Source pixels that count beyond a tile, bicubic's own two included."""
    return radius // 2 + 2


def _bicubic(size: int) -> Tensor:
    """Return the matrix (2 * size, size) of torch's bicubic ×2 enlargement of a line."""
    lines = torch.eye(size)[None, :, :, None]
    return F.interpolate(lines, (2 * size, 1), mode="bicubic", align_corners=False)[0, :, :, 0].T
