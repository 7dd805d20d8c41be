"""The ×2 steps of an upsampler as one exact linear operator, fast.

The kernels depend on the guidance image alone, and both bicubic enlargement and adaptive convolution are
linear in the features, so the identity sent through the steps gives the matrix W(image) for any features.

Each step is made of dense matrix products over small tiles. Keys of a tile times keys of all that its kernels
touch hold the inner products of the range term. Kernels times the bicubic weights behind their taps are
kernels on the source itself: a quarter of the pixels, and the same ones for a whole tile. Those times the
source are the filtered tile. On a CPU one column of tiles at a time keeps all of it in the cache.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.upsamplers.jbu import FIXUP_WEIGHT, KERNEL_FLOOR, JointBilateral
from bench.upsamplers.tiles import TileGrid


class Step(NamedTuple):
    """One ×2 step: its module and the guidance (B, 3, H, W) at the step's own size."""

    module: JointBilateral
    guidance: Tensor


@torch.no_grad()
def linear_operator(steps: list[Step], grid: tuple[int, int]) -> Tensor:
    """W (B, H * W, h * w) float32 of `steps`, for patch grid (h, w) and guidance (H, W) of the last step."""
    last = steps[-1].guidance
    patches = grid[0] * grid[1]
    out = last.new_empty(last.shape[0], *last.shape[-2:], patches)
    identity = torch.eye(patches, device=out.device).view(*grid, patches)
    with torch.autocast(out.device.type, enabled=False):
        for window in range(out.shape[0]):  # one at a time: for the memory, and for the cache
            features = identity
            for step in steps:
                image = step.guidance[window].permute(1, 2, 0)
                target = out[window] if step is steps[-1] else out.new_empty(*image.shape[:2], patches)
                _upsample(step.module, image, features, target)
                features = target
    return out.flatten(1, 2)


def _upsample(module: JointBilateral, guidance: Tensor, source: Tensor, out: Tensor) -> None:
    """Features (h, w, n) and guidance (2h, 2w, 3) -> `out` (2h, 2w, n), all channels last."""
    tiles = TileGrid(out.shape[0], out.shape[1], module.radius, out.device)
    guidance = tiles.pad(guidance)
    keys = _mlp(module.range_proj, guidance)
    queries = keys * module.temperature()
    kernel_maker = _KernelMaker(module)
    source = tiles.pad_source(source)
    tap_weights = tiles.tap_weights().to(out.device)
    for strip in tiles.strips():
        tile_queries = tiles.pixels(queries, strip).permute(2, 3, 0, 1, 4).flatten(2, 3)  # (s, t, TILE², 32)
        products = tiles.taps(tile_queries @ tiles.reach(keys, strip).mT)
        kernels = kernel_maker(products.reshape(-1, module.diameter**2), tiles.pixels(guidance, strip))
        tiles.fold_border(kernels.view(products.shape), strip)
        on_source = kernels.view(len(tap_weights), -1, module.diameter**2) @ tap_weights
        on_source = on_source.view(len(tap_weights), *products.shape[2:4], -1).permute(1, 2, 0, 3)
        tiles.write(on_source @ tiles.source_reach(source, strip), out, strip)


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
    return F.linear(F.gelu(F.linear(pixels, *first)), *second)


def _linear_parts(network: nn.Sequential) -> list[tuple[Tensor, Tensor]]:
    """Weight (outputs, inputs) and bias of each 1×1 convolution."""
    convolutions = (layer for layer in network if isinstance(layer, nn.Conv2d))
    return [(layer.weight.flatten(1), torch.as_tensor(layer.bias)) for layer in convolutions]
