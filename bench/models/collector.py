"""The interface of methods that see all windows of an image before they give scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from bench.errors import BenchError
from bench.models.second import SecondModel, SecondTrunk, in_role
from bench.models.tower import PIXEL_MEAN, PIXEL_STD, per_channel, to_rgb


class Box(NamedTuple):
    """A window in pixels of the network's input: rows top:bottom, columns left:right."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        """Its rows and columns."""
        return self.bottom - self.top, self.right - self.left


@dataclass(frozen=True, eq=False)
class WholeImage:
    """One image, as a method with `collect` sees it.

    pixels: (3, h, w) the network's input, normalised
    boxes: its windows
    patch_size: of the tower, pixels
    large: (1, 3, H, W) in 0..1, the original with the long side that the method's `whole_image` says, or None
    models: by role
    stitch: scores (W, Q, h, w) on the patches of all windows, or at their own size -> (Q, H, W), enlarged and averaged
    original: (H, W) of the image as it is labelled, where that is known
    """

    pixels: Tensor
    boxes: Sequence[Box]
    patch_size: int
    large: Tensor | None
    models: Mapping[str, SecondModel]
    stitch: Callable[[Tensor], Tensor]
    original: tuple[int, int] | None = None
    _shared: dict[str, SecondTrunk] = field(default_factory=dict)  # of all rows on the image, by the model's name

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the network's input."""
        return self.pixels.shape[1], self.pixels.shape[2]

    @property
    def rgb(self) -> Tensor:
        """(3, h, w) in 0..1: the network's input."""
        return to_rgb(self.pixels)

    def valid_grid(self, role: str) -> tuple[int, int]:
        """Return the rows and columns of `second(role)` that the large image covers whole."""
        assert self.large is not None
        model = in_role(self.models, role)
        height, width = model.fitted(self.large.shape[2], self.large.shape[3])
        return max(1, height // model.patch_size), max(1, width // model.patch_size)

    def cornered(self, boxes: Sequence[Box], multiple: int) -> Tensor:
        """Windows (B, 3, h, w), normalised, black at the right and below up to multiples of a number."""
        mean, std = (per_channel(values, self.pixels.device) for values in (PIXEL_MEAN, PIXEL_STD))
        height, width = boxes[0].size
        sides = [-(-side // multiple) * multiple for side in (height, width)]
        found = (-mean / std).expand(len(boxes), 3, *sides).clone()
        for window, box in zip(found, boxes, strict=True):
            window[:, :height, :width] = self.pixels[:, box.top : box.bottom, box.left : box.right]
        return found

    def second(self, role: str) -> SecondTrunk:
        """Send the large image, padded with zeros right and below, through the second model in that role.

        Once for all rows.
        """
        model = in_role(self.models, role)
        if self.large is None:
            raise BenchError(
                "the method asks for the whole image; say how large with `whole_image = 1024` in its class"
            )
        if model.name not in self._shared:
            self._shared[model.name] = model.padded(self.large)
        return self._shared[model.name]


class Collector(Protocol):
    """Object that a method's `collect(image)` returns."""

    def add(self, trunk: Any, boxes: Sequence[Box]) -> None:
        """Take a batch of windows, the trunk of the backbone on them; called with all of an image's, in order."""

    def scores(self, text: Tensor) -> Tensor:
        """After the last batch: (W, Q, h, w) of each window, to be stitched, or (Q, h, w) of the whole image."""
