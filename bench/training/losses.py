"""The two losses of eq. 5, and the small nets that they bring along."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

UNCERTAINTY_FLOOR = 1e-4


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
