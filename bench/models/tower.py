"""Frozen models behind rows, and what windows of every kind of model share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import Self

from bench.errors import BenchError
from bench.models.second import IMAGENET_MEAN, IMAGENET_STD, SecondModel
from bench.runtime.shared_tensors import SharedTensors, SharedWeights, counting_changes
from bench.settings import Library

# CLIP's normalisation on the 0..255 scale, rounded as in the released configuration.
PIXEL_MEAN = (122.771, 116.746, 104.094)
PIXEL_STD = (68.501, 66.632, 70.323)


class Tower(ABC):
    """A frozen model that rows look through: `Backbone` (CLIP), or one of `bench.models.towers`.

    name: how messages call it.
    library: its kind; a method says which kind it needs.
    fingerprint: hash of the weights, part of the identity of every result; "" for random weights, of which nothing is
        kept.
    patch_size: of which window sides are made multiples.
    dim: channels of its features, 0 for none.
    weights: which are to stay as they are.
    """

    name: str
    library: Library
    fingerprint: str
    patch_size: int
    dim: int
    device: torch.device
    weights: SharedWeights

    def normalise(self, image: Tensor) -> Tensor:
        """uint8 RGB (H, W, 3) -> float32 (3, H, W) on its device, in units of CLIP's pixel statistics."""
        pixels = image.to(self.device).permute(2, 0, 1).float()
        return (pixels - per_channel(PIXEL_MEAN, self.device)) / per_channel(PIXEL_STD, self.device)

    @abstractmethod
    def trunk(self, images: Tensor) -> Windows:
        """Compute windows (B, 3, H, W), normalised, sides multiples of the patch size, as far as they are asked for."""


class ReadingTower(Tower):
    """A tower that encodes whole sentences, of which `bench.models.text` makes embeddings of words."""

    @abstractmethod
    def encode_prompts(self, prompts: list[str]) -> Tensor:
        """Un-normalised text embeddings of whole sentences, (n, C) float32."""


def reader_of(tower: Tower) -> ReadingTower:
    """Return the tower as one that encodes sentences. BenchError for one that does not."""
    if not isinstance(tower, ReadingTower):
        raise BenchError(f"backbone {tower.name} encodes no sentences; its methods need their own `encode_text`")
    return tower


def per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """(3, 1, 1), to reckon with images (…, 3, H, W)."""
    return torch.tensor(values, device=device).view(3, 1, 1)


def to_rgb(images: Tensor) -> Tensor:
    """(…, 3, H, W) in units of CLIP's pixel statistics -> the same in 0..1."""
    mean, std = (per_channel(values, images.device) / 255 for values in (PIXEL_MEAN, PIXEL_STD))
    return images * std + mean


class Windows:
    """A tower on one batch of windows: what it computes is remembered for all rows that look at them.

    images: (B, 3, H, W), normalised. grid: patches down and across. made: all tensors that rows share.
    """

    def __init__(self, images: Tensor, patch_size: int) -> None:
        self.made = SharedTensors()
        with counting_changes():
            self.images = self.made.keep("the windows", images.clone())
        self._original = images
        self.grid = (images.shape[2] // patch_size, images.shape[3] // patch_size)
        self._known: dict[str, Tensor] = {}

    def once(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """Return a tensor that is made when it is first asked for, and remembered. name: how messages call it."""
        if name not in self._known:
            with counting_changes():
                self._known[name] = self.made.keep(name, make())
        return self._known[name]

    @property
    def rgb(self) -> Tensor:
        """The windows (B, 3, H, W) in 0..1; padding has CLIP's mean colour."""
        return self.once("the windows in 0..1", lambda: to_rgb(self.images))

    def guidance(self, statistics: Literal["clip", "imagenet"]) -> Tensor:
        """Return the windows (B, 3, H, W) as an upsampler wants them normalised."""
        if statistics == "clip":
            return self.images
        mean, std = (per_channel(values, self.images.device) for values in (IMAGENET_MEAN, IMAGENET_STD))
        return (self.rgb - mean) / std

    def having(self, models: Mapping[str, SecondModel]) -> Self:
        """Return it; no row of such a tower has second models."""
        if models:
            raise BenchError("methods on its backbone have no second models; leave `models` out")
        return self

    def changed(self, closely: bool) -> str | None:
        """Return the name of a shared tensor that is not as it was made; see `SharedTensors.changed`."""
        return self.made.changed(closely)

    def renew(self) -> None:
        """Forget all that was computed, and take the windows as they were given."""
        for kept in (self._known, self.made):
            kept.clear()  # also for views
        self.forget()
        with counting_changes():
            self.made.keep("the windows", self.images.copy_(self._original))

    def forget(self) -> None:
        """Forget what else was computed of the windows."""
