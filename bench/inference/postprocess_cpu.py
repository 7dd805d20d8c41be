"""`bench.inference.postprocess` on a CPU, fast: the same maps as the textbook way, up to rounding.

Most images are larger than the network's input, so several lines in turn are between the same two lines of scores. From
each to the next a score grows by the same amount, hence its exponential by the same factor: one exponential per column
and pair of lines, then products.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bench import metrics
from bench.runtime.threads import in_threads

Uint8s: TypeAlias = NDArray[np.uint8]
Floats: TypeAlias = NDArray[np.float32]

RANGE = 160.0  # of scores whose exponentials, and a thousand of them together, fit into float32
_VALUES = 1 << 19  # scores in a strip
_TOGETHER = 2  # strips that a thread takes at a time
_LINES = 16  # that one exponential serves: each further one adds a rounding error


def winners(scores: Tensor, size: tuple[int, int], classes: Uint8s, binned: bool) -> tuple[Uint8s, NDArray[Any]]:
    """Winning class (H, W) and its probability or bin, of scaled scores (Q, h, w) no further than RANGE / 2 from 0.

    Strips are shared out among threads, in NumPy and OpenCV, whose comparison and exponential take a tenth and a
    seventh of torch's time.
    """
    values = scores.numpy()
    found = _Maps(np.empty(size, np.uint8), np.empty(size, np.uint8 if binned else np.float32))
    of_rank = _class_of_rank(classes)
    runs = _runs(values.shape[1], size[0])
    count = max(1, _VALUES // (len(values) * size[1]))
    strips = [runs.part(start, start + count) for start in range(0, len(runs.first), count)]

    def work(strips: list[_Runs]) -> None:
        space = _Space(len(values), len(strips[0].first), size[1])
        for strip in strips:
            _classify_strip(values, strip, space, of_rank, found)

    in_threads(work, [strips[start : start + _TOGETHER] for start in range(0, len(strips), _TOGETHER)])
    return found


class _Maps(NamedTuple):
    """Result per pixel (H, W): winning class, and its probability or the bin of that."""

    winner: Uint8s
    certainty: NDArray[Any]


class _Runs(NamedTuple):
    """Runs of lines of the enlarged image, each run between the same two lines of the scores.

    All (n,).

    first, lines: where a run starts, and how many lines it has
    upper, lower: the two lines of scores
    weight: share of the lower one in the first line
    growth: what each next line adds to it
    """

    first: NDArray[np.int64]
    lines: NDArray[np.int64]
    upper: NDArray[np.int64]
    lower: NDArray[np.int64]
    weight: Floats
    growth: Floats

    def part(self, start: int, stop: int) -> _Runs:
        """Return the runs `start` up to, not including, `stop`."""
        part = slice(start, stop)
        places = (self.first[part], self.lines[part], self.upper[part], self.lower[part])
        return _Runs(*places, self.weight[part], self.growth[part])


def _runs(height: int, enlarged: int) -> _Runs:
    """Return the runs of lines of an image enlarged bilinearly from `height` lines to `enlarged`."""
    index = np.arange(enlarged)
    position = (index + 0.5) * (height / enlarged) - 0.5
    beyond = position < 0  # above the middle of the first line of scores nothing changes
    upper = np.floor(position).astype(np.int64).clip(0)
    starts = np.diff(2 * upper + beyond, prepend=-1) != 0
    starts |= (index - np.maximum.accumulate(np.where(starts, index, 0))) % _LINES == 0
    first = np.flatnonzero(starts)
    lines = np.diff(first, append=enlarged)
    upper, weight = upper[first], (position.clip(0) - upper)[first].astype(np.float32)
    growth = np.where(beyond[first], 0, height / enlarged).astype(np.float32)
    return _Runs(first, lines, upper, (upper + 1).clip(max=height - 1), weight, growth)


class _Space:
    """Memory for one strip at a time: fresh memory for each would cost as much as the arithmetic."""

    def __init__(self, queries: int, runs: int, width: int) -> None:
        shape = (queries, runs, width)
        self.scores, self.slope = (np.empty(shape, np.float32) for _ in range(2))
        self.reached = np.empty(shape, np.bool_)
        self.rank = np.empty(shape, np.uint8 if queries < 256 else np.uint16)

    def of(self, runs: int) -> tuple[NDArray[Any], ...]:
        """Its arrays for so many runs of lines."""
        arrays = (self.scores, self.slope, self.reached, self.rank)
        queries, _, width = self.scores.shape
        return tuple(array.ravel()[: queries * runs * width].reshape(queries, runs, width) for array in arrays)


def _classify_strip(
    values: Floats, runs: _Runs, space: _Space, of_rank: Callable[[NDArray[Any]], Uint8s], found: _Maps
) -> None:
    """Fill the lines of a strip. Every pixel's arithmetic is the same, whatever the strips."""
    scores, slope, reached, rank = space.of(len(runs.first))
    (queries, _, width), top, last = scores.shape, runs.upper[0], runs.lines.max() - 1
    narrow = np.ascontiguousarray(values[:, top : runs.lower[-1] + 1])
    wide = cv2.resize(narrow.reshape(-1, values.shape[2]), (width, queries * narrow.shape[1]))
    wide = wide.reshape(queries, -1, width)
    above, below = _take_lines(wide, runs.upper - top), _take_lines(wide, runs.lower - top)
    np.subtract(below, above, out=slope)
    np.multiply(slope, runs.weight[:, None], out=scores)
    scores += above
    exponential = cv2.exp(scores.reshape(-1, width), scores.reshape(-1, width)).reshape(scores.shape)
    if last:
        slope *= runs.growth[:, None]
        factor = cv2.exp(slope.reshape(-1, width), slope.reshape(-1, width)).reshape(slope.shape)
    # The first query that reaches the maximum: counted backwards it is the greatest.
    ranks = np.arange(queries, 0, -1).astype(rank.dtype)[:, None, None]
    binned = found.certainty.dtype == np.uint8
    going = np.arange(len(runs.first))
    for step in range(last + 1):
        if step:
            longer = runs.lines[going] > step
            if not longer.all():
                going, exponential, factor = going[longer], exponential[:, longer], factor[:, longer]
                reached, rank = reached[:, : len(going)], rank[:, : len(going)]
            exponential *= factor
        best = exponential.max(axis=0)
        np.multiply(np.equal(exponential, best, out=reached).view(np.uint8), ranks, out=rank)
        total = cv2.reduce(exponential.reshape(queries, -1), 0, cv2.REDUCE_SUM).reshape(best.shape)
        probability = best / total  # of the softmax over the queries
        found.winner[runs.first[going] + step] = of_rank(rank.max(axis=0))
        found.certainty[runs.first[going] + step] = metrics.probability_bin(probability) if binned else probability


def _take_lines(wide: Floats, index: NDArray[np.int64]) -> Floats:
    """Take some of the lines (Q, n, W), without a copy where they follow one another."""
    if np.all(np.diff(index) == 1):
        return wide[:, index[0] : index[-1] + 1]
    return wide.take(index, axis=1)


def _class_of_rank(classes: Uint8s) -> Callable[[NDArray[Any]], Uint8s]:
    """From ranks to classes: the last of Q queries has rank 1, the first rank Q, and none has rank 0."""
    of_rank = np.append(classes, classes[:1])[::-1]
    if len(of_rank) > 256:
        return lambda rank: of_rank.take(rank, mode="clip")
    table = np.zeros(256, np.uint8)
    table[: len(of_rank)] = of_rank
    return lambda rank: cv2.LUT(rank, table).astype(np.uint8, copy=False)
