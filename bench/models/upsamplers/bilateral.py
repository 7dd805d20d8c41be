"""Learned joint bilateral upsamplers: JBU_One (SimFeatUp) and JBU_Stack (FeatUp)."""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from bench.errors import BenchError
from bench.models.upsamplers.base import Scorer, Upsampler, upsampler
from bench.models.upsamplers.jbu import FIXUP_WEIGHT, JointBilateral
from bench.models.upsamplers.logits import upsampled_scores
from bench.models.upsamplers.operator import Operator, Step
from bench.runtime.timing import stage


def steps_for(patch_size: int) -> int:
    """Return the number of ×2 steps that enlarge patches to pixels: 4 for 16, 5 for 32.

    Where the patch size is no power of two the enlargement goes beyond it (14: ×16), and the caller resizes
    the result to the window.
    """
    return math.ceil(math.log2(patch_size))


class BilateralUpsampler(Upsampler):
    """Patch features to pixel features, ×2 a step.

    Attributes:
        dim: channels C of the features; only the closing projection depends on it.
        radius: of the kernels, in pixels of the enlarged grid (5: 11×11).
    """

    dim: int

    def __init__(self, dim: int, radius: int) -> None:
        super().__init__()
        self.dim = dim
        self.radius = radius
        self.fixup_proj = nn.Sequential(nn.Dropout2d(0.2), nn.Conv2d(dim, dim, 1))

    @abstractmethod
    def modules_for(self, steps: int) -> list[JointBilateral]:
        """Return the module of each of the ×2 steps, first (coarsest) step first."""

    def forward(self, patches: Tensor, guidance: Tensor, steps: int | None = None) -> Tensor:
        """Features (B, C, h, w) -> (B, C, h * 2**steps, w * 2**steps), the direct way.

        `guidance` (B, 3, H, W) is the whole normalised window; every step averages it to its own size. steps: as many
        as reach that size, unless given.
        """
        steps = steps_for(guidance.shape[2] // patches.shape[2]) if steps is None else steps
        self.check_grid(patches.shape[-2], patches.shape[-1])
        for module in self.modules_for(steps):
            size = (2 * patches.shape[-2], 2 * patches.shape[-1])
            patches = module(patches, F.adaptive_avg_pool2d(guidance, size))
        fixup: Tensor = self.fixup_proj(patches)
        return patches + FIXUP_WEIGHT * fixup

    def prepare(self, guidance: Tensor, grid: tuple[int, int]) -> Scorer:
        with stage("operator"):
            operator = self.operator(guidance, grid, steps_for(guidance.shape[2] // grid[0]))
        return lambda requests: upsampled_scores(operator, requests, self.projection)

    def operator(self, guidance: Tensor, grid: tuple[int, int], steps: int = 4) -> Operator:
        """Return the ×2 steps of `forward`, less the closing projection, as a linear operator for windows (B, 3, H, W).

        W @ patch tokens (B, h * w, C) are the pixel features before the projection. For inference: no gradients, no
        dropout.
        """
        self.check_grid(*grid)
        sizes = [(grid[0] * 2**number, grid[1] * 2**number) for number in range(1, steps + 1)]
        pooled = [F.adaptive_avg_pool2d(guidance.float(), size) for size in sizes]
        return Operator([Step(*step) for step in zip(self.modules_for(steps), pooled, strict=True)], grid)

    @property
    def projection(self) -> tuple[Tensor, Tensor]:
        """A (C, C) and b (C) of the closing 1×1: features = upsampled + 0.1 * (upsampled @ A.T + b)."""
        closing = self.fixup_proj[1]
        assert isinstance(closing, nn.Conv2d) and closing.bias is not None
        return closing.weight.flatten(1), closing.bias

    @classmethod
    def width_of(cls, state: Mapping[str, Tensor]) -> int | None:
        closing = state.get("fixup_proj.1.bias")
        return None if closing is None else closing.numel()

    def check_grid(self, height: int, width: int) -> None:
        """Reflect padding of the first step needs an enlarged grid that is wider than the radius."""
        least = self.radius // 2 + 1
        if min(height, width) < least:
            raise BenchError(
                f"{self.kind} with radius {self.radius} needs at least {least} x {least} patches, not "
                f"{height} x {width}; use larger windows, a smaller patch size, or a row without upsampler"
            )


@upsampler("jbu_one")
class JBUOne(BilateralUpsampler):
    """SimFeatUp: one 11×11 module, applied as often as needed."""

    def __init__(self, dim: int, radius: int = 5) -> None:
        super().__init__(dim, radius)
        self.up = JointBilateral(radius)

    def modules_for(self, steps: int) -> list[JointBilateral]:
        return [self.up] * steps

    @classmethod
    def fitting(cls, state: Mapping[str, Tensor], dim: int, file: Path) -> Self:
        return cls(dim, _shape_of(state, file).radius)

    @classmethod
    def recognises(cls, state: Mapping[str, Tensor]) -> bool:
        return "up" in _stages(state)


@upsampler("jbu_stack")
class JBUStack(BilateralUpsampler):
    """FeatUp: a 7×7 module with separate weights for each step."""

    def __init__(self, dim: int, radius: int = 3, modules: int = 4) -> None:
        super().__init__(dim, radius)
        self.stages = modules
        for number in range(1, modules + 1):
            self.add_module(f"up{number}", JointBilateral(radius))

    def modules_for(self, steps: int) -> list[JointBilateral]:
        if steps > self.stages:
            raise BenchError(
                f"jbu_stack has {self.stages} modules, one a doubling, but {steps} doublings are needed; "
                "use jbu_one, or a stack trained for this patch size"
            )
        return [getattr(self, f"up{number}") for number in range(1, steps + 1)]

    @classmethod
    def fitting(cls, state: Mapping[str, Tensor], dim: int, file: Path) -> Self:
        return cls(dim, *_shape_of(state, file))

    @classmethod
    def recognises(cls, state: Mapping[str, Tensor]) -> bool:
        return bool(_stages(state)) and "up" not in _stages(state)


class _Shape(NamedTuple):
    radius: int
    modules: int


def _shape_of(state: Mapping[str, Tensor], path: Path) -> _Shape:
    """Read radius and number of modules off a checkpoint's tensors."""
    names = _stages(state)
    if not names:
        found = f"the first key is {next(iter(state))!r}" if state else "it is empty"
        raise BenchError(f"{path}: no upsampler in it ({found}, none starts with 'up'); name another file")
    key = f"{min(names)}.fixup_proj.3.bias"
    if key not in state:
        raise BenchError(f"{path}: key {key!r} is missing; download or save the checkpoint again")
    taps = state[key].numel()
    diameter = math.isqrt(taps)
    if diameter**2 != taps or diameter % 2 == 0:
        raise BenchError(f"{path}: {key!r} has {taps} values, no odd square, so no kernel; name another file")
    return _Shape(radius=diameter // 2, modules=len(names))


def _stages(state: Mapping[str, Tensor]) -> set[str]:
    """Names of the ×2 modules: "up" of the one, "up1" and so on of a stack."""
    return {match[1] for key in state if (match := re.match(r"(up\d*)\.", key))}
