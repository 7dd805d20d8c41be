"""Image -> cosine scores, for many rows of the benchmark at once.

Rows that share backbone and geometry travel together: normalisation, windows, the trunk's blocks and the upsampler's
operator are computed once for all of them, a method's features once for all of its rows; each row pays for its scores.
"""

from __future__ import annotations

import warnings
from collections.abc import Container, Hashable, Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bench.data.images import at_sizes
from bench.errors import BenchError
from bench.inference.collecting import Collecting, ImageInput, Images
from bench.inference.first_look import look_at
from bench.inference.row import Row, check_weights
from bench.inference.window_batch import Failures, WindowBatch, window_batches
from bench.inference.windows import WindowMean, squashed_size, window_boxes
from bench.models.collector import Box
from bench.models.tower import Tower
from bench.runtime.device import is_out_of_memory, to_device
from bench.runtime.timing import stage
from bench.settings import ResizeRule

TOGETHER = 4  # images, by their numbers in a dataset, whose windows an accelerator is given at once


@dataclass(frozen=True, eq=False)
class Stitched:
    """Scores (R, Q, h, w) of an image for the R rows that have Q queries."""

    rows: list[Row]
    scores: Tensor

    def without(self, names: Container[str]) -> Stitched:
        """Return the other rows."""
        kept = [number for number, row in enumerate(self.rows) if row.name not in names]
        if len(kept) == len(self.rows):
            return self
        return Stitched([self.rows[number] for number in kept], self.scores[kept])


Maps: TypeAlias = tuple[list[Stitched], Failures]
"""Scores of one image, and of rows that raised their exceptions."""


class Segmenter:
    """Scores of several rows on one image."""

    def __init__(
        self,
        backbone: Tower,
        rows: Sequence[Row],
        window: int,
        stride: int,
        batch: int = 4,
        resize: ResizeRule | None = None,
    ) -> None:
        """Put rows of one backbone and one geometry together, whose methods stretch images alike (`Row.multiple`).

        window, stride: pixels of the network's input.
        batch: windows that go through the tower together; it bounds memory and changes no result beyond rounding.
        resize: size of the network's input; None: images come at that size.
        """
        self.backbone = backbone
        self.rows = list(rows)
        self.window = window
        self.stride = stride
        self.batch = batch
        self.resize = resize
        self._multiple = rows[0].multiple(stride) if rows else 1
        self.looked_at: set[Hashable] = set()
        """Methods whose first windows were checked; segmenters of one backbone and geometry may share them."""

    @property
    def together(self) -> int:
        """Images that share batches: one on a CPU, and where a method sees whole images."""
        alone = self.backbone.device.type == "cpu" or any(row.collects for row in self.rows)
        return 1 if alone else TOGETHER

    @property
    def sizes(self) -> tuple[ResizeRule, ...]:
        """Sizes at which an image is needed: the network's, and those of `Row.whole`."""
        sizes = [self.resize, *(row.whole for row in self.rows)]
        return tuple(dict.fromkeys(size for size in sizes if size is not None))

    def scores_of_original(
        self, image: NDArray[np.uint8], size: tuple[int, int] | None = None
    ) -> dict[str, Tensor | Exception]:
        """`scores` of an image (H, W, 3) that has its own size yet."""
        assert self.resize is not None
        images = at_sizes(image, self.sizes)
        return self.scores(images[self.resize], None, size, images)

    def scores(
        self,
        image: NDArray[np.uint8],
        names: Sequence[str] | None = None,
        size: tuple[int, int] | None = None,
        larger: Images = MappingProxyType({}),
    ) -> dict[str, Tensor | Exception]:
        """Row name -> stitched cosine scores (Q, h, w) float32 on the backbone's device, debiased and refined.

        image, size, larger: see `prepared`.
        names: only these rows.

        A row that raises has its exception in place of scores, and the others are computed. Where memory runs out the
        batch is halved, for good.
        """
        [(stitched, failures)] = self.stitched([self.prepared(image, size, larger)], names)
        check_weights(self._asked(names))()
        found: dict[str, Tensor | Exception] = {**failures}
        for group in stitched:
            found |= zip([row.name for row in group.rows], group.scores, strict=True)
        return {row.name: found[row.name] for row in self._asked(names)}

    @torch.inference_mode()
    def prepared(
        self, image: NDArray[np.uint8], size: tuple[int, int] | None = None, larger: Images = MappingProxyType({})
    ) -> ImageInput:
        """Put an image on the device and cut it into windows.

        image: RGB uint8 (h, w, 3) at the network's input size.
        size: (H, W) of the original, at which the scores of rows that are refined there are; with it, rows that are
            enlarged at once have theirs at their method's own size.
        larger: the image at each of `sizes`.
        """
        pixels = self.backbone.normalise(to_device(image, self.backbone.device))  # (3, h, w)
        height, width = squashed_size(image.shape[0], image.shape[1], self._multiple, self.window)
        if pixels.shape[1:] != (height, width):
            pixels = F.interpolate(pixels[None], size=(height, width), mode="bilinear")[0]
        return ImageInput(pixels, window_boxes(height, width, self.window, self.stride), larger, size)

    def stitched(self, images: Sequence[ImageInput], names: Container[str] | None = None) -> Iterator[Maps]:
        """Yield `scores` of each image, the rows of one number of queries in one tensor, and the exceptions apart.

        To be followed by `check_weights`, which on a GPU can wait. `together` images share a batch where their windows
        are alike and fit into it; a row that raises there is asked again about each of them.
        """
        rows = self._asked(names)
        while images:
            try:
                found = self._apart(self._sharing(images), rows)
            except Exception as error:
                if not is_out_of_memory(error) or self.batch == 1:
                    raise
                self.batch //= 2
                device = self.backbone.device
                warnings.warn(f"out of memory on {device}; retrying with --batch {self.batch}", stacklevel=2)
                torch.cuda.empty_cache()
                continue
            images = images[len(found) :]
            yield from found

    @torch.inference_mode()
    def window_scores(self, images: Tensor, rows: Sequence[Row]) -> dict[str, Tensor | Exception]:
        """Row name -> scores (B, Q, h, w) of equal windows, uint8 (B, h, w, 3), not stitched; or what it raised.

        BenchError where memory runs out.
        """
        windows = torch.stack([self.backbone.normalise(image) for image in images])
        failures = Failures(shrinks=False)
        scores = self._window_scores(windows, rows, failures)
        check_weights(rows)()
        for error in failures.values():
            if is_out_of_memory(error):
                raise BenchError(f"out of memory on {self.backbone.device}; use a smaller --batch") from error
        return {**scores, **failures}

    def _asked(self, names: Container[str] | None) -> list[Row]:
        return [row for row in self.rows if names is None or row.name in names]

    def _sharing(self, images: Sequence[ImageInput]) -> Sequence[ImageInput]:
        """Return the first images whose windows go through the tower together, at least one."""
        count, windows = 1, len(images[0].boxes)
        for image in images[1 : self.together]:
            windows += len(image.boxes)
            if windows > self.batch or image.boxes[0].size != images[0].boxes[0].size:
                break
            count += 1
        return images[:count]

    def _apart(self, images: Sequence[ImageInput], rows: Sequence[Row]) -> list[Maps]:
        """Stitch images that share a batch, and give each its failures."""
        found, failures = self._stitched(images, rows)
        if len(images) == 1 or not failures:
            return [(groups, failures) for groups in found]
        failed, apart = [row for row in rows if row.name in failures], []
        for image, groups in zip(images, found, strict=True):
            [(others, own)] = self._apart([image], failed)
            apart.append(([*(group.without(failures) for group in groups), *others], own))
        return apart

    @torch.inference_mode()
    def _stitched(self, images: Sequence[ImageInput], rows: Sequence[Row]) -> tuple[list[list[Stitched]], Failures]:
        failures = Failures(shrinks=self.batch > 1)
        collects = [row for row in rows if row.collects]
        collecting = Collecting(self.backbone, collects, images[0], self.looked_at)
        collecting.start(failures)
        by_queries: dict[int, list[Row]] = {}
        for row in rows:
            if not row.collects:
                by_queries.setdefault(len(row.classes), []).append(row)
        means = [
            (alike, [WindowMean((len(alike), queries), *image.size, image.pixels.device) for image in images])
            for queries, alike in by_queries.items()
        ]
        places = [(number, box) for number, image in enumerate(images) for box in image.boxes]
        for start in range(0, len(places), self.batch):
            chunk = places[start : start + self.batch]
            windows = torch.stack([images[n].pixels[:, b.top : b.bottom, b.left : b.right] for n, b in chunk])
            alive = [row for row in rows if row.name not in failures]
            scores = self._window_scores(windows, alive, failures, collecting, [box for _, box in chunk])
            with stage("stitching"):
                for alike, of_images in means:
                    _stitch([(of_images[number], box) for number, box in chunk], alike, windows, scores)
        found = [[Stitched(alike, of_images[n].mean()) for alike, of_images in means] for n in range(len(images))]
        found[0] += [Stitched([row], scores[None]) for row, scores in collecting.scores(failures)]
        refined = [
            [part for group in groups for part in _refined(group, image, failures)]
            for image, groups in zip(images, found, strict=True)
        ]
        return refined, failures

    def _window_scores(
        self,
        windows: Tensor,
        rows: Sequence[Row],
        failures: Failures,
        collecting: Collecting | None = None,
        boxes: Sequence[Box] = (),
    ) -> dict[str, Tensor]:
        """Scores (B, Q, h, w) of windows (B, 3, h, w) by row; rows that collect are handed them."""
        scores: dict[str, Tensor] = {}
        for batch in window_batches(self.backbone, windows, rows):
            self._look_at_new(batch, failures)
            if collecting is not None:
                collecting.add(batch, boxes, failures)
            features = batch.features(failures)
            scores |= batch.scores(features, failures)
        return scores

    def _look_at_new(self, batch: WindowBatch, failures: Failures) -> None:
        """Check the methods that see windows for the first time; all rows of one that does wrong fail."""
        for row in batch.rows:
            if not row.collects and row.identity not in self.looked_at and row.name not in failures:
                with failures.of([one.name for one in batch.rows if one.identity == row.identity]), stage("last block"):
                    look_at(row, batch)
                    self.looked_at.add(row.identity)


def _stitch(
    places: Sequence[tuple[WindowMean, Box]], rows: Sequence[Row], windows: Tensor, scores: dict[str, Tensor]
) -> None:
    """Add the windows' scores of rows that have equally many queries; zeros for a row that failed."""
    nothing = windows.new_zeros(()).expand(len(windows), len(rows[0].classes), *windows.shape[2:])
    maps = [scores.get(row.name, nothing) for row in rows]
    # A CPU adds them up without a copy of all; to an accelerator a copy costs less than a call for each.
    by_window = zip(*maps, strict=True) if windows.device.type == "cpu" else torch.stack(maps, dim=1)
    for (mean, box), of_window in zip(places, by_window, strict=True):
        mean.add(box, of_window)


def _refined(group: Stitched, image: ImageInput, failures: Failures) -> list[Stitched]:
    """Refine the rows; those at the original's size, which is another, come apart."""
    large = []
    for row, scores in zip(group.rows, group.scores, strict=True):
        if row.refine is not None and row.name not in failures:
            with failures.of([row.name]):
                refined = row.refined(scores, image.pixels, image.original)
                if refined is not scores:
                    large.append(Stitched([row], refined[None]))
    apart = {*failures, *(row.name for one in large for row in one.rows)}
    return [group.without(apart), *large]
