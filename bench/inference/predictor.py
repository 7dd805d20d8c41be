"""One method and its words, ready for own images."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from bench.errors import BenchError
from bench.inference.raster_io import (
    DecodedImage,
    LabelWriter,
    Raster,
    decoded,
    dropped_bands,
    is_georeferenced,
    open_raster,
)
from bench.inference.row import Row
from bench.inference.segmenter import Segmenter
from bench.inference.visualize import PLAIN, Style
from bench.inference.windows import RollingMean, window_boxes
from bench.models.collector import Box
from bench.models.text import Vocabulary
from bench.runtime.atomic import write_asked
from bench.runtime.sources import described
from bench.settings import IGNORED, Settings

Part: TypeAlias = tuple[Tensor, NDArray[np.uint8]]
"""Scores (Q, h, w) at the network's size and labels (H, W), of a whole image or of a strip of it."""


class LabelMap(NamedTuple):
    """The classes of an image.

    labels: (H, W) uint8, numbers of classes; 255 where the image holds no data
    names: of the classes
    scores: (Q, h, w) float32 at the network's size
    """

    labels: NDArray[np.uint8]
    names: tuple[str, ...]
    scores: NDArray[np.float32]


class Predictor:
    """Label maps of own images by one method with one vocabulary; made by `bench.load_segmenter`.

    native: go through images at their own resolution, strip by strip, instead of resizing them; None: with
    GeoTIFFs only. style: of overlays.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        settings: Settings,
        vocabulary: Vocabulary,
        native: bool | None = False,
        style: Style = PLAIN,
    ) -> None:
        self.segmenter = segmenter
        (self.row,) = segmenter.rows
        self.settings = settings
        self.vocabulary = vocabulary
        self.native = native
        self.style = style

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes: the first word of each."""
        return self.vocabulary.names

    def __call__(self, image: NDArray[np.uint8] | str | Path) -> LabelMap:
        """Return the label map of an RGB image (H, W, 3) uint8, or of a file: PNG, JPEG, TIFF, GeoTIFF.

        Raises BenchError for what is no such image, and where the method fails.
        """
        if isinstance(image, str | Path):
            native = self._natively(Path(image))
            with _opened(Path(image), native) as raster:
                return self._label_map(self._parts(raster, native, str(image)))
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise BenchError(f"image: {image.dtype} {image.shape}; give an RGB array (H, W, 3) of uint8, or a path")
        return self._label_map(self._parts(DecodedImage(image), bool(self.native), "image"))

    def describe(self, source: Path) -> str:
        """At what size an image file will be worked at, and what of it is not looked at. BenchError for no image."""
        native = self._natively(source)
        with _opened(source, native) as raster:
            height, width = raster.height, raster.width
        text = f"{width}x{height} pixels, at its own resolution"
        if not native:
            assert self.segmenter.resize is not None
            small_h, small_w = self.segmenter.resize.size(height, width)
            same = (small_h, small_w) == (height, width)
            text = f"{width}x{height} pixels, " + ("at once" if same else f"resized to {small_w}x{small_h}")
            if max(height, width) > 2 * max(small_h, small_w):
                text += f", {max(height, width) / max(small_h, small_w):.1f} times smaller: small things are lost; "
                text += "`--resize none` keeps its resolution"
        return f"{source}: {text}" + (f"; {bands}" if (bands := dropped_bands(source)) else "")

    def _natively(self, source: Path) -> bool:
        if self.native is None:
            return not self.row.needs_whole_image and is_georeferenced(source)
        if self.native and self.row.needs_whole_image:
            what = "method" if self.row.collects else "refinement"
            raise BenchError(
                f"row '{self.row.name}': its {what} needs the whole image at once; give --resize N, such as 448"
            )
        return self.native

    def write(self, source: Path, target: Path, scores_file: str | None = None) -> None:
        """Segment an image file into a label map (PNG or TIFF) and an overlay beside it.

        scores_file: an .npz for the scores (Q, h, w) and labels (H, W), too.
        """
        native = self._natively(source)
        with _opened(source, native) as raster:
            writer = LabelWriter(target, source, raster, self.names, self.style)
            kept = []
            try:
                for scores, labels in self._parts(raster, native, str(source)):
                    writer.add(labels)
                    if scores_file:
                        kept.append((scores.cpu().numpy(), labels))
                writer.finish()
            except BaseException:
                writer.abandon()
                raise
        if scores_file:
            whole = [np.concatenate(strips, axis=-2) for strips in zip(*kept, strict=True)]
            buffer = io.BytesIO()
            np.savez(buffer, scores=whole[0], labels=whole[1])
            write_asked(Path(scores_file), buffer.getvalue(), f"--scores {scores_file}")

    def _label_map(self, parts: Iterator[Part]) -> LabelMap:
        found = [(scores.cpu().numpy(), labels) for scores, labels in parts]
        scores, labels = (np.concatenate(strips, axis=-2) for strips in zip(*found, strict=True))
        return LabelMap(labels, self.names, scores)

    def _parts(self, raster: Raster, native: bool, source: str) -> Iterator[Part]:
        """Yield the image, or strip after strip; a plug-in's error, and scores that are not finite, become one line."""
        top, size = 0, (raster.height, raster.width)
        try:
            for scores in score_strips(self.segmenter, self.row, raster) if native else self._whole(raster):
                if not bool(scores.sum().isfinite()):
                    raise BenchError(
                        f"{source}: the method '{self.row.name}' gives scores that are not finite (NaN or infinity)"
                    )
                labels = self.row.label_map(scores, (scores.shape[1], scores.shape[2]) if native else size)
                bottom = top + len(labels)
                empty = raster.empty(Box(top, 0, bottom, raster.width))
                yield scores, labels if empty is None else np.where(empty, np.uint8(IGNORED), labels)
                top = bottom
        except BenchError:
            raise
        except Exception as error:
            said = described(error, self.row.method)
            raise BenchError(f"{source}: the method '{self.row.name}' failed: {said}") from error

    def _whole(self, raster: Raster) -> Iterator[Tensor]:
        size = raster.height, raster.width
        found = self.segmenter.scores_of_original(raster.read(Box(0, 0, *size)), size)[self.row.name]
        if isinstance(found, Exception):
            raise found
        yield found


def _opened(source: Path, native: bool) -> contextlib.AbstractContextManager[Raster]:
    return open_raster(source) if native else contextlib.nullcontext(decoded(source))


def score_strips(segmenter: Segmenter, row: Row, raster: Raster) -> Iterator[Tensor]:
    """Yield strips (Q, rows, width) of the stitched scores, from top to bottom, each complete.

    Put together they are what `Segmenter.scores` gives for the whole image at once: same windows in the same
    batches, each pixel the mean of all windows that hold it. Raises what the row's method raises, and BenchError
    where memory runs out.
    """
    boxes = window_boxes(raster.height, raster.width, segmenter.window, segmenter.stride)
    mean = RollingMean(len(row.classes), raster.width, segmenter.backbone.device)
    with tqdm(total=len(boxes), unit="window", disable=None) as bar:
        for start in range(0, len(boxes), segmenter.batch):
            chunk = boxes[start : start + segmenter.batch]
            images = torch.from_numpy(np.stack([raster.read(box) for box in chunk]))
            for box, scores in zip(chunk, segmenter.window_scores(images, row), strict=True):
                mean.add(box, scores)
            bar.update(len(chunk))
            after = boxes[start + len(chunk)].top if start + len(chunk) < len(boxes) else raster.height
            if after > mean.top:
                yield mean.take(after)
