"""The ×2 steps of an upsampler as one exact linear operator, fast.

The kernels depend on the guidance image alone, and both bicubic enlargement and adaptive convolution are
linear in the features, so the identity sent through the steps gives the matrix W(image) for any features.

Each step is made of dense matrix products over small tiles. Keys of a tile times keys of all that its kernels
touch hold the inner products of the range term. Kernels times the bicubic weights behind their taps are
kernels on the source itself: a quarter of the pixels, and the same ones for a whole tile. Those times the
source are the filtered tile. On a CPU a few columns of tiles at a time stay near the core, and they are shared
out among threads.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.upsamplers.jbu import FIXUP_WEIGHT, KERNEL_FLOOR, JointBilateral
from bench.upsamplers.tiles import TILE, Strip, TileGrid, small_pieces, source_columns, tiled_product

_ROWS = 16  # of pixels, whose hidden layers fit into a core's cache
_TOGETHER = 14  # tiles of a column, whose source does


class Step(NamedTuple):
    """One ×2 step: its module and the guidance (3, H, W) of one window at the step's own size."""

    module: JointBilateral
    guidance: Tensor


class Rows(NamedTuple):
    """Rows of an operator: those of a strip's pixels, in the order that `TileGrid.write` takes.

    values (pixels, m) are the columns `first` to first + m; all others are zero.
    """

    strip: Strip
    first: int
    values: Tensor


class Operator:
    """W (H * W, n) float32 of `steps` for one window: n = h * w patches of `grid`, pixels of the last step.

    The steps before the last are done at once, and the last, which holds three quarters of the work and nearly all of
    the memory, strip by strip for whoever asks, so W need never be there as a whole.

    tiles: of the last step. order (n,): the patch of each column. Patches are taken column by column of the grid, so
    that what a strip of pixels cannot see lies at either end.
    """

    def __init__(self, steps: list[Step], grid: tuple[int, int]) -> None:
        self._grid = grid
        self._steps = steps
        device = steps[0].guidance.device
        self.order = torch.arange(grid[0] * grid[1], device=device).view(grid).T.flatten()
        filters = [_StepFilter(step) for step in steps]
        source = filters[0].tiles.source(len(self.order))
        filters[0].tiles.inner(source).copy_(torch.eye(len(self.order)).view(*grid[::-1], -1).transpose(0, 1))
        filters[0].tiles.repeat_edge(source)
        for number, (this, following) in enumerate(itertools.pairwise(filters)):
            enlarged = following.tiles.source(len(self.order))
            self._enlarge(this, source, number, following.tiles.inner(enlarged))
            following.tiles.repeat_edge(enlarged)
            source = enlarged
        self._source = source
        self._last = filters[-1]
        self.tiles = self._last.tiles

    def rows(self, strip: Strip) -> Rows:
        """Those of the pixels of one of the strips of `tiles`."""
        return self._rows(self._last, self._source, strip, len(self._steps) - 1)

    def matrix(self) -> Tensor:
        """All of W (H * W, n), rows and columns in the row-major order of pixels and patches."""
        out = self.tiles.empty(len(self.order))
        self._enlarge(self._last, self._source, len(self._steps) - 1, out)
        matrix: Tensor = out.flatten(0, 1)[:, self.order.argsort()]
        return matrix

    def _enlarge(self, step_filter: _StepFilter, source: Tensor, number: int, out: Tensor) -> None:
        """Step `number`: from its source (…, …, n) to `out` (height, width, n)."""
        tiles = step_filter.tiles

        def work(strip: Strip) -> None:
            _, first, values = self._rows(step_filter, source, strip, number)
            last = first + values.shape[1]
            columns = out[:, strip.first * TILE : strip.last * TILE]
            columns[..., :first], columns[..., last:] = 0, 0
            tiles.write(values, out[..., first:last], strip)

        tiles.for_strips(work)

    def _rows(self, step_filter: _StepFilter, source: Tensor, strip: Strip, number: int) -> Rows:
        first, last = (column * self._grid[0] for column in self._seen(strip, number))
        return Rows(strip, first, step_filter(source[..., first:last], strip))

    def _seen(self, strip: Strip, number: int) -> tuple[int, int]:
        """Columns of the patch grid that can count in a strip of step `number`: from, up to not including."""
        first, last = strip.first * TILE, strip.last * TILE
        for step in reversed(self._steps[: number + 1]):
            first, last = source_columns(first, last, step.module.radius)
            first, last = max(first, 0), min(last, step.guidance.shape[2] // 2)
        return first, last


class _StepFilter:
    """One step of one window: what its strips share."""

    @torch.no_grad()
    def __init__(self, step: Step) -> None:
        module, guidance = step
        self._diameter = module.diameter
        self.tiles = TileGrid(guidance.shape[1], guidance.shape[2], module.radius, guidance.device)
        self._guidance = self.tiles.pad(guidance.permute(1, 2, 0))
        with torch.autocast(guidance.device.type, enabled=False):
            self._keys = _mlp(module.range_proj, self._guidance)
            self._temperature = module.temperature()
            self._kernels_of = _KernelMaker(module)

    @torch.no_grad()
    def __call__(self, source: Tensor, strip: Strip) -> Tensor:
        """Features in `TileGrid.source` -> those of a strip after the step, (pixels, n), in the order of
        `TileGrid.write`.
        """
        tiles, diameter = self.tiles, self._diameter
        with torch.autocast(source.device.type, enabled=False):
            # queries (s, t, TILE², 32)
            queries = tiles.pixels(self._keys, strip).permute(2, 3, 0, 1, 4).flatten(2, 3) * self._temperature
            reach = tiles.reach(self._keys, strip).mT
            products = tiles.taps(tiled_product(queries, reach))
            kernels = self._kernels_of(products.reshape(-1, diameter**2), tiles.pixels(self._guidance, strip))
            on_source = tiles.on_source(kernels.view(products.shape), strip)
            return self._filtered(on_source, source, strip).flatten(0, 2)

    def _filtered(self, kernels: Tensor, source: Tensor, strip: Strip) -> Tensor:
        """Kernels (s, t, TILE², source reach) times the source: (s, t, TILE², n)."""
        tiles = self.tiles
        if not small_pieces(source.device):
            return kernels @ tiles.source_reach(source, strip)
        out = kernels.new_empty(*kernels.shape[:3], source.shape[2])
        for column in range(len(kernels)):
            alone = Strip(strip.first + column, strip.first + column + 1)
            for first in range(0, tiles.down, _TOGETHER):
                last = min(first + _TOGETHER, tiles.down)
                reach = tiles.source_reach(source, alone, first, last)[0]
                torch.bmm(kernels[column, first:last], reach, out=out[column, first:last])
        return out


class _KernelMaker:
    """`JointBilateral.kernels` from the range term's inner products on, as matrix products over pixels."""

    def __init__(self, module: JointBilateral) -> None:
        first, second = _linear_parts(module.fixup_proj)
        taps = module.diameter**2
        self.spatial = module.spatial_kernel()
        self.from_kernels, self.from_guidance, self.bias = first[0][:, :taps], first[0][:, taps:], first[1]
        self.closing, self.closing_bias = second[0], FIXUP_WEIGHT * second[1]

    def __call__(self, products: Tensor, guidance: Tensor) -> Tensor:
        """Inner products times temperature (pixels, d*d) and these pixels' guidance (…, 3) -> kernels."""
        kernels = torch.softmax(products, dim=1).mul_(self.spatial)
        kernels /= kernels.sum(1, keepdim=True).clamp_min_(KERNEL_FLOOR)
        hidden = F.linear(guidance.flatten(0, -2), self.from_guidance, self.bias)
        hidden = F.gelu(hidden.addmm_(kernels, self.from_kernels.T))
        return kernels.add_(self.closing_bias).addmm_(hidden, self.closing.T, alpha=FIXUP_WEIGHT)


def _mlp(network: nn.Sequential, pixels: Tensor) -> Tensor:
    """A pixelwise network of `JointBilateral` on channels-last pixels, without its dropout."""
    first, second = _linear_parts(network)
    out = pixels.new_empty(*pixels.shape[:2], len(second[0]))
    count = _ROWS if small_pieces(pixels.device) else len(pixels)
    for rows, part in zip(torch.split(pixels, count), torch.split(out, count), strict=True):
        part.copy_(F.linear(F.gelu(F.linear(rows, *first)), *second))
    return out


def _linear_parts(network: nn.Sequential) -> list[tuple[Tensor, Tensor]]:
    """Weight (outputs, inputs) and bias of each 1×1 convolution."""
    convolutions = (layer for layer in network if isinstance(layer, nn.Conv2d))
    return [(layer.weight.flatten(1), torch.as_tensor(layer.bias)) for layer in convolutions]
