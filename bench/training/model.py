"""The upsampler and the nets that exist only to train it."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import BenchError
from bench.models.upsamplers import BilateralUpsampler, JBUOne, JBUStack, steps_for
from bench.models.upsamplers.jbu import JointBilateral, TapProducts
from bench.models.upsamplers.trainable import upsample
from bench.training.jitter import Jitter, apply_jitter
from bench.training.losses import (
    AttentionDownsampler,
    ContentRetentionNet,
    UncertaintyNet,
    image_loss,
    reconstruction_loss,
)
from bench.training.spec import TrainingConfig

# Tokens a side. Reflect padding wants more pixels than the kernel's radius after the first doubling.
MIN_GRID = 3


class Losses(NamedTuple):
    """Scalars; total = reconstruction + γ · image (eq. 5)."""

    total: Tensor
    reconstruction: Tensor
    image: Tensor


class Learner(nn.Module):
    """All that is trained. Its parameters are drawn from torch's global generator."""

    def __init__(self, settings: TrainingConfig, dim: int, patch: int) -> None:
        super().__init__()
        if settings.crop % patch or settings.crop < MIN_GRID * patch:
            raise BenchError(
                f"--crop {settings.crop}: not a multiple of the backbone's patch size {patch}, or fewer than "
                f"{MIN_GRID} patches; take e.g. {patch * max(MIN_GRID, settings.crop // patch)}"
            )
        self.weight = settings.image_loss
        self.amp = settings.amp
        self.steps = steps_for(patch)
        self.upsampler = _new_upsampler(settings, dim, self.steps)
        self.downsampler = AttentionDownsampler(dim, patch)
        self.uncertainty = UncertaintyNet(dim) if settings.uncertainty else None
        self.retention = ContentRetentionNet(dim) if self.weight else None

    def upsample(self, patches: Tensor, images: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, H, W) at the images' size; resized where the doublings miss it."""
        with self._autocast(images):
            pixels = upsample(self.upsampler, patches, images, self.steps)
        size = images.shape[-2:]
        return pixels if pixels.shape[-2:] == size else F.interpolate(pixels, size, mode="bilinear")

    def losses(self, pixels: Tensor, view: Tensor, target: Tensor, directions: Tensor | None, jitter: Jitter) -> Losses:
        """Eq. 5 for one jitter.

        pixels (B, C, H, W): upsampled features of the images. view (B, 3, H, W): the images, jittered. target
        (B, C, h, w): the backbone's features of the view. directions: see `reconstruction_loss`.
        """
        seen = apply_jitter(pixels, jitter)
        with self._autocast(seen):
            restored = self.downsampler(seen)
            picture = self.retention(seen) if self.retention is not None else None
        uncertainty = self.uncertainty(target) if self.uncertainty is not None else None
        reconstruction = reconstruction_loss(restored.float(), target, directions, uncertainty)
        image = reconstruction.new_zeros(()) if picture is None else image_loss(picture.float(), view)
        return Losses(reconstruction + self.weight * image, reconstruction, image)

    def _autocast(self, tensor: Tensor) -> torch.autocast:
        return torch.autocast(tensor.device.type, torch.bfloat16, enabled=self.amp)


def _new_upsampler(settings: TrainingConfig, dim: int, steps: int) -> BilateralUpsampler:
    one = settings.kind == "jbu_one"
    upsampler = JBUOne(dim, settings.radius) if one else JBUStack(dim, settings.radius, modules=steps)
    if settings.reference_gradient:
        for name, module in list(upsampler.named_children()):
            if isinstance(module, JointBilateral):
                upsampler.add_module(name, ReleasedJointBilateral(module.radius))
    return upsampler


class ReleasedJointBilateral(JointBilateral):
    """Joint bilateral step whose gradients reach the kernels through the taps z² alone, for the released weights.

    The CUDA backward pass of the adaptive convolution, in FeatUp and in SimFeatUp, computes the tap that a thread works
    on as z·z. So of the kernel only the taps 0, 1, 4, 9 … ever get a gradient: 11 of 121, or 7 of 49. The C++ version
    is right, and so is ours.
    """

    def kernels(self, guidance: Tensor, tap_products: TapProducts | None = None) -> Tensor:
        kernels = super().kernels(guidance, tap_products)
        trained = torch.zeros(self.diameter**2, dtype=torch.bool, device=kernels.device)
        trained[torch.arange(self.diameter) ** 2] = True
        return torch.where(trained[:, None, None], kernels, kernels.detach())
