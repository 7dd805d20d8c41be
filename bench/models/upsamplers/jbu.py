"""One learned joint bilateral ×2 step (FeatUp, Fu et al. 2024; SegEarth-OV section 4.1, eq. 7 and 8)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TapProducts: TypeAlias = Callable[[Tensor], Tensor]

KEY_DIM = 32
GUIDE_DIM = 3
KERNEL_FLOOR = 1e-7
FIXUP_WEIGHT = 0.1


class JointBilateral(nn.Module):
    """Enlarges features two times, with kernels that follow the edges of a guidance image.

    Parameter names and shapes are as in the released checkpoints. The kernels depend on the guidance alone
    and the step is linear in the features; `operator.py` builds on that.
    """

    def __init__(self, radius: int) -> None:
        super().__init__()
        self.radius = radius
        self.diameter = 2 * radius + 1
        taps = self.diameter**2
        self.range_temp = nn.Parameter(torch.tensor(0.0))
        self.sigma_spatial = nn.Parameter(torch.tensor(1.0))
        self._floor_acts: tuple[int, bool] | None = None
        self.range_proj = _pixelwise_mlp(GUIDE_DIM, KEY_DIM)
        self.fixup_proj = _pixelwise_mlp(taps + GUIDE_DIM, taps)

    def forward(self, source: Tensor, guidance: Tensor) -> Tensor:
        """Features (B, C, h, w) and guidance (B, 3, 2h, 2w) -> features (B, C, 2h, 2w)."""
        enlarged = F.interpolate(source, guidance.shape[-2:], mode="bicubic", align_corners=False)
        return adaptive_conv(self._reflected(enlarged), self.kernels(guidance))

    def kernels(self, guidance: Tensor, tap_products: TapProducts | None = None) -> Tensor:
        """Filter kernels (B, d*d, H, W) of a guidance image (B, 3, H, W); taps row-major.

        They sum to one but for the learned fix-up, which the paper does not mention. tap_products: another way to
        compute what the method of this name does.
        """
        bilateral = self.range_kernels(guidance, tap_products) * self.spatial_kernel()[:, None, None]
        bilateral = bilateral / bilateral.sum(1, keepdim=True).clamp_min(KERNEL_FLOOR)
        fixup: Tensor = self.fixup_proj(torch.cat([bilateral, guidance], dim=1))
        return bilateral + FIXUP_WEIGHT * fixup

    def range_kernels(self, guidance: Tensor, tap_products: TapProducts | None = None) -> Tensor:
        """Eq. 8: softmax over the d*d neighbours of how alike their projected colours are, (B, d*d, H, W)."""
        products = (tap_products or self.tap_products)(self.range_proj(guidance))
        return torch.softmax(self.temperature() * products, dim=1)

    def tap_products(self, keys: Tensor) -> Tensor:
        """Inner products of each pixel's key (B, n, H, W) with those under its taps, (B, d*d, H, W)."""
        neighbours = shifted(self._reflected(keys), self.diameter)
        return torch.stack([(keys * neighbour).sum(1) for neighbour in neighbours], dim=1)

    def spatial_kernel(self) -> Tensor:
        """Eq. 7: a Gaussian over the taps, (d*d,), not normalised; distances in units of the radius."""
        return self.log_spatial_kernel().exp().flatten()

    def log_spatial_kernel(self) -> Tensor:
        """Return its logarithm, (d, d)."""
        axis = torch.linspace(-1, 1, self.diameter, device=self.sigma_spatial.device)
        squared = axis[:, None].square() + axis.square()
        return -squared / (2 * self.sigma_spatial**2)

    def floor_acts(self) -> bool:
        """Return whether KERNEL_FLOOR may: not where all of the Gaussian is above it, as for σ > 0.25."""
        version = self.sigma_spatial._version
        if self._floor_acts is None or self._floor_acts[0] != version:  # a GPU is asked once
            self._floor_acts = version, bool(self.spatial_kernel().min() < KERNEL_FLOOR)
        return self._floor_acts[1]

    def temperature(self) -> Tensor:
        """Return the learned factor 1 / τ² of eq. 8."""
        return self.range_temp.exp().clamp(1e-4, 1e4)

    def _reflected(self, image: Tensor) -> Tensor:
        return F.pad(image, [self.radius] * 4, mode="reflect")


def _pixelwise_mlp(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.GELU(), nn.Dropout2d(0.1), nn.Conv2d(outputs, outputs, 1))


def adaptive_conv(source: Tensor, kernels: Tensor) -> Tensor:
    """Adaptive convolution: filter `source` with one d×d kernel a pixel, shared by all channels.

    Args:
        source: (B, C, H + d - 1, W + d - 1), the border already added.
        kernels: (B, d*d, H, W), taps row-major (dy outer, dx inner), the first on the upper left.

    Returns:
        (B, C, H, W). Differentiable, but `trainable.py` is much faster at that.
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
