"""Images in, counts out: the inner loop of a run. Knows nothing of files, cells or processes."""

from __future__ import annotations

import functools
import itertools
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.data.images import Resize
from bench.data.loader import Loaded
from bench.inference.blame import described
from bench.inference.postprocess import classify_binned, pixel_histograms
from bench.inference.segmenter import Segmenter, Stitched
from bench.inference.variant import Variant
from bench.metrics import BINS, count
from bench.metrics.boundary import boundary_counts
from bench.runtime.device import to_device, to_host
from bench.runtime.timing import stage


@dataclass(frozen=True)
class RowGroup:
    """Rows that share backbone and geometry."""

    resize: Resize
    segmenter: Segmenter


@dataclass(frozen=True)
class Scoring:
    """What turns scores into counts, for one dataset: number of classes, and, with `boundary`, each row's
    (threshold, background), without which there are no boundaries.

    finals: the same, for the label maps of the images `keep` (by row) that are handed out as well.
    """

    classes: int
    boundary: Mapping[str, tuple[float, int]] | None = None
    finals: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    keep: Mapping[str, Collection[int]] = field(default_factory=dict)

    def keeps(self, row: str, index: int) -> bool:
        """Whether the label map of the row on that image is kept."""
        return index in self.keep.get(row, ())


@dataclass(frozen=True, eq=False)
class Outcome:
    """Counts of one row on one image (see `bench.metrics.count`), or why there are none.

    gives_up: the method itself raised, so the row is not asked about further images. content: checksum of its files.
    labels: the final label map (H, W) uint8, where it is kept.
    """

    index: int
    row: str
    keys: NDArray[np.int32]
    counts: NDArray[np.int64]
    boundary: NDArray[np.int64] | None = None
    error: str | None = None
    gives_up: bool = False
    content: str | None = None
    labels: NDArray[np.uint8] | None = None


def evaluate(
    groups: Sequence[RowGroup], images: Iterable[Loaded], pending: Mapping[str, set[int]], scoring: Scoring
) -> Iterator[Outcome]:
    """Outcomes of all rows on all images, image by image.

    pending: for each row the indices that it still wants. A row whose method raises, or gives scores that are not
    finite, is dropped at its first error, which is yielded; an image that cannot be read is an error of each row that
    wants it. The other rows and images go on. Counts of a GPU are read one image late, so that it is never waited for.
    """
    dropped: set[str] = set()
    waiting: deque[Iterator[Outcome]] = deque()

    def finished(image: Iterator[Outcome]) -> Iterator[Outcome]:
        for outcome in image:
            if outcome.row not in dropped:
                if outcome.gives_up:
                    dropped.add(outcome.row)
                yield outcome

    for loaded in images:
        for group in groups:
            wanted = [
                variant
                for variant in group.segmenter.variants
                if loaded.index in pending[variant.name] and variant.name not in dropped
            ]
            waiting.append(_image(group, wanted, loaded, scoring))
        late = len(groups) if groups and groups[0].segmenter.backbone.device.type == "cuda" else 0
        while len(waiting) > late:
            yield from finished(waiting.popleft())
    for image in waiting:
        yield from finished(image)


def _image(group: RowGroup, wanted: Sequence[Variant], loaded: Loaded, scoring: Scoring) -> Iterator[Outcome]:
    """Start the rows on an image; first come the outcomes of rows that raised, then of the others, in order."""
    if loaded.error or not wanted:
        return iter([_failure(loaded.index, variant.name, loaded.error or "", gives_up=False) for variant in wanted])
    names = [variant.name for variant in wanted]
    height, width = loaded.label.shape
    stitched, failures = group.segmenter.stitched(loaded.images[group.resize], names, (height, width), loaded.images)
    methods = {variant.name: variant.method for variant in group.segmenter.variants}
    failed = [_given_up(loaded, name, described(error, methods[name])) for name, error in failures.items()]
    counted = [_counted(loaded, rows, scoring) for rows in stitched if rows.variants]
    return itertools.chain(failed, *counted)


def _counted(loaded: Loaded, rows: Stitched, scoring: Scoring) -> Iterator[Outcome]:
    """Start counting; the outcomes are read when they are asked for."""
    finite = to_host(rows.scores.sum((1, 2, 3)).isfinite())  # a sum holds what any of its terms is, NaN or infinite
    keep = any(scoring.keeps(variant.name, loaded.index) for variant in rows.variants)
    plain = all(variant.join.aggregate == "max" for variant in rows.variants)
    on_device = rows.scores.device.type != "cpu" and scoring.boundary is None and not keep and plain
    counts = _on_device(loaded, rows, scoring) if on_device else _by_maps(loaded, rows, scoring)
    return _checked(loaded, rows, finite, counts)


def _checked(
    loaded: Loaded, rows: Stitched, finite: Callable[[], NDArray[np.bool_]], counts: Iterator[Outcome]
) -> Iterator[Outcome]:
    for variant, good, outcome in zip(rows.variants, finite(), counts, strict=True):
        yield outcome if good else _given_up(loaded, variant.name, "its scores are not finite (NaN or infinity)")


def _on_device(loaded: Loaded, rows: Stitched, scoring: Scoring) -> Iterator[Outcome]:
    device = rows.scores.device
    with stage("post-processing"):
        classes = torch.stack([variant.classes for variant in rows.variants])
        scales = _scales(tuple(variant.scale for variant in rows.variants), device)
        label = to_device(loaded.label, device)
        histograms = to_host(pixel_histograms(rows.scores, classes, scales, label, scoring.classes))

    def read() -> Iterator[Outcome]:
        with stage("metrics"):
            found = histograms()
        for variant, histogram in zip(rows.variants, found, strict=True):
            keys = np.flatnonzero(histogram).astype(np.int32)
            counts = histogram[keys].astype(np.int64)
            yield Outcome(loaded.index, variant.name, keys, counts, content=loaded.content)

    return read()


def _by_maps(loaded: Loaded, rows: Stitched, scoring: Scoring) -> Iterator[Outcome]:
    label = loaded.label
    for variant, scores in zip(rows.variants, rows.scores, strict=True):
        classes, bins = classify_binned(scores, label.shape, variant.classes, variant.scale, variant.join)
        with stage("metrics"):
            keys, counts = count(label, classes, bins, scoring.classes)
            boundary = None
            if scoring.boundary is not None:
                final = _final(classes, bins, *scoring.boundary[variant.name])
                boundary = boundary_counts(label, final, scoring.classes)
        kept = scoring.keeps(variant.name, loaded.index)
        labels = _final(classes, bins, *scoring.finals[variant.name]) if kept else None
        yield Outcome(loaded.index, variant.name, keys, counts, boundary, content=loaded.content, labels=labels)


def _final(classes: NDArray[np.uint8], bins: NDArray[np.uint8], threshold: float, background: int) -> NDArray[np.uint8]:
    return np.where(bins < round(threshold * BINS), np.uint8(background), classes)


@functools.lru_cache
def _scales(scales: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(scales, device=device)


def _given_up(loaded: Loaded, row: str, reason: str) -> Outcome:
    return _failure(loaded.index, row, f"{reason} (image {loaded.id})", gives_up=True)


def _failure(index: int, row: str, reason: str, gives_up: bool) -> Outcome:
    nothing = np.empty(0, np.int32), np.empty(0, np.int64)
    return Outcome(index, row, *nothing, error=" ".join(reason.split()), gives_up=gives_up)
