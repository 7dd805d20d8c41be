"""Rows whose methods see all windows of an image before they give scores."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bench.errors import BenchError
from bench.inference.first_look import check_equal, check_scores
from bench.inference.row import Row
from bench.inference.window_batch import Failures, WindowBatch, multiple_of
from bench.inference.windows import WindowMean, padded_size
from bench.models.collector import Box, Collector, WholeImage
from bench.models.second import SecondTrunk
from bench.models.tower import Tower, Windows
from bench.runtime.device import to_device
from bench.runtime.process_state import other_randomness
from bench.runtime.timing import stage
from bench.settings import ResizeRule

Images: TypeAlias = Mapping[ResizeRule, NDArray[np.uint8]]


class ImageInput(NamedTuple):
    """An image as collectors are given it.

    pixels: (3, h, w), normalised.
    boxes: all windows of the image.
    larger: the image at each size that a row's method wants it, see `Row.whole`.
    original: (H, W) of the image as it is labelled, where that is known.
    """

    pixels: Tensor
    boxes: Sequence[Box]
    larger: Images
    original: tuple[int, int] | None

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the pixels."""
        return self.pixels.shape[1], self.pixels.shape[2]


class Collecting:
    """The collectors of one image."""

    def __init__(
        self,
        backbone: Tower,
        rows: Sequence[Row],
        given: ImageInput,
        looked_at: set[Hashable],
    ) -> None:
        """Make room for a collector per row.

        looked_at: methods that are known to give one result, to which others are added.
        """
        self._rows = rows
        self._looked_at = looked_at
        self._images: dict[str, WholeImage] = {}
        self._collectors: dict[str, list[Collector]] = {}
        self._seconds: dict[str, SecondTrunk] = {}  # shared by the rows
        self._whole = functools.partial(_whole_image, backbone, given=given, seconds=self._seconds)

    def start(self, failures: Failures) -> None:
        """Start a collector per row, and two for a method whose results have not been compared yet."""
        for row in self._rows:
            with failures.of([row.name]):
                method: Any = row.method
                image = self._images[row.name] = self._whole(row)
                calls = [functools.partial(method.collect, image)] * (1 if row.identity in self._looked_at else 2)
                self._collectors[row.name] = self._asked(row, calls)

    def add(self, batch: WindowBatch, boxes: Sequence[Box], failures: Failures) -> None:
        """Hand windows to the collectors."""
        for row in batch.rows:
            if row.collects and row.name not in failures:
                with failures.of([row.name]), stage("last block"):
                    trunk = batch.trunk.having(row.models)
                    calls = [functools.partial(one.add, trunk, boxes) for one in self._collectors[row.name]]
                    self._asked(row, calls, trunk)

    def scores(self, failures: Failures) -> list[tuple[Row, Tensor]]:
        """Each row with its scores (Q, h, w) of the image, after the last windows."""
        found = []
        for row in self._rows:
            if row.name not in failures:
                with failures.of([row.name]), stage("scores"):
                    calls = [functools.partial(one.scores, row.text) for one in self._collectors[row.name]]
                    own = [_of_image(one, row, self._images[row.name]) for one in self._asked(row, calls)]
                    check_equal(own[0], own[-1])
                    self._looked_at.add(row.identity)
                    found.append((row, own[0]))
        return found

    def _asked(self, row: Row, calls: Sequence[Callable[[], Any]], trunk: Windows | None = None) -> list[Any]:
        """Return what each collector answers; where there are two, the second sees other random numbers."""
        found = []
        for number, call in enumerate(calls):
            elsewhere = other_randomness() if number else contextlib.nullcontext()
            with elsewhere, row.guarded(trunk, closely=len(calls) > 1):
                found.append(call())
        if changed := next((name for one in self._seconds.values() if (name := one.made.changed(True))), None):
            self._seconds.clear()
            raise BenchError(f"row '{row.name}' changed {changed} in place, which other rows share")
        return found


def _whole_image(
    backbone: Tower,
    row: Row,
    given: ImageInput,
    seconds: dict[str, SecondTrunk],
) -> WholeImage:
    pixels, boxes, larger, original = given
    pixels, large = pixels.clone(), None
    if row.whole is not None:
        if row.whole not in larger:
            raise BenchError(f"row '{row.name}' needs the whole image with a long side of {row.whole.long_side}")
        large = to_device(larger[row.whole], pixels.device).permute(2, 0, 1)[None].float() / 255
    multiple = multiple_of(backbone, row, *boxes[0].size)

    def stitch(scores: Tensor) -> Tensor:
        """Scores (W, Q, h, w) of padded windows -> (Q, H, W) of the image."""
        mean = WindowMean((scores.shape[1],), *given.size, scores.device)
        for box, own in zip(boxes, scores, strict=True):
            if own.shape[1:] != box.size:
                height, width, inside = padded_size(*box.size, multiple)
                own = F.interpolate(own[None], size=(height, width), mode="bilinear")[0]
                own = own[:, inside.top : inside.bottom, inside.left : inside.right]
            mean.add(box, own)
        return mean.mean()

    return WholeImage(pixels, boxes, backbone.patch_size, large, row.models, stitch, original, seconds)


def _of_image(scores: Tensor, row: Row, image: WholeImage) -> Tensor:
    """Bring a collector's scores to the network's size, (Q, h, w): those of windows are stitched, others enlarged.

    Those of a row that is enlarged at once stay as they are, for its original's size.
    """
    if isinstance(scores, Tensor) and scores.dim() == 3:
        check_scores(scores[None], 1, len(row.classes))
        if row.enlarged_at_once and image.original is not None:
            return scores.float()
        return F.interpolate(scores[None].float(), size=image.size, mode="bilinear")[0]
    check_scores(scores, len(image.boxes), len(row.classes))
    return image.stitch(scores.float())
