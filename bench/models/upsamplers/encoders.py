"""Parts of AnyUp, JAFAR and NAF: small convolutional encoders, rotary positions, and attention to patches in sight."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEADS = 4


class ConvolutionBlock(nn.Module):
    """GroupNorm, SiLU, convolution, twice; added to its input where it is `residual`."""

    def __init__(self, channels: int, kernel: int = 1, residual: bool = True) -> None:
        super().__init__()
        self.residual = residual
        self.norm1 = nn.GroupNorm(8, channels)
        self.conv1 = convolution(channels, channels, kernel, bias=not residual)
        self.norm2 = nn.GroupNorm(8, channels)
        self.conv2 = convolution(channels, channels, kernel, bias=not residual)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> the same shape."""
        inner = self.conv1(F.silu(self.norm1(x)))
        out: Tensor = self.conv2(F.silu(self.norm2(inner)))
        return x + out if self.residual else out


def convolution(inputs: int, outputs: int, kernel: int, bias: bool = False) -> nn.Conv2d:
    """Return a convolution that keeps the size, with reflected borders."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, padding_mode="reflect", bias=bias)


def encoder(first: nn.Module, channels: int, kernel: int = 1, residual: bool = True) -> nn.Sequential:
    """Return a first layer and two blocks."""
    return nn.Sequential(first, *(ConvolutionBlock(channels, kernel, residual) for _ in range(2)))


def rotated(x: Tensor, angles: Tensor) -> Tensor:
    """Channels (…, N, C) turned in pairs (c, c + C/2) by angles (N, C)."""
    first, second = x.chunk(2, dim=-1)
    return x * angles.cos() + torch.cat([-second, first], dim=-1) * angles.sin()


def points(down: Tensor, across: Tensor) -> Tensor:
    """Coordinates (h * w, 2) of a grid, row-major: down first."""
    return torch.stack(torch.meshgrid(down, across, indexing="ij"), dim=-1).flatten(0, 1)


def split(x: Tensor) -> Tensor:
    """(B, N, C) -> (B, heads, N, C / heads)."""
    return x.reshape(*x.shape[:2], HEADS, -1).transpose(1, 2)


def joined(heads: Tensor) -> Tensor:
    """(B, heads, N, d) -> (B, N, heads * d)."""
    return heads.transpose(1, 2).flatten(2)


def in_sight(rows: Tensor, columns: Tensor) -> Tensor:
    """Return which patches each pixel sees, (H * W, h * w), of those down (H, h) and across (W, w)."""
    return (rows[:, None, :, None] & columns[None, :, None]).flatten(2).flatten(0, 1)


def attention_in_sight(queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
    """(B, heads, P, d), (B, heads, m, d) and what is in sight (P, m) -> weights (B, heads, P, m)."""
    logits = queries @ keys.mT / math.sqrt(queries.shape[-1])
    return logits.masked_fill_(~mask, -math.inf).softmax(dim=-1)
