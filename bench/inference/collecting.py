"""Rows whose methods see all windows of an image before they give scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bench.errors import BenchError
from bench.inference.first_look import check_scores, unchanged
from bench.inference.row import Row
from bench.inference.window_batch import Failures, WindowBatch, multiple_of
from bench.inference.windows import WindowMean, padded_size
from bench.models.backbone import Backbone
from bench.models.collector import Box, Collector, WholeImage
from bench.models.second import SecondTrunk
from bench.runtime.device import to_device
from bench.runtime.timing import stage
from bench.settings import ResizeRule

Images: TypeAlias = Mapping[ResizeRule, NDArray[np.uint8]]


class Collecting:
    """The collectors of one image."""

    def __init__(
        self,
        backbone: Backbone,
        rows: Sequence[Row],
        pixels: Tensor,
        boxes: Sequence[Box],
        larger: Images,
        failures: Failures,
    ) -> None:
        """Start a collector per row.

        pixels: (3, h, w), normalised.
        boxes: all windows of the image.
        larger: the image at each size that a row's method wants it, see `Row.whole`.
        """
        self._rows = rows
        self._images: dict[str, WholeImage] = {}
        self._collectors: dict[str, Collector] = {}
        seconds: dict[str, SecondTrunk] = {}  # shared by the rows
        for row in rows:
            with failures.of([row.name]):
                method: Any = row.method
                self._images[row.name] = _whole_image(backbone, row, pixels, boxes, larger, seconds)
                self._collectors[row.name] = method.collect(self._images[row.name])

    def add(self, batch: WindowBatch, boxes: Sequence[Box], looked_at: set[Any], failures: Failures) -> None:
        """Hand windows to the collectors. looked_at: methods that are known to leave them as they are."""
        for row in batch.rows:
            if row.collects and row.name not in failures:
                with failures.of([row.name]), stage("last block"):
                    if row.identity in looked_at:
                        self._add(row, batch, boxes)
                    else:
                        with unchanged(batch, batch.padded.clone()):
                            self._add(row, batch, boxes)
                        looked_at.add(row.identity)

    def _add(self, row: Row, batch: WindowBatch, boxes: Sequence[Box]) -> None:
        self._collectors[row.name].add(batch.trunk.having(row.models), boxes)

    def scores(self, failures: Failures) -> list[tuple[Row, Tensor]]:
        """Each row with its scores (Q, h, w) of the image, after the last windows."""
        found = []
        for row in self._rows:
            if row.name not in failures:
                with failures.of([row.name]), stage("scores"):
                    own = self._collectors[row.name].scores(row.text)
                    found.append((row, _of_image(own, row, self._images[row.name])))
        return found


def _whole_image(
    backbone: Backbone,
    row: Row,
    pixels: Tensor,
    boxes: Sequence[Box],
    larger: Images,
    seconds: dict[str, SecondTrunk],
) -> WholeImage:
    large = None
    if row.whole is not None:
        if row.whole not in larger:
            raise BenchError(f"row '{row.name}' needs the whole image with a long side of {row.whole.long_side}")
        large = to_device(larger[row.whole], pixels.device).permute(2, 0, 1)[None].float() / 255
    first = boxes[0]
    multiple = multiple_of(backbone, row, first.bottom - first.top, first.right - first.left)

    def stitch(scores: Tensor) -> Tensor:
        """Scores (W, Q, h, w) of padded windows -> (Q, H, W) of the image."""
        mean = WindowMean((scores.shape[1],), pixels.shape[1], pixels.shape[2], scores.device)
        for box, own in zip(boxes, scores, strict=True):
            height, width, inside = padded_size(box.bottom - box.top, box.right - box.left, multiple)
            whole = F.interpolate(own[None], size=(height, width), mode="bilinear")[0]
            mean.add(box, whole[:, inside.top : inside.bottom, inside.left : inside.right])
        return mean.mean()

    return WholeImage(pixels, boxes, backbone.patch_size, large, row.models, stitch, seconds)


def _of_image(scores: Tensor, row: Row, image: WholeImage) -> Tensor:
    """Bring a collector's scores to the network's size, (Q, h, w): those of windows are stitched, others enlarged."""
    if isinstance(scores, Tensor) and scores.dim() == 3:
        check_scores(scores[None], 1, len(row.classes))
        return F.interpolate(scores[None].float(), size=image.size, mode="bilinear")[0]
    check_scores(scores, len(image.boxes), len(row.classes))
    return image.stitch(scores.float())
