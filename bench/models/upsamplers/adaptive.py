"""Adaptive convolution: every pixel is filtered with its own kernel, shared by all channels."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor


def adaptive_conv(source: Tensor, kernels: Tensor) -> Tensor:
    """Filter `source` with one d×d kernel a pixel.

    Args:
        source: (B, C, H + d - 1, W + d - 1), the border already added.
        kernels: (B, d*d, H, W), taps row-major (dy outer, dx inner), the first on the upper left.

    Returns:
        (B, C, H, W). Differentiable, but `bench.models.upsamplers.trainable` is much faster at that.
    """
    out = source.new_zeros(*source.shape[:2], *kernels.shape[-2:])
    for tap, neighbour in enumerate(shifted(source, source.shape[-1] - kernels.shape[-1] + 1)):
        out = out.addcmul_(neighbour, kernels[:, tap, None])
    return out


def shifted(padded: Tensor, diameter: int) -> Iterator[Tensor]:
    """Yield views of `padded` (..., H + d - 1, W + d - 1), one for each tap, each (..., H, W)."""
    height, width = (size - diameter + 1 for size in padded.shape[-2:])
    for dy in range(diameter):
        for dx in range(diameter):
            yield padded[..., dy : dy + height, dx : dx + width]
