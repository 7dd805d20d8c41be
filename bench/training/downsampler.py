"""FeatUp's learned downsampler, the σ↓ of eq. 3."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLUR_RADIUS = 2
BLUR_SIGMA = 1.0
PATCH_DROPOUT = 0.2


class AttentionDownsampler(nn.Module):
    """Pixel features to patch features: in each patch a mean, weighted by a softmax over its pixels.

    A pixel's logit is learned from its (blurred) feature, then scaled and shifted by what is learned for its
    place in the patch. For a random fifth of the patches the features have no say.
    """

    def __init__(self, dim: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.saliency = nn.Sequential(nn.Dropout(0.2), nn.Linear(dim, 1))
        self.gain = nn.Parameter(1 + 0.01 * torch.randn(patch**2))
        self.bias = nn.Parameter(0.01 * torch.randn(patch**2))
        self.patch_dropout = PATCH_DROPOUT

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W), sides multiples of the patch size -> (B, C, h, w)."""
        side = self.patch
        patches = blur(pixels).unfold(2, side, side).unfold(3, side, side)  # (B, C, h, w, side, side)
        patches = patches.permute(0, 2, 3, 4, 5, 1).flatten(3, 4)  # (B, h, w, side², C)
        logits = self.saliency(patches).squeeze(-1)  # (B, h, w, side²)
        heard = torch.rand(*logits.shape[:3], 1, device=logits.device) >= self.patch_dropout
        weights = torch.softmax(logits * heard * self.gain + self.bias, dim=-1)
        return torch.einsum("bhwpc,bhwp->bchw", patches, weights)


def blur(maps: Tensor) -> Tensor:
    """5×5 Gaussian, σ = 1 pixel, borders reflected; each channel of (B, C, H, W) apart."""
    line = torch.exp(-(torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1.0, device=maps.device) ** 2) / (2 * BLUR_SIGMA**2))
    line = line / line.sum()
    kernel = (line[:, None] * line).expand(maps.shape[1], 1, -1, -1)
    return F.conv2d(F.pad(maps, [BLUR_RADIUS] * 4, mode="reflect"), kernel, groups=maps.shape[1])
