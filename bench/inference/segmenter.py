"""Image -> cosine scores, for many rows of the benchmark at once.

Rows that share backbone and geometry travel together: normalisation, windows, the trunk's blocks and the
upsampler's operator are computed once for all of them, a method's features once for all of its rows; each row
pays for its scores.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Container, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bench.data.images import Resize
from bench.errors import BenchError
from bench.inference.variant import Variant, identity_of
from bench.inference.window_batch import WindowBatch, check_scores, multiple_of, window_batches
from bench.inference.windows import Canvas, padded_size, window_boxes
from bench.models.backbone import Backbone
from bench.models.collector import Box, Collector, WholeImage
from bench.models.second import SecondTrunk
from bench.runtime.device import is_out_of_memory, to_device
from bench.runtime.timing import stage

Images: TypeAlias = Mapping[Resize, NDArray[np.uint8]]


class Segmenter:
    """Scores of several rows on one image.

    variants: rows of one backbone and one geometry. window, stride: pixels of the network's input. batch:
    windows that go through the tower together; it bounds memory and changes no result beyond rounding.
    """

    def __init__(
        self, backbone: Backbone, variants: Sequence[Variant], window: int, stride: int, batch: int = 4
    ) -> None:
        self.backbone = backbone
        self.variants = list(variants)
        self.window = window
        self.stride = stride
        self.batch = batch
        self._looked_at: set[Hashable] = set()  # methods whose first windows were checked

    @property
    def rules(self) -> tuple[Resize, ...]:
        """Further sizes of the image that rows ask for, see `Variant.whole`."""
        return tuple(dict.fromkeys(rule for variant in self.variants if (rule := variant.whole) is not None))

    def scores(
        self,
        image: NDArray[np.uint8],
        names: Sequence[str] | None = None,
        size: tuple[int, int] | None = None,
        larger: Images = MappingProxyType({}),
    ) -> dict[str, Tensor | Exception]:
        """Row name -> stitched cosine scores (Q, h, w) float32 on the backbone's device, debiasing included.

        image: RGB uint8 (h, w, 3) at the network's input size. size: height and width of the original, at which the
        scores of rows that are refined there are. names: only these rows. larger: the image by each of `rules`. A
        row that raises has its exception in place of scores, and the others go on. Where memory runs out the batch
        is halved, for good.
        """
        stitched, failures = self.stitched(image, names, size, larger)
        found: dict[str, Tensor | Exception] = {
            variant.name: scores
            for group in stitched
            for variant, scores in zip(group.variants, group.scores, strict=True)
        }
        return {variant.name: (found | failures)[variant.name] for variant in self._asked(names)}

    def stitched(
        self,
        image: NDArray[np.uint8],
        names: Sequence[str] | None = None,
        size: tuple[int, int] | None = None,
        larger: Images = MappingProxyType({}),
    ) -> tuple[list[Stitched], dict[str, Exception]]:
        """What `scores` gives, with the rows of one number of queries in one tensor, and the exceptions apart."""
        while True:
            try:
                return self._stitched(image, names, size, larger)
            except _BatchTooLarge:
                self.batch //= 2
                warnings.warn(
                    f"out of memory on {self.backbone.device}; going on with --batch {self.batch}", stacklevel=2
                )
                torch.cuda.empty_cache()

    @torch.inference_mode()
    def window_scores(self, images: Tensor, variant: Variant) -> Tensor:
        """(B, Q, h, w) scores of equal windows, uint8 (B, h, w, 3), of one row; not stitched."""
        windows = torch.stack([self.backbone.normalise(image) for image in images])
        try:
            return window_batches(self.backbone, windows, [variant])[variant.name].scores(variant)
        except Exception as error:
            if is_out_of_memory(error):
                raise BenchError(f"out of memory on {self.backbone.device}; use a smaller --batch") from error
            raise

    def _asked(self, names: Sequence[str] | None) -> list[Variant]:
        return [variant for variant in self.variants if names is None or variant.name in names]

    @torch.inference_mode()
    def _stitched(
        self, image: NDArray[np.uint8], names: Sequence[str] | None, size: tuple[int, int] | None, larger: Images
    ) -> tuple[list[Stitched], dict[str, Exception]]:
        pixels = self.backbone.normalise(to_device(image, self.backbone.device))  # (3, h, w)
        height, width = pixels.shape[1:]
        boxes = window_boxes(height, width, self.window, self.stride)
        failures: dict[str, Exception] = {}
        collectors: dict[str, Collector] = {}
        groups: dict[int, list[Variant]] = {}  # of the rows whose windows are stitched as they come
        images: dict[str, WholeImage] = {}
        seconds: dict[str, SecondTrunk] = {}
        for variant in self._asked(names):
            if variant.collects:
                with self._noting(variant, failures):
                    images[variant.name] = _whole_image(self.backbone, variant, pixels, boxes, larger, seconds)
                    collectors[variant.name] = variant.method.collect(images[variant.name])  # type: ignore[attr-defined]
            else:
                groups.setdefault(len(variant.classes), []).append(variant)
        collecting = [variant for variant in self._asked(names) if variant.name in collectors]
        canvases = {q: Canvas((len(rows), q), height, width, pixels.device) for q, rows in groups.items()}
        for start in range(0, len(boxes), self.batch):
            chunk = boxes[start : start + self.batch]
            windows = torch.stack([pixels[:, b.top : b.bottom, b.left : b.right] for b in chunk])
            rows = [*(variant for rows in groups.values() for variant in rows), *collecting]
            shared = window_batches(
                self.backbone, windows, [variant for variant in rows if variant.name not in failures]
            )
            for queries, rows in groups.items():
                maps = [self._of_windows(shared.get(variant.name), windows, variant, failures) for variant in rows]
                with stage("stitching"):
                    for box, scores in zip(chunk, zip(*maps, strict=True), strict=True):
                        canvases[queries].add(box, scores)
            for variant in collecting:
                if variant.name not in failures:
                    with self._noting(variant, failures), stage("last block"):
                        look = identity_of(variant) not in self._looked_at
                        self._looked_at.add(identity_of(variant))
                        shared[variant.name].collect(variant, collectors[variant.name], chunk, look)
        found: list[tuple[list[Variant], Tensor]] = [
            (rows, canvases[queries].mean()) for queries, rows in groups.items()
        ]
        for variant in collecting:
            if variant.name not in failures:
                with self._noting(variant, failures), stage("scores"):
                    own = collectors[variant.name].scores(variant.text)
                    found.append(([variant], _of_image(own, variant, images[variant.name])[None]))
        return [part for rows, mean in found for part in self._refined(rows, mean, pixels, size, failures)], failures

    def _refined(
        self,
        rows: list[Variant],
        mean: Tensor,
        pixels: Tensor,
        size: tuple[int, int] | None,
        failures: dict[str, Exception],
    ) -> list[Stitched]:
        """The stitched scores (R, Q, h, w) of rows after their refinements, those at the original's size apart."""
        large = []
        for number, variant in enumerate(rows):
            if variant.refine is None or variant.name in failures:
                continue
            if variant.refine_original and size is not None:
                guide, own = (F.interpolate(x[None], size=size, mode="bilinear")[0] for x in (pixels, mean[number]))
                self._refine(variant, guide, own, failures)
                large.append(Stitched([variant], own[None]).without(failures))
            else:
                self._refine(variant, pixels, mean[number], failures)
        apart = {one.name for of_original in large for one in of_original.variants}
        return [Stitched(rows, mean).without({*failures, *apart}), *large]

    def _refine(self, variant: Variant, pixels: Tensor, scores: Tensor, failures: dict[str, Exception]) -> None:
        """Replaces the stitched scores (Q, h, w) of one row by the refined ones."""
        assert variant.refine is not None
        try:
            with stage("refinement"):
                refined = variant.refine(pixels, scores.clone(), variant.text)
            if refined.shape != scores.shape:
                raise BenchError(f"its refinement gives {tuple(refined.shape)}, not {tuple(scores.shape)}")
            scores.copy_(refined)
        except Exception as error:  # a plug-in may raise anything
            failures[variant.name] = error

    def _of_windows(
        self, shared: WindowBatch | None, windows: Tensor, variant: Variant, failures: dict[str, Exception]
    ) -> Tensor:
        """(B, Q, h, w) scores of one row; zeros where it raises, which is noted, or has raised before."""
        wanted = (len(windows), len(variant.classes), *windows.shape[2:])
        if shared is not None and variant.name not in failures:
            with self._noting(variant, failures):
                if (method := identity_of(variant)) not in self._looked_at:
                    self._looked_at.add(method)
                    shared.look_at(variant)
                scores = shared.scores(variant)
                if scores.shape == wanted and scores.device == windows.device:
                    return scores.float()
                raise BenchError(
                    f"its scores are {tuple(scores.shape)} on {scores.device}, not {wanted} on {windows.device}"
                )
        return windows.new_zeros(wanted)

    @contextlib.contextmanager
    def _noting(self, variant: Variant, failures: dict[str, Exception]) -> Iterator[None]:
        """What a row raises is noted as its failure; where memory ran out, a smaller batch may help instead."""
        try:
            yield
        except Exception as error:  # a plug-in may raise anything
            if is_out_of_memory(error) and self.batch > 1:
                raise _BatchTooLarge from error
            failures[variant.name] = error


@dataclass(frozen=True, eq=False)
class Stitched:
    """Scores (R, Q, h, w) of the R rows that have Q queries."""

    variants: list[Variant]
    scores: Tensor

    def without(self, failed: Container[str]) -> Stitched:
        """Only the rows whose names are not among `failed`."""
        kept = [number for number, variant in enumerate(self.variants) if variant.name not in failed]
        if len(kept) == len(self.variants):
            return self
        return Stitched([self.variants[number] for number in kept], self.scores[kept])


class _BatchTooLarge(Exception):
    """Memory ran out with more than one window in the batch."""


def _whole_image(
    backbone: Backbone,
    variant: Variant,
    pixels: Tensor,
    boxes: Sequence[Box],
    larger: Images,
    seconds: dict[str, SecondTrunk],
) -> WholeImage:
    large = None
    if variant.whole is not None:
        if variant.whole not in larger:
            raise BenchError(
                f"row '{variant.name}' needs the whole image with a long side of {variant.whole.long_side}"
            )
        large = to_device(larger[variant.whole], pixels.device).permute(2, 0, 1)[None].float() / 255
    first, size = boxes[0], (pixels.shape[1], pixels.shape[2])
    multiple = multiple_of(backbone, variant, first.bottom - first.top, first.right - first.left)
    stitch = functools.partial(_stitch, boxes, size, multiple)
    return WholeImage(pixels, boxes, backbone.patch_size, large, variant.models, stitch, seconds)


def _of_image(scores: Tensor, variant: Variant, image: WholeImage) -> Tensor:
    """A collector's scores at the network's size, (Q, h, w): scores of windows are stitched, others enlarged."""
    if isinstance(scores, Tensor) and scores.dim() == 3:
        check_scores(scores[None], 1, len(variant.classes))
        return F.interpolate(scores[None].float(), size=image.size, mode="bilinear")[0]
    check_scores(scores, len(image.boxes), len(variant.classes))
    return image.stitch(scores.float())


def _stitch(boxes: Sequence[Box], size: tuple[int, int], multiple: int, scores: Tensor) -> Tensor:
    """Scores (W, Q, h, w) of padded windows -> (Q, H, W) of the image."""
    canvas = Canvas((scores.shape[1],), *size, scores.device)
    for box, own in zip(boxes, scores, strict=True):
        height, width, inside = padded_size(box.bottom - box.top, box.right - box.left, multiple)
        whole = F.interpolate(own[None], size=(height, width), mode="bilinear")[0]
        canvas.add(box, whole[:, inside.top : inside.bottom, inside.left : inside.right])
    return canvas.mean()
