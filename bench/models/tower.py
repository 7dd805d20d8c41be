"""The interface of a frozen model behind rows, and what windows of every kind of model share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor
from typing_extensions import Self

from bench.errors import BenchError
from bench.models.second import IMAGENET_MEAN, IMAGENET_STD, SecondModel
from bench.runtime.shared_tensors import SharedTensors, counting_changes
from bench.settings import Library

# CLIP's normalisation on the 0..255 scale, rounded as in the released configuration.
PIXEL_MEAN = (122.771, 116.746, 104.094)
PIXEL_STD = (68.501, 66.632, 70.323)


class Tower(Protocol):
    """A frozen model that rows look through: `Backbone` (CLIP), or one of `bench.models.towers`.

    library: its kind; a method says which kind it needs. fingerprint: hash of the weights, part of the identity of
    every result. patch_size: of which window sides are made multiples. dim: channels of its features, 0 for none.
    weights: which are to stay as they are.
    """

    name: str
    library: Library
    fingerprint: str
    patch_size: int
    dim: int
    weights: SharedTensors

    @property
    def device(self) -> torch.device: ...

    def normalise(self, image: Tensor) -> Tensor:
        """uint8 RGB (H, W, 3) -> float32 (3, H, W) on its device, in units of CLIP's pixel statistics."""

    def trunk(self, images: Tensor) -> TowerTrunk:
        """Compute windows (B, 3, H, W), normalised, sides multiples of the patch size, as far as they are asked for."""


class TowerTrunk(Protocol):
    """A tower on one batch of windows; what it computes is remembered for all rows that look at them.

    grid: patches down and across.
    """

    images: Tensor
    grid: tuple[int, int]

    def guidance(self, statistics: Literal["clip", "imagenet"]) -> Tensor:
        """Return the windows (B, 3, H, W) as an upsampler wants them normalised."""

    def having(self, models: Mapping[str, SecondModel]) -> TowerTrunk:
        """Return it with the second models of one row."""

    def changed(self, closely: bool) -> str | None:
        """Return the name of a shared tensor that is not as it was made; see `SharedTensors.changed`."""

    def renew(self) -> None:
        """Forget all that was computed, and take the windows as they were given."""


@runtime_checkable
class Sentences(Protocol):
    """A tower that encodes whole sentences, of which `bench.models.text` makes embeddings of words."""

    @property
    def fingerprint(self) -> str: ...

    @property
    def device(self) -> torch.device: ...

    def encode_prompts(self, prompts: list[str]) -> Tensor:
        """Un-normalised text embeddings of whole sentences, (n, C) float32."""


def reader_of(tower: Tower) -> Sentences:
    """Return the tower as one that encodes sentences. BenchError for one that does not."""
    if not isinstance(tower, Sentences):
        raise BenchError(f"backbone {tower.name} encodes no sentences; its methods need their own `encode_text`")
    return tower


def normalised(image: Tensor, device: torch.device) -> Tensor:
    """uint8 RGB (H, W, 3) -> float32 (3, H, W) on a device, in units of CLIP's pixel statistics."""
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD))
    return (image.to(device).permute(2, 0, 1).float() - mean) / std


def to_rgb(images: Tensor) -> Tensor:
    """(…, 3, H, W) in units of CLIP's pixel statistics -> the same in 0..1."""
    mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) / 255 for values in (PIXEL_MEAN, PIXEL_STD))
    return images * std + mean


class Windows:
    """Windows (B, 3, H, W), normalised, and the tensors made of them; of a tower without second models."""

    def __init__(self, images: Tensor, patch_size: int) -> None:
        self.made = SharedTensors()
        with counting_changes():
            self.images = self.made.keep("the windows", images.clone())
        self._original = images
        self.grid = (images.shape[2] // patch_size, images.shape[3] // patch_size)
        self._rgb: list[Tensor] = []

    @property
    def rgb(self) -> Tensor:
        """The windows (B, 3, H, W) in 0..1; padding has CLIP's mean colour."""
        if not self._rgb:
            with counting_changes():
                self._rgb.append(self.made.keep("the windows in 0..1", to_rgb(self.images)))
        return self._rgb[0]

    def guidance(self, statistics: Literal["clip", "imagenet"]) -> Tensor:
        """Return the windows (B, 3, H, W) as an upsampler wants them normalised."""
        if statistics == "clip":
            return self.images
        mean, std = (torch.tensor(v, device=self.images.device).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
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
        for kept in (self._rgb, self.made):
            kept.clear()  # also for views
        self.forget()
        with counting_changes():
            self.made.keep("the windows", self.images.copy_(self._original))

    def forget(self) -> None:
        """Forget all that was computed of the windows."""
