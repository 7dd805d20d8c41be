"""An upsampler's forward pass for training: the values of `Upsampler.forward`, with gradients, as products over tiles.

The direct way goes through all features once for each tap of the kernels, and twice more for the gradients. Here, as
in `operator.py`, kernels times bicubic weights are kernels on the source, and the pixels of a tile are one product of
these with the source pixels that they see; so is either gradient. Features have their channels last.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from bench.upsamplers.jbu import FIXUP_WEIGHT, JointBilateral
from bench.upsamplers.model import Upsampler
from bench.upsamplers.tiles import TILE, Strip, TileGrid, tiled_product


def upsample(upsampler: Upsampler, patches: Tensor, guidance: Tensor, steps: int) -> Tensor:
    """`upsampler(patches, guidance, steps)`: (B, C, h, w) -> (B, C, h * 2**steps, w * 2**steps).

    Differentiable, once, in all but the guidance. Under autocast kernels are made in its precision, and applied in
    float32.
    """
    upsampler.check_grid(patches.shape[-2], patches.shape[-1])
    pixels = patches.float().permute(0, 2, 3, 1)
    for module in upsampler.modules_for(steps):
        size = (2 * pixels.shape[1], 2 * pixels.shape[2])
        pixels = enlarge(module, pixels, F.adaptive_avg_pool2d(guidance, size))
    features = pixels.permute(0, 3, 1, 2).contiguous()
    fixup: Tensor = upsampler.fixup_proj(features)
    return features + FIXUP_WEIGHT * fixup


def enlarge(module: JointBilateral, source: Tensor, guidance: Tensor) -> Tensor:
    """One ×2 step: features (B, h, w, C) and guidance (B, 3, 2h, 2w) -> features (B, 2h, 2w, C)."""
    tiles = TileGrid(guidance.shape[2], guidance.shape[3], module.radius, guidance.device)
    in_float32 = torch.autocast(guidance.device.type, enabled=False)

    def tap_products(keys: Tensor) -> Tensor:
        with in_float32:
            padded = torch.stack([tiles.pad(image) for image in keys.float().permute(0, 2, 3, 1)])
            return torch.as_tensor(_TapProducts.apply(padded, tiles))

    kernels = module.kernels(guidance, tap_products)
    with in_float32:
        return torch.as_tensor(_Filter.apply(tiles.pad_source(source), kernels.float(), tiles))


class _TapProducts(torch.autograd.Function):
    """`JointBilateral.tap_products` of padded keys (B, …, …, n)."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, tiles: TileGrid) -> Tensor:
        ctx.save_for_backward(padded)
        ctx.tiles = tiles
        out = padded.new_empty(len(padded), tiles.diameter**2, tiles.height, tiles.width)

        def work(image: int, strip: Strip) -> None:
            keys, reach = _keys(padded[image], strip, tiles)
            _write_taps(tiles.taps(tiled_product(keys, reach.mT)), out[image], strip, tiles)

        tiles.for_images(work, len(padded))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, None]:
        (padded,) = ctx.saved_tensors
        tiles: TileGrid = ctx.tiles

        def work(image: int, strip: Strip) -> tuple[Tensor, Tensor]:
            keys, reach = _keys(padded[image], strip, tiles)
            grad = keys.new_zeros(*keys.shape[:3], reach.shape[2])
            tiles.taps(grad).copy_(_read_taps(grad_out[image], strip, tiles))
            return tiled_product(grad, reach), _overlapped(tiled_product(grad.mT, keys), TILE)

        grad_padded = torch.zeros_like(padded)
        for image, strip, (of_keys, of_reach) in tiles.for_images(work, len(padded)):
            pixels = tiles.pixels(grad_padded[image], strip)
            pixels += of_keys.view(*of_keys.shape[:2], TILE, TILE, -1).permute(2, 3, 0, 1, 4)
            _add(of_reach, grad_padded[image], strip.first * TILE)
        return grad_padded, None


class _Filter(torch.autograd.Function):
    """Bicubic ×2 of a source (B, …, …, C), as `TileGrid.pad_source` gives it, filtered with kernels (B, d * d, H, W):
    (B, H, W, C).
    """

    @staticmethod
    def forward(ctx: Any, source: Tensor, kernels: Tensor, tiles: TileGrid) -> Tensor:
        ctx.save_for_backward(source, kernels)
        ctx.tiles = tiles
        out = source.new_empty(len(source), tiles.height, tiles.width, source.shape[3])

        def work(image: int, strip: Strip) -> None:
            on_source = tiles.on_source(_read_taps(kernels[image], strip, tiles).contiguous(), strip)
            pixels = tiled_product(on_source, tiles.source_reach(source[image], strip))
            tiles.write(pixels, out[image], strip)

        tiles.for_images(work, len(source))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        source, kernels = ctx.saved_tensors
        tiles: TileGrid = ctx.tiles
        needs_source, needs_kernels, _ = ctx.needs_input_grad
        grad_kernels = torch.empty_like(kernels) if needs_kernels else None

        def work(image: int, strip: Strip) -> Tensor | None:
            grad = tiles.read(grad_out[image], strip)  # (s, t, TILE², C)
            if grad_kernels is not None:
                grad_on_source = tiled_product(grad, tiles.source_reach(source[image], strip).mT)
                _write_taps(tiles.on_source_adjoint(grad_on_source, strip), grad_kernels[image], strip, tiles)
            if not needs_source:
                return None
            on_source = tiles.on_source(_read_taps(kernels[image], strip, tiles).contiguous(), strip)
            return _overlapped(tiled_product(on_source.mT, grad), TILE // 2)

        grad_source = torch.zeros_like(source) if needs_source else None
        for image, strip, of_reach in tiles.for_images(work, len(source)):
            if grad_source is not None and of_reach is not None:
                _add(of_reach, grad_source[image], strip.first * TILE // 2)
        return grad_source, grad_kernels, None


def _keys(padded: Tensor, strip: Strip, tiles: TileGrid) -> tuple[Tensor, Tensor]:
    """Those of a strip's pixels (s, t, TILE², n), and of all that its tiles see (s, t, reach, n)."""
    pixels = tiles.pixels(padded, strip).permute(2, 3, 0, 1, 4).flatten(2, 3)
    return pixels, tiles.reach(padded, strip)


def _read_taps(image: Tensor, strip: Strip, tiles: TileGrid) -> Tensor:
    """A strip of a map (d * d, H, W) as (i, j, s, t, d, d), zero beyond the map."""
    columns = strip.last - strip.first
    part = image[:, :, strip.first * TILE : strip.last * TILE]
    part = F.pad(part, (0, columns * TILE - part.shape[2], 0, tiles.down * TILE - tiles.height))
    part = part.view(tiles.diameter, tiles.diameter, tiles.down, TILE, columns, TILE)
    return part.permute(3, 5, 4, 2, 0, 1)


def _write_taps(taps: Tensor, image: Tensor, strip: Strip, tiles: TileGrid) -> None:
    """The inverse of `_read_taps`, into the map."""
    target = image[:, :, strip.first * TILE : strip.last * TILE]
    part = taps.permute(4, 5, 3, 0, 2, 1).flatten(4, 5).flatten(2, 3).flatten(0, 1)
    target.copy_(part[:, : target.shape[1], : target.shape[2]])


def _overlapped(tiles: Tensor, step: int) -> Tensor:
    """Tiles (s, t, side², n), each `step` pixels from the next, added up where they overlap: (rows, columns, n)."""
    across, down, area, channels = tiles.shape
    side = math.isqrt(area)
    grid = tiles.view(across, down, side, side, channels)
    rows = _overlapped_along(grid, step)  # (s, rows, side, n)
    return _overlapped_along(rows.transpose(0, 1)[:, :, :, None], step)[:, :, 0]


def _overlapped_along(tiles: Tensor, step: int) -> Tensor:
    """(m, t, side, k, n) -> (m, (t - 1) * step + side, k, n)."""
    count, side = tiles.shape[1:3]
    whole = -(-side // step)
    out = tiles.new_zeros(len(tiles), (count + whole - 1) * step, *tiles.shape[3:])
    for part in range(whole):
        share = tiles[:, :, part * step : (part + 1) * step]
        target = out[:, part * step : (part + count) * step].view(len(out), count, step, *out.shape[2:])
        target[:, :, : share.shape[2]] += share
    return out[:, : (count - 1) * step + side]


def _add(part: Tensor, image: Tensor, first: int) -> None:
    """Adds (rows, columns, n) to the image's columns from `first` on."""
    image[:, first : first + part.shape[1]] += part
