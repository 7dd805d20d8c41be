"""Features of the frozen tower that an upsampler can be trained on."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from bench.models.attention import last_block
from bench.models.backbone import Trunk


def last_input(trunk: Trunk) -> Tensor:
    """X, the last block's input, through final layer norm and projection: eq. 6 as in the released code."""
    return trunk.project(trunk.input(-1)).patches


def last_input_as_printed(trunk: Trunk) -> Tensor:
    """Proj(X): eq. 6 as printed, without the layer norm."""
    tokens = trunk.input(-1)[:, 1:]
    proj: Tensor | None = trunk.visual.proj
    return (tokens if proj is None else tokens @ proj).float()


def output(trunk: Trunk) -> Tensor:
    """CLIP's own dense output, eq. 2: FeatUp (CLIP)."""
    return trunk.project(trunk.input(trunk.depth)).patches


def maskclip(trunk: Trunk) -> Tensor:
    """Return the last block's value path: FeatUp (MaskCLIP)."""
    return last_block(trunk, lambda q, k, v: v, residual=False, ffn=False).patches


FEATURES: dict[str, Callable[[Trunk], Tensor]] = {
    "x": last_input,
    "x-printed": last_input_as_printed,
    "output": output,
    "maskclip": maskclip,
}


def feature_map(trunk: Trunk, name: str) -> Tensor:
    """Return the features of FEATURES[name] as a map (B, C, h, w), float32, neither L2- nor channel-normalised."""
    patches = FEATURES[name](trunk)  # (B, h*w, C)
    return patches.transpose(1, 2).reshape(*patches[:, 0].shape, *trunk.grid)
