"""Images in, counts out: the inner loop of a run. Knows nothing of files, cells or processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bench.boundary import boundary_counts
from bench.classify import classify_binned
from bench.data.images import Resize
from bench.data.loader import Loaded
from bench.metrics import BINS, count
from bench.segmenter import Query, Segmenter
from bench.stages import stage


@dataclass(frozen=True)
class RowGroup:
    """Rows that share backbone and geometry."""

    resize: Resize
    segmenter: Segmenter


@dataclass(frozen=True)
class Scoring:
    """What turns scores into counts, for one dataset: number of classes, and, with `boundary`, each row's
    (threshold, background), without which there are no boundaries."""

    classes: int
    boundary: Mapping[str, tuple[float, int]] | None = None


@dataclass(frozen=True, eq=False)
class Outcome:
    """Counts of one row on one image (see `bench.metrics.count`), or why there are none.

    gives_up: the method itself raised, so the row is not asked about further images.
    """

    index: int
    row: str
    keys: NDArray[np.int32]
    counts: NDArray[np.int64]
    boundary: NDArray[np.int64] | None = None
    error: str | None = None
    gives_up: bool = False


def evaluate(
    groups: Sequence[RowGroup], images: Iterable[Loaded], pending: Mapping[str, set[int]], scoring: Scoring
) -> Iterator[Outcome]:
    """Outcomes of all rows on all images, image by image.

    pending: for each row the indices that it still wants. A row whose method raises is dropped at its first
    error, which is yielded; an image that cannot be read is an error of each row that wants it. The other
    rows and images go on.
    """
    dropped: set[str] = set()
    for loaded in images:
        for group in groups:
            wanted = [
                query
                for query in group.segmenter.queries
                if loaded.index in pending[query.name] and query.name not in dropped
            ]
            for outcome in _image(group, wanted, loaded, scoring):
                if outcome.gives_up:
                    dropped.add(outcome.row)
                yield outcome


def _image(group: RowGroup, wanted: Sequence[Query], loaded: Loaded, scoring: Scoring) -> Iterator[Outcome]:
    if loaded.error or not wanted:
        yield from (_failure(loaded.index, query.name, loaded.error or "", gives_up=False) for query in wanted)
        return
    image = loaded.images[group.resize]
    results = group.segmenter.scores(image, [query.name for query in wanted])
    for query in wanted:
        scores = results.pop(query.name)
        if isinstance(scores, Tensor):
            yield _counted(loaded, query, scores, scoring)
        else:
            reason = f"{type(scores).__name__}: {scores} (image {loaded.id})"
            yield _failure(loaded.index, query.name, reason, gives_up=True)


def _counted(loaded: Loaded, query: Query, scores: Tensor, scoring: Scoring) -> Outcome:
    label = loaded.label
    classes, bins = classify_binned(scores, label.shape, query.classes, query.scale)
    with stage("metrics"):
        keys, counts = count(label, classes, bins, scoring.classes)
        boundary = None
        if scoring.boundary is not None:
            threshold, background = scoring.boundary[query.name]
            final = np.where(bins < round(threshold * BINS), np.uint8(background), classes)
            boundary = boundary_counts(label, final, scoring.classes)
    return Outcome(loaded.index, query.name, keys, counts, boundary)


def _failure(index: int, row: str, reason: str, gives_up: bool) -> Outcome:
    nothing = np.empty(0, np.int32), np.empty(0, np.int64)
    return Outcome(index, row, *nothing, error=" ".join(reason.split()), gives_up=gives_up)
