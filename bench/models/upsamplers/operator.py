"""The ×2 steps of an upsampler as one exact linear operator, fast, for a batch of windows.

The kernels depend on the guidance image alone, and both bicubic enlargement and adaptive convolution are
linear in the features, so the identity sent through the steps gives the matrix W(image) for any features.

Each step is made of dense matrix products over small tiles. Keys of a tile times keys of all that its kernels
touch hold the inner products of the range term. Kernels times the bicubic weights behind their taps are
kernels on the source itself: a quarter of the pixels, and the same ones for a whole tile. Those times the
source are the filtered tile. On a CPU a few columns of tiles at a time stay near the core; an accelerator does
all tiles of all windows at once.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.models.upsamplers.jbu import FIXUP_WEIGHT, GUIDE_DIM, KERNEL_FLOOR, JointBilateral
from bench.models.upsamplers.tiles import TILE, Strip, TileGrid, source_columns

_UNIT = 16.0  # GELU leaves it as it is, and to divide by it is exact


class Step(NamedTuple):
    """One ×2 step: its module and the guidance (B, 3, H, W) of the windows at the step's own size."""

    module: JointBilateral
    guidance: Tensor


class Rows(NamedTuple):
    """Rows of an operator for a strip's pixels, in the order that `TileGrid.write` takes.

    values: (B, pixels, m), the columns `first` to first + m; all others are zero.
    """

    strip: Strip
    first: int
    values: Tensor


class Operator:
    """W (B, H * W, n) float32 of `steps` for B windows: n = h * w patches of `grid`, pixels of the last step.

    The steps before the last are done at once. The last, which holds three quarters of the work and nearly all of the
    memory, is done strip by strip for whoever asks, so W need never be there as a whole.

    tiles: of the last step. order (n,): the patch of each column. Patches are taken column by column of the grid, so
    that what a strip of pixels cannot see is at either end.
    """

    @torch.no_grad()
    def __init__(self, steps: list[Step], grid: tuple[int, int]) -> None:
        self._grid = grid
        self._steps = steps
        guidance = steps[0].guidance
        self.windows = len(guidance)
        count = grid[0] * grid[1]
        self.order = torch.arange(count, device=guidance.device).view(grid).T.flatten()
        identity = torch.eye(count, device=guidance.device).view(*grid[::-1], count).transpose(0, 1)
        filters = [_StepFilter(step) for step in steps]
        source = filters[0].tiles.pad_source(identity.expand(self.windows, -1, -1, -1))
        for number, (this, following) in enumerate(itertools.pairwise(filters)):
            enlarged = following.tiles.source(self.windows, count)
            self._enlarge(this, source, number, following.tiles.inner(enlarged))
            following.tiles.repeat_edge(enlarged)
            source = enlarged
        self._last, self._source = filters[-1], source
        self.tiles = self._last.tiles

    def rows(self, strip: Strip) -> Rows:
        """Return the rows of the pixels of one of the strips of `tiles`."""
        first, pixels = self._filtered(self._last, self._source, strip, len(self._steps) - 1)
        return Rows(strip, first, pixels.reshape(self.windows, -1, pixels.shape[3]))

    def matrix(self) -> Tensor:
        """All of W (B, H * W, n), rows and columns in the row-major order of pixels and patches."""
        out = self._source.new_empty(self.windows, self.tiles.height, self.tiles.width, len(self.order))
        self._enlarge(self._last, self._source, len(self._steps) - 1, out)
        matrix: Tensor = out.flatten(1, 2)[:, :, self.order.argsort()]
        return matrix

    def _enlarge(self, step: _StepFilter, source: Tensor, number: int, out: Tensor) -> None:
        """Step `number`, from its padded source (B, …, …, n) to `out` (B, height, width, n)."""
        tiles = step.tiles

        def work(strip: Strip) -> None:
            first, pixels = self._filtered(step, source, strip, number)
            last = first + pixels.shape[3]
            columns = out[:, :, strip.first * TILE : strip.last * TILE]
            columns[..., :first], columns[..., last:] = 0, 0
            tiles.write(pixels, out[..., first:last], strip)

        tiles.for_strips(work)

    @torch.no_grad()
    def _filtered(self, step: _StepFilter, source: Tensor, strip: Strip, number: int) -> tuple[int, Tensor]:
        """First column of W that counts in a strip of step `number`, and its pixels (B * s, t, TILE², m) from there."""
        first, last = (column * self._grid[0] for column in self._seen(strip, number))
        return first, step(source[..., first:last], strip)

    def _seen(self, strip: Strip, number: int) -> tuple[int, int]:
        """Columns of the patch grid that can count in a strip of step `number`: from, up to not including."""
        first, last = strip.first * TILE, strip.last * TILE
        for step in reversed(self._steps[: number + 1]):
            first, last = source_columns(first, last, step.module.radius)
            first, last = max(first, 0), min(last, step.guidance.shape[3] // 2)
        return first, last


class _StepFilter:
    """One step of all windows: what its strips share."""

    def __init__(self, step: Step) -> None:
        module, guidance = step
        self._windows = len(guidance)
        self.tiles = TileGrid(guidance.shape[2], guidance.shape[3], module.radius, guidance.device)
        pixels = guidance.permute(0, 2, 3, 1)
        with torch.autocast(guidance.device.type, enabled=False):
            self._guidance = self.tiles.pad(pixels)
            self._keys = _mlp(module.range_proj, self._guidance)
            self._temperature = module.temperature()
            self._kernels_of = _KernelMaker(module)

    def __call__(self, source: Tensor, strip: Strip) -> Tensor:
        """Compute a strip's pixels after the step, (B * s, t, TILE², n), from a padded source (B, …, …, n)."""
        tiles = self.tiles
        with torch.autocast(source.device.type, enabled=False):
            keys = tiles.pixels(self._keys, strip).permute(2, 3, 4, 0, 1, 5)  # (b, s, t, i, j, 32)
            queries = torch.mul(keys, self._temperature, out=keys.new_empty(keys.shape)).flatten(3, 4).flatten(0, 1)
            products = tiles.taps(tiles.reach(self._keys, strip).dot(queries), self._windows)
            kernels = self._kernels_of(products, tiles.pixels(self._guidance, strip))
            return tiles.filtered(source, tiles.on_source(kernels, strip), strip)


class _KernelMaker:
    """`JointBilateral.kernels` from the range term's inner products on, as matrix products over pixels.

    A pixel's taps stand beside its guidance, as the fix-up network takes them: d*d + 3 is a multiple of four for every
    odd d, and matrix units are slow on rows that end elsewhere. A hidden unit that is always `_UNIT` carries the
    closing bias.
    """

    def __init__(self, module: JointBilateral) -> None:
        (weight, bias), (closing, closing_bias) = _linear_parts(module.fixup_proj)
        self._taps = module.diameter**2
        self._log_spatial = module.log_spatial_kernel()
        self._hidden = F.pad(weight, (0, 0, 0, GUIDE_DIM)), F.pad(bias, (0, GUIDE_DIM), value=_UNIT)
        closing = torch.cat([closing, closing_bias[:, None] / _UNIT], dim=1)
        self._closing = F.pad(closing, (0, GUIDE_DIM - 1, 0, GUIDE_DIM))
        self._floored = module.floor_acts()

    def __call__(self, products: Tensor, guidance: Tensor) -> Tensor:
        """Inner products times temperature (…, d, d) and guidance (…, 3) of pixels -> kernels (…, d*d + 3).

        What stands beside the taps then is the guidance still.
        """
        width = self._taps + GUIDE_DIM
        logits = products.new_empty(*products.shape[:-2], width)
        logits[..., self._taps :] = -torch.inf
        taps = torch.unflatten(logits[..., : self._taps], -1, products.shape[-2:])
        torch.add(products, self._log_spatial, out=taps)
        kernels = logits.softmax(-1)
        if self._floored:
            share = (products.flatten(-2).softmax(-1) * self._log_spatial.exp().flatten()).sum(-1, keepdim=True)
            kernels *= (share / KERNEL_FLOOR).clamp_(max=1)
        kernels[..., self._taps :] = guidance
        hidden = F.gelu(F.linear(kernels, *self._hidden)).view(-1, width)
        kernels.view(-1, width).addmm_(hidden, self._closing.T, alpha=FIXUP_WEIGHT)
        return kernels


def _mlp(network: nn.Sequential, pixels: Tensor) -> Tensor:
    """Apply a pixelwise network of `JointBilateral` to channels-last pixels, without its dropout."""
    first, second = _linear_parts(network)
    return F.linear(F.gelu(F.linear(pixels, *first)), *second)


def _linear_parts(network: nn.Sequential) -> list[tuple[Tensor, Tensor]]:
    """Weight (outputs, inputs) and bias of each 1×1 convolution."""
    convolutions = (layer for layer in network if isinstance(layer, nn.Conv2d))
    return [(layer.weight.flatten(1), torch.as_tensor(layer.bias)) for layer in convolutions]
