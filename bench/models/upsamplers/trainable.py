"""An upsampler's forward pass for training: the values of `Upsampler.forward`, with gradients, as products over tiles.

The direct way goes through all features once for each tap of the kernels, and twice more for the gradients. Here, as
in `operator.py`, kernels times bicubic weights are kernels on the source, and the pixels of a tile are one product of
these with the source pixels that they see; so is either gradient. Features have their channels last.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from bench.models.upsamplers.bilateral import BilateralUpsampler
from bench.models.upsamplers.jbu import FIXUP_WEIGHT, JointBilateral
from bench.models.upsamplers.tiles import TILE, Reach, Strip, TileGrid

Overlapped: TypeAlias = tuple[int, Tensor]


def upsample(upsampler: BilateralUpsampler, patches: Tensor, guidance: Tensor, steps: int) -> Tensor:
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
            padded = tiles.pad(keys.float().permute(0, 2, 3, 1))
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

        def work(images: slice, strip: Strip) -> None:
            keys, reach = _keys(padded[images], strip, tiles)
            _write_taps(tiles.taps(reach.dot(keys), len(out[images])), out[images], strip)

        tiles.for_images(work, len(padded))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, None]:
        (padded,) = ctx.saved_tensors
        tiles: TileGrid = ctx.tiles
        area = (TILE + 2 * tiles.radius) ** 2

        def work(images: slice, strip: Strip) -> tuple[Tensor, Overlapped]:
            keys, reach = _keys(padded[images], strip, tiles)
            grad = keys.new_zeros(*keys.shape[:3], area)
            grad_taps = _read_taps(grad_out[images], strip, tiles)
            tiles.taps(grad, grad_taps.shape[2]).copy_(grad_taps)
            return reach.weighted(grad), _overlapped(grad.mT @ keys, TILE)

        grad_padded = torch.zeros_like(padded)
        for images, strip, (of_keys, of_reach) in tiles.for_images(work, len(padded)):
            pixels = tiles.pixels(grad_padded[images], strip)  # (i, j, b, s, t, n)
            pixels += of_keys.view(*pixels.shape[2:5], TILE, TILE, -1).permute(3, 4, 0, 1, 2, 5)
            _add(of_reach, grad_padded[images], strip.first * TILE)
        return grad_padded, None


class _Filter(torch.autograd.Function):
    """Bicubic ×2 of a source, filtered with kernels.

    The source (B, …, …, C) is as `TileGrid.pad_source` gives it; kernels are (B, d * d, H, W), the result (B, H, W, C).
    """

    @staticmethod
    def forward(ctx: Any, source: Tensor, kernels: Tensor, tiles: TileGrid) -> Tensor:
        ctx.save_for_backward(source, kernels)
        ctx.tiles = tiles
        out = source.new_empty(len(source), tiles.height, tiles.width, source.shape[3])

        def work(images: slice, strip: Strip) -> None:
            on_source = tiles.on_source(_read_taps(kernels[images], strip, tiles).contiguous().flatten(-2), strip)
            pixels = tiles.filtered(source[images], on_source, strip)
            tiles.write(pixels, out[images], strip)

        tiles.for_images(work, len(source))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        source, kernels = ctx.saved_tensors
        tiles: TileGrid = ctx.tiles
        needs_source, needs_kernels, _ = ctx.needs_input_grad
        grad_kernels = torch.empty_like(kernels) if needs_kernels else None

        def work(images: slice, strip: Strip) -> Overlapped | None:
            grad = tiles.read(grad_out[images], strip)  # (b * s, t, TILE², C)
            if grad_kernels is not None:
                grad_on_source = tiles.source_reach(source[images], strip).dot(grad)
                grad_taps = tiles.on_source_adjoint(grad_on_source, strip)
                _write_taps(grad_taps, grad_kernels[images], strip)
            if not needs_source:
                return None
            on_source = tiles.on_source(_read_taps(kernels[images], strip, tiles).contiguous().flatten(-2), strip)
            return _overlapped(on_source.mT @ grad, TILE // 2)

        grad_source = torch.zeros_like(source) if needs_source else None
        for images, strip, of_reach in tiles.for_images(work, len(source)):
            if grad_source is not None and of_reach is not None:
                _add(of_reach, grad_source[images], strip.first * TILE // 2)
        return grad_source, grad_kernels, None


def _keys(padded: Tensor, strip: Strip, tiles: TileGrid) -> tuple[Tensor, Reach]:
    """Return the keys of a strip's pixels (b * s, t, TILE², n), and all keys that its tiles see."""
    pixels = tiles.pixels(padded, strip).permute(2, 3, 4, 0, 1, 5).flatten(3, 4).flatten(0, 1)
    return pixels, tiles.reach(padded, strip)


def _read_taps(images: Tensor, strip: Strip, tiles: TileGrid) -> Tensor:
    """Read a strip of maps (b, d * d, H, W) as (i, j, b, s, t, d, d), zero beyond the maps."""
    part = images[..., strip.first * TILE : strip.last * TILE]
    part = F.pad(part, (0, strip.across * TILE - part.shape[3], 0, tiles.down * TILE - tiles.height))
    part = part.view(len(images), tiles.diameter, tiles.diameter, tiles.down, TILE, strip.across, TILE)
    return part.permute(4, 6, 0, 5, 3, 1, 2)


def _write_taps(taps: Tensor, images: Tensor, strip: Strip) -> None:
    """Write taps into the maps: the inverse of `_read_taps`."""
    target = images[..., strip.first * TILE : strip.last * TILE]
    part = taps.permute(2, 5, 6, 4, 0, 3, 1).flatten(5, 6).flatten(3, 4).flatten(1, 2)
    target.copy_(part[:, :, : target.shape[2], : target.shape[3]])


def _overlapped(products: Tensor, step: int) -> Overlapped:
    """Add up tiles (b * s, t, side², n), each `step` pixels from the next, where they overlap down a column.

    Returns (b * s, rows, side, n), and the step.
    """
    side = math.isqrt(products.shape[2])
    return step, _overlapped_along(torch.unflatten(products, 2, (side, side)), step)


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


def _add(overlapped: Overlapped, images: Tensor, first: int) -> None:
    """Add columns of tiles (b * s, rows, side, n) to the columns of images (b, …, …, n) from `first` on."""
    step, columns = overlapped
    columns = torch.unflatten(columns, 0, (len(images), -1)).transpose(2, 3)  # (b, s, side, rows, n)
    merged = _overlapped_along(columns, step)  # (b, columns, rows, n)
    images[:, : merged.shape[2], first : first + merged.shape[1]] += merged.transpose(1, 2)
