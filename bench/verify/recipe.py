"""Weights and an image that every machine can draw again: what the stored reference was computed on.

No pretrained weights are involved: labels mean nothing, differences do.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import open_clip
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.models.towers.tiny import Rule, draw, fan_in
from bench.models.upsamplers import find_kind
from bench.paths import shipped

Shape: TypeAlias = tuple[int, ...]
State: TypeAlias = dict[str, Tensor]

SEED: Final = 20241
WINDOW: Final = (slice(100, 324), slice(130, 354))  # of the image, 224 x 224: what token goldens are of
DIM: Final = 128  # channels of the tiny CLIP's joint space


def config_file() -> Path:
    """Path of the open_clip model config of the tiny CLIP."""
    return shipped("tests/golden") / "tiny_clip.json"


def clip_state() -> State:
    """Weights of the tiny CLIP."""
    return _drawn(open_clip.CLIP(**json.loads(config_file().read_text())), _clip_rule)


def upsampler_state(kind: str) -> State:
    """Weights of a "jbu_one" or "jbu_stack", keys as the module has them."""
    return _drawn(find_kind(kind).blank(DIM), _upsampler_rule, f"{kind}/")


def upsampler_checkpoint(kind: str) -> dict[str, Any]:
    """Weights of `upsampler_state` in the layout of the published .ckpt files."""
    return {"epoch": 1, "state_dict": {f"upsampler.{key}": value for key, value in upsampler_state(kind).items()}}


def _drawn(model: nn.Module, rule: Rule, prefix: str = "") -> State:
    return draw({key: tuple(value.shape) for key, value in model.state_dict().items()}, rule, SEED, prefix)


# CLIP


# With plain fan-in scales a random ViT collapses: neighboring tokens become equal, every attention map uniform, and all
# methods give one label. So residual branches are damped, and the vision tower's ln_1 is large.
_EMBEDDINGS: Final = {
    "visual.class_embedding": 0.3,
    "visual.positional_embedding": 0.6,
    "positional_embedding": 0.02,
    "token_embedding.weight": 0.05,
}
_VISION_GAINS: Final = {"attn.in_proj_weight": 0.25, "attn.out_proj.weight": 0.35, "mlp.c_proj.weight": 0.25}
_TEXT_GAINS: Final = {"attn.in_proj_weight": 2.0, "attn.out_proj.weight": 2.0}


def _clip_rule(key: str, shape: Shape) -> tuple[float, float]:
    """Mean and standard deviation of one tensor of the tiny CLIP."""
    if key == "logit_scale":
        return float(np.log(100.0)), 0.0
    if key.startswith("visual.") and key.endswith("ln_1.weight"):
        return 7.0, 0.7
    if ".ln_" in key or key.startswith("ln_"):
        return (1.0, 0.1) if key.endswith("weight") else (0.0, 0.02)
    if key in _EMBEDDINGS:
        return 0.0, _EMBEDDINGS[key]
    if key.endswith("bias"):
        return 0.0, 0.02
    if key in ("visual.proj", "text_projection"):  # used as x @ W
        return 0.0, shape[0] ** -0.5
    scale = fan_in(shape)
    if key == "visual.conv1.weight":
        return 0.0, 0.6 * scale
    for suffix, gain in (_VISION_GAINS if key.startswith("visual.") else _TEXT_GAINS).items():
        if key.endswith(suffix):
            scale *= gain
    return 0.0, scale


# Upsamplers


def _upsampler_rule(key: str, shape: Shape) -> tuple[float, float]:
    if key.endswith("range_temp"):
        return 0.3, 0.2
    if key.endswith("sigma_spatial"):
        return 1.0, 0.2
    if key.endswith("bias"):
        return 0.0, 0.1
    return 0.0, fan_in(shape)


# The image


def image(size: int = 448) -> NDArray[np.uint8]:
    """RGB (size, size, 3): smooth blobs, hard-edged shapes, fine texture."""
    random = np.random.default_rng([SEED, zlib.crc32(b"synth_image")])
    y, x = np.meshgrid(*[(np.arange(size) + 0.5) / float(size)] * 2, indexing="ij")
    pixels = np.zeros((size, size, 3)) + random.uniform(60, 190, size=3)
    for _ in range(14):
        center_y, center_x = random.uniform(0, 1, 2)
        spread, color = random.uniform(0.05, 0.22), random.uniform(-90, 90, 3)
        squared = (y - center_y) ** 2 + (x - center_x) ** 2
        pixels += np.exp(-squared / (2 * spread * spread))[..., None] * color
    for _ in range(18):  # roofs
        center_y, center_x = random.uniform(0, 1, 2)
        half_y, half_x = random.uniform(0.015, 0.07, 2)
        angle, color = random.uniform(0, np.pi), random.uniform(20, 240, 3)
        along = (y - center_y) * np.cos(angle) + (x - center_x) * np.sin(angle)
        across = -(y - center_y) * np.sin(angle) + (x - center_x) * np.cos(angle)
        pixels[(np.abs(along) < half_y) & (np.abs(across) < half_x)] = color
    pixels[np.abs(y - 0.35 - 0.45 * x) < 0.018] = random.uniform(90, 140, 3)  # a road
    pixels[(y - 0.78) ** 2 * 3 + (x - 0.62) ** 2 < 0.03] = np.array([30.0, 60.0, 95.0])  # a lake
    stripes = 14.0 * np.sin(2 * np.pi * (y * 37 + x * 11))
    pixels += (stripes * ((x > 0.55) & (y < 0.45)))[..., None]
    pixels += random.standard_normal((size, size, 3)) * 7.0
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def label(classes: int = 9) -> NDArray[np.uint8]:
    """Label (448, 448) of the image: its red channel in steps, the first 16 lines ignored."""
    steps = image()[..., 0] // (256 // classes + 1)
    steps[:16] = 255
    return steps
