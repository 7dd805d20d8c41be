"""The gradient that the released upsamplers were trained with.

The CUDA backward pass of the adaptive convolution, in FeatUp and in SimFeatUp, computes the tap that a thread
works on as z·z. So of the kernel only the taps 0, 1, 4, 9 … ever get a gradient: 11 of 121, or 7 of 49. The
C++ version is right, and so is ours; this is for reproducing the released weights.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.models.upsamplers import Upsampler
from bench.models.upsamplers.jbu import JointBilateral, TapProducts


class ReleasedJointBilateral(JointBilateral):
    """Joint bilateral step whose gradients reach the kernels through the taps z² alone."""

    def kernels(self, guidance: Tensor, tap_products: TapProducts | None = None) -> Tensor:
        kernels = super().kernels(guidance, tap_products)
        trained = torch.zeros(self.diameter**2, dtype=torch.bool, device=kernels.device)
        trained[torch.arange(self.diameter) ** 2] = True
        return torch.where(trained[:, None, None], kernels, kernels.detach())


def use_released_gradient(upsampler: Upsampler) -> None:
    """Replace the ×2 modules of a new upsampler by ones that train as the released code did."""
    for name, module in list(upsampler.named_children()):
        if isinstance(module, JointBilateral):
            upsampler.add_module(name, ReleasedJointBilateral(module.radius))
