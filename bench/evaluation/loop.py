"""Images in, counts out: the inner loop of a run. Knows nothing of files, cells or processes."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bench.data.loader import Loaded
from bench.inference.collecting import ImageInput
from bench.inference.row import Row, check_weights, histograms
from bench.inference.segmenter import Segmenter, Stitched
from bench.metrics import count
from bench.metrics.boundary import boundary_counts
from bench.runtime.device import to_device, to_host
from bench.runtime.sources import described
from bench.runtime.timing import stage
from bench.store.count_table import ImageCounts, boundary_line


@dataclass(frozen=True)
class Scoring:
    """Scope of the counting on the images of one dataset."""

    classes: int
    """Number of classes K."""
    boundary: bool = False
    """Whether boundaries are counted, at each row's threshold."""
    keep: Mapping[str, Collection[int]] = field(default_factory=dict)
    """Row -> images whose label maps are handed out as well."""

    def keeps(self, row: Row, index: int) -> bool:
        """Return whether the label map of the row on that image is kept."""
        return index in self.keep.get(row.name, ())


@dataclass(frozen=True, eq=False)
class Outcome:
    """One row on one image."""

    row: str
    image: ImageCounts
    gives_up: bool = False
    """Whether the method itself raised, so that the row is not asked about further images."""
    labels: NDArray[np.uint8] | None = None
    """The final label map (H, W), where it is kept."""


def evaluate(
    segmenters: Sequence[Segmenter], images: Iterable[Loaded], pending: Mapping[str, set[int]], scoring: Scoring
) -> Iterator[Outcome]:
    """Outcomes of all rows on all images, image by image.

    segmenters: one per backbone and geometry.
    images: in whole groups of `images_together`, whatever is pending, for results that are equal to the byte.
    pending: for each row the indices that it still wants.

    A row whose method raises, or gives scores that are not finite, is dropped at its first error, which is yielded; an
    image that cannot be read is an error of each row that wants it. The other rows and images are evaluated.
    Counts of a GPU are read one group late, so that it is never waited for.
    """
    dropped: set[str] = set()
    waiting: deque[Iterator[Outcome]] = deque()

    def finished(part: Iterator[Outcome]) -> Iterator[Outcome]:
        for outcome in part:
            if outcome.row not in dropped and outcome.image.index in pending[outcome.row]:
                if outcome.gives_up:
                    dropped.add(outcome.row)
                yield outcome

    images = iter(images)
    while group := list(itertools.islice(images, images_together(segmenters))):
        before = len(waiting)
        for segmenter in segmenters:
            for start in range(0, len(group), segmenter.together):
                part = group[start : start + segmenter.together]
                wanting = {row for row, due in pending.items() if not due.isdisjoint(one.index for one in part)}
                waiting.append(_started(segmenter, part, wanting - dropped, scoring))
        late = len(waiting) - before if segmenters and segmenters[0].backbone.device.type == "cuda" else 0
        while len(waiting) > late:
            yield from finished(waiting.popleft())
    for started in waiting:
        yield from finished(started)


def images_together(segmenters: Sequence[Segmenter]) -> int:
    """Return how many images, by their numbers in a dataset, are evaluated at once."""
    return max((segmenter.together for segmenter in segmenters), default=1)


def _started(
    segmenter: Segmenter, images: Sequence[Loaded], names: Container[str], scoring: Scoring
) -> Iterator[Outcome]:
    """Start rows on images; of each come the outcomes of rows that raised, then of the others, in order."""
    rows = [row for row in segmenter.rows if row.name in names]
    readable = [_input(segmenter, loaded) for loaded in images if rows and not loaded.error]
    found = segmenter.stitched(readable, names)
    parts: list[Iterable[Outcome]] = []
    for loaded in images if rows else ():
        if loaded.error:
            parts.append([_failure(loaded, row, loaded.error) for row in rows])
            continue
        groups, failures = next(found)
        failed = [row for row in rows if row.name in failures]
        parts.append([_given_up(loaded, row, described(failures[row.name], row.method)) for row in failed])
        parts += [counted(loaded, one, scoring) for one in groups if one.rows]
    check = check_weights(rows)

    def outcomes() -> Iterator[Outcome]:
        check()
        yield from itertools.chain.from_iterable(parts)

    return outcomes()


def _input(segmenter: Segmenter, loaded: Loaded) -> ImageInput:
    assert segmenter.resize is not None
    size = loaded.label.shape[0], loaded.label.shape[1]
    return segmenter.prepared(loaded.images[segmenter.resize], size, loaded.images)


def counted(loaded: Loaded, group: Stitched, scoring: Scoring) -> Iterator[Outcome]:
    """Start counting the scores of an image; the outcomes are read when they are asked for."""
    finite = to_host(group.scores.sum((1, 2, 3)).isfinite())  # a sum holds what any of its terms is, NaN or infinite
    maps = scoring.boundary or any(scoring.keeps(row, loaded.index) for row in group.rows)
    alike = len({row.scale > 0 for row in group.rows}) == 1 and all(row.join.aggregate == "max" for row in group.rows)
    on_device = group.scores.device.type != "cpu" and not maps and alike
    counts = _on_device(loaded, group, scoring) if on_device else _by_maps(loaded, group, scoring)
    return _checked(loaded, group.rows, finite, counts)


def _checked(
    loaded: Loaded, rows: Sequence[Row], finite: Callable[[], NDArray[np.bool_]], counts: Iterator[Outcome]
) -> Iterator[Outcome]:
    for row, good, outcome in zip(rows, finite(), counts, strict=True):
        yield outcome if good else _given_up(loaded, row, "its scores are not finite (NaN or infinity)")


def _on_device(loaded: Loaded, group: Stitched, scoring: Scoring) -> Iterator[Outcome]:
    with stage("post-processing"):
        label = to_device(loaded.label, group.scores.device)
        rows, waited = group.rows, to_host(histograms(group.rows, group.scores, label, scoring.classes))

    def read() -> Iterator[Outcome]:
        with stage("metrics"):
            found = waited()
        for row, histogram in zip(rows, found, strict=True):
            keys = np.flatnonzero(histogram).astype(np.int32)
            counts = histogram[keys].astype(np.int64)
            yield Outcome(row.name, ImageCounts(loaded.index, keys, counts, content=loaded.content))

    return read()


def _by_maps(loaded: Loaded, group: Stitched, scoring: Scoring) -> Iterator[Outcome]:
    label = loaded.label
    for row, scores in zip(group.rows, group.scores, strict=True):
        winners = row.winners(scores, (label.shape[0], label.shape[1]))
        kept = scoring.keeps(row, loaded.index)
        final = row.thresholded(winners) if scoring.boundary or kept else None
        with stage("metrics"):
            keys, counts = count(label, *winners, scoring.classes)
            boundary = None
            if scoring.boundary and final is not None:
                pairs = boundary_counts(label, final, scoring.classes)
                boundary = boundary_line(pairs, row.threshold, row.background)
        image = ImageCounts(loaded.index, keys, counts, boundary, content=loaded.content)
        yield Outcome(row.name, image, labels=final if kept else None)


def _given_up(loaded: Loaded, row: Row, reason: str) -> Outcome:
    return _failure(loaded, row, f"{reason} (image {loaded.id})", gives_up=True)


def _failure(loaded: Loaded, row: Row, reason: str, gives_up: bool = False) -> Outcome:
    return Outcome(row.name, ImageCounts(loaded.index, error=" ".join(reason.split())), gives_up)
