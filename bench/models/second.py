"""Frozen second models beside CLIP (DINO, DINOv2, DINOv3, SAM's encoder), as methods see them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Final

import torch.nn.functional as F
from torch import Tensor

from bench.errors import BenchError
from bench.models.block import Heads
from bench.runtime.shared_tensors import SharedTensors, SharedWeights

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)  # on 0..1
IMAGENET_STD: Final = (0.229, 0.224, 0.225)


class SecondModel(ABC):
    """A frozen image encoder that methods look through beside CLIP.

    name: as in `models:` of benchmark.yaml
    fingerprint: hash of the weights
    patch_size: pixels
    side: of the squares that it takes (SAM: 1024), None where any multiple of the patch size will do
    """

    name: str
    fingerprint: str
    patch_size: int
    side: int | None = None
    weights: SharedWeights

    @abstractmethod
    def normalise(self, rgb: Tensor) -> Tensor:
        """(B, 3, H, W) in 0..1 in units of the model's own pixel statistics."""

    @abstractmethod
    def of_normalised(self, images: Tensor) -> SecondTrunk:
        """Compute normalised images (B, 3, H, W) of a size that the model takes."""

    def trunk(self, rgb: Tensor) -> SecondTrunk:
        """Compute windows (B, 3, H, W) in 0..1; with a `side` they are enlarged to it, bilinearly."""
        if self.side is not None and rgb.shape[2:] != (self.side, self.side):
            rgb = F.interpolate(rgb, size=(self.side, self.side), mode="bilinear")
        return self.of_normalised(self.normalise(rgb))

    def padded(self, rgb: Tensor) -> SecondTrunk:
        """Compute images (B, 3, H, W) in 0..1, with zeros right and below; shrunk if beyond `side`."""
        height, width = self.fitted(rgb.shape[2], rgb.shape[3])
        if rgb.shape[2:] != (height, width):
            rgb = F.interpolate(rgb, size=(height, width), mode="bilinear", antialias=True)
        side = self.side or max(-(-length // self.patch_size) * self.patch_size for length in (height, width))
        return self.of_normalised(F.pad(self.normalise(rgb), (0, side - width, 0, side - height)))

    def fitted(self, height: int, width: int) -> tuple[int, int]:
        """Return the size that an image gets in `padded`, without the zeros."""
        shrink = min(1.0, (self.side or math.inf) / max(height, width))
        return max(1, round(height * shrink)), max(1, round(width * shrink))


class SecondTrunk(ABC):
    """A second model on one batch of images, computed when it is first asked for and remembered.

    grid: patches down and across. made: what was computed yet, which methods share.
    """

    grid: tuple[int, int]
    made: SharedTensors

    @property
    @abstractmethod
    def tokens(self) -> Tensor:
        """Patch tokens (B, h*w, D) float32 of the last block after the final layer norm (SAM: after its neck)."""

    @property
    @abstractmethod
    def qkv(self) -> Heads:
        """Queries, keys and values of the last block's patches, each (B, heads, h*w, d) float32."""

    @abstractmethod
    def attention(self, head: int) -> Tensor:
        """Weights (B, h*w, h*w) of one head of the last block among patches; the softmax was over all tokens."""


def in_role(models: Mapping[str, SecondModel], role: str) -> SecondModel:
    """Return the model in that role. BenchError for a role that the method did not declare."""
    if role not in models:
        raise BenchError(
            f"the method asks for a second model in the role '{role}', which it did not declare; "
            f'write @method(…, models={{"{role}": "dino-vitb8"}})'
        )
    return models[role]
