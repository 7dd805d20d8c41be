"""The two losses of eq. 5, and the nets that exist for them alone, FeatUp's learned downsampler among them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

UNCERTAINTY_FLOOR = 1e-4
BLUR_RADIUS = 2
BLUR_SIGMA = 1.0
PATCH_DROPOUT = 0.2


def random_directions(batch: int, dim: int, count: int, generator: torch.Generator) -> Tensor:
    """(B, C, count): for each image `count` random directions of unit length in feature space."""
    return F.normalize(torch.randn(batch, dim, count, generator=generator), dim=1)


def reconstruction_loss(
    predicted: Tensor, target: Tensor, directions: Tensor | None = None, uncertainty: Tensor | None = None
) -> Tensor:
    """Eq. 3: the mean square difference of features that went up and down again from the features of the same view.

    predicted, target: (B, C, h, w)
    directions: (B, C, n), compare projections on them instead
    uncertainty: s (B, 1, h, w); the loss is then mean(difference² / 2s² + log s), so that features which cannot be
    predicted weigh less
    """
    difference = predicted - target
    if directions is not None:
        difference = torch.einsum("bchw,bcn->bnhw", difference, directions)
    if uncertainty is None:
        return difference.square().mean()
    return (difference.square() / (2 * uncertainty.square()) + uncertainty.log()).mean()


def image_loss(retained: Tensor, images: Tensor) -> Tensor:
    """Eq. 4: mean square difference of CRN's picture from the normalised image, which exceeds its [-1, 1]."""
    return F.mse_loss(retained, images)


class UncertaintyNet(nn.Module):
    """Uncertainty of each patch's feature: s of `reconstruction_loss`. Starts close to 1."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.net = nn.Conv2d(dim, 1, 1)
        with torch.no_grad():
            for parameter in self.net.parameters():
                parameter.mul_(0.1)

    def forward(self, target: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 1, h, w), positive."""
        return torch.exp(self.net(target) + 0.1).clamp_min(UNCERTAINTY_FLOOR)


class ContentRetentionNet(nn.Module):
    """CRN of eq. 4: an image from pixel features, (B, C, H, W) -> (B, 3, H, W) within [-1, 1]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(dim, dim), nn.LayerNorm(dim), nn.GELU(), nn.Linear(dim, 3), nn.Tanh())

    def forward(self, pixels: Tensor) -> Tensor:
        # 1×1 convolutions, written as linear layers so that the norm is over channels without more ado
        return self.net(pixels.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # type: ignore[no-any-return]


class AttentionDownsampler(nn.Module):
    """σ↓ of eq. 3, pixel features to patch features: in each patch a mean, weighted by a softmax over its pixels.

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
