"""Adaptive convolution: every pixel is filtered with a kernel of its own, shared by all channels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def adaptive_conv(source: Tensor, kernels: Tensor) -> Tensor:
    """Filter `source` with one d×d kernel a pixel.

    Args:
        source: (B, C, H + d - 1, W + d - 1), the border already added.
        kernels: (B, d*d, H, W), taps row-major (dy outer, dx inner), the first on the upper left.

    Returns:
        (B, C, H, W). Differentiable in both arguments (once). Neither pass holds more than one product of the
        output's size at a time, so memory does not grow with the kernel.
    """
    return torch.as_tensor(_AdaptiveConv.apply(source, kernels))


def shifted(padded: Tensor, diameter: int) -> Iterator[Tensor]:
    """Views of `padded` (..., H + d - 1, W + d - 1), one for each tap, each (..., H, W)."""
    height, width = (size - diameter + 1 for size in padded.shape[-2:])
    for dy in range(diameter):
        for dx in range(diameter):
            yield padded[..., dy : dy + height, dx : dx + width]


class _AdaptiveConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, source: Tensor, kernels: Tensor) -> Tensor:
        ctx.save_for_backward(source, kernels)
        ctx.diameter = source.shape[-1] - kernels.shape[-1] + 1
        out = source.new_zeros(*source.shape[:2], *kernels.shape[-2:])
        for tap, neighbour in enumerate(shifted(source, ctx.diameter)):
            out.addcmul_(neighbour, kernels[:, tap, None])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, Tensor | None]:
        source, kernels = ctx.saved_tensors
        needs_source, needs_kernels = ctx.needs_input_grad
        grad_source = torch.zeros_like(source) if needs_source else None
        grad_kernels = torch.empty_like(kernels) if needs_kernels else None
        if grad_source is not None:
            for tap, neighbour in enumerate(shifted(grad_source, ctx.diameter)):
                neighbour.addcmul_(grad_out, kernels[:, tap, None])
        if grad_kernels is not None:
            product = torch.empty_like(grad_out)  # one for all taps: fresh memory each time costs more than the product
            for tap, neighbour in enumerate(shifted(source, ctx.diameter)):
                torch.sum(torch.mul(grad_out, neighbour, out=product), dim=1, out=grad_kernels[:, tap])
        return grad_source, grad_kernels
