"""Cosine scores -> winning class and its probability for each pixel at the original size.

At the original size the scores would be the largest thing of a whole run, so they only ever exist as strips that stay
in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bench import metrics
from bench.parallel import in_threads
from bench.stages import stage

Uint8s: TypeAlias = NDArray[np.uint8]
Floats: TypeAlias = NDArray[np.float32]

_VALUES = 1 << 18  # scores in a strip
_TOGETHER = 16  # strips that a thread takes at a time


class Prediction(NamedTuple):
    """Per pixel at the label's size: winning class before any threshold (uint8), and its probability (float32)."""

    classes: Uint8s
    probability: Floats


class BinnedPrediction(NamedTuple):
    """Per pixel at the label's size: winning class before any threshold, and the bin 0..99 of its probability."""

    classes: Uint8s
    bins: Uint8s


def classify(scores: Tensor, size: tuple[int, int], classes: Tensor, scale: float) -> Prediction:
    """Winning class and its probability for each pixel at the original size.

    scores: (Q, h, w). size: (H, W). classes: (Q,) class of each query. The scores are resized bilinearly,
    multiplied by `scale` and passed through a softmax over all queries; a class is as probable as its best
    query, and not renormalised.
    """
    return Prediction(*_classified(scores, size, classes, scale, binned=False))


def classify_binned(scores: Tensor, size: tuple[int, int], classes: Tensor, scale: float) -> BinnedPrediction:
    """What `classify` finds, with `bench.metrics.probability_bin` of the probability in its place."""
    return BinnedPrediction(*_classified(scores, size, classes, scale, binned=True))


def apply_threshold(prediction: Prediction, threshold: float, background: int) -> Uint8s:
    """Label map (H, W): pixels whose best probability is strictly below `threshold` become `background`."""
    uncertain = prediction.probability < np.float32(threshold)
    return np.where(uncertain, np.uint8(background), prediction.classes)


@torch.inference_mode()
def _classified(
    scores: Tensor, size: tuple[int, int], classes: Tensor, scale: float, *, binned: bool
) -> tuple[Uint8s, NDArray[Any]]:
    """Winning class (H, W), and its probability or the bin of that."""
    with stage("post-processing"):
        way = _on_cpu if scores.device.type == "cpu" else _on_accelerator
        return way(scores * scale, size, classes.cpu().numpy().astype(np.uint8), binned)


def _on_cpu(scores: Tensor, size: tuple[int, int], classes: Uint8s, binned: bool) -> tuple[Uint8s, NDArray[Any]]:
    """Winning class (H, W) and its probability or bin. Strips are shared out among threads, in NumPy and OpenCV, whose
    comparison and exponential take a tenth and a seventh of torch's time.
    """
    values = scores.numpy()
    winner = np.empty(size, np.uint8)
    certainty = np.empty(size, np.uint8 if binned else np.float32)
    # The first query that reaches the maximum: counted backwards it is the greatest.
    rank = np.arange(len(values), 0, -1).astype(np.uint8 if len(values) < 256 else np.int16)[:, None]
    of_rank = np.append(classes, classes[:1])[::-1]  # the class of each rank; none has rank 0

    def work(strips: list[_Lines]) -> None:
        # Memory for all of them: fresh memory for each would cost as much as the arithmetic.
        space = _Space(values, strips[0], size[1], rank.dtype)
        for lines in strips:
            strip, reached = space.resized(values, lines)
            best = strip.max(axis=0)
            np.multiply(np.equal(strip, best, out=reached[1]).view(np.uint8), rank, out=reached[0])
            of_rank.take(reached[0].max(axis=0), out=winner[lines.rows].reshape(-1), mode="clip")
            strip -= best
            cv2.exp(strip, strip)
            probability = 1 / strip.sum(axis=0)  # of the softmax whose winner has weight 1
            certainty[lines.rows].reshape(-1)[...] = metrics.probability_bin(probability) if binned else probability

    strips = list(_strips(scores.shape, size))
    in_threads(work, [strips[start : start + _TOGETHER] for start in range(0, len(strips), _TOGETHER)])
    return winner, certainty


class _Space:
    """Memory for one strip at a time, none with more lines than `lines`."""

    def __init__(self, scores: Floats, lines: _Lines, width: int, rank: np.dtype[Any]) -> None:
        queries, _, narrow = scores.shape
        count = len(lines.weight)
        self._width = width
        self._narrow = np.empty((2, queries * count * narrow), np.float32)
        self._wide = np.empty(queries * count * width, np.float32)
        self._reached = np.empty(queries * count * width, rank), np.empty(queries * count * width, np.bool_)

    def resized(self, scores: Floats, lines: _Lines) -> tuple[Floats, tuple[NDArray[Any], NDArray[np.bool_]]]:
        """(Q, rows * width), and two arrays of that shape to write to.

        The same arithmetic for every pixel, whatever the strips: rows first, columns within them.
        """
        queries, _, narrow = scores.shape
        count = len(lines.weight)
        blended, above = (part[: queries * count * narrow].reshape(queries, count, narrow) for part in self._narrow)
        scores.take(lines.lower, axis=1, out=blended, mode="clip")
        scores.take(lines.upper, axis=1, out=above, mode="clip")
        blended -= above
        blended *= lines.weight[:, None]
        blended += above
        ranks, equal = (part[: queries * count * self._width].reshape(queries, -1) for part in self._reached)
        if self._width == narrow:
            return blended.reshape(queries, -1), (ranks, equal)
        wide = self._wide[: queries * count * self._width].reshape(queries * count, self._width)
        cv2.resize(blended.reshape(-1, narrow), (self._width, len(wide)), wide, interpolation=cv2.INTER_LINEAR)
        return wide.reshape(queries, -1), (ranks, equal)


def _on_accelerator(
    scores: Tensor, size: tuple[int, int], classes: Uint8s, binned: bool
) -> tuple[Uint8s, NDArray[Any]]:
    """The same with torch, where the scores are; only what is found leaves the device."""
    winners, certainties = [], []
    class_of = torch.from_numpy(classes).to(scores.device)
    for lines in _strips(scores.shape, size):
        upper, lower, weight = (torch.from_numpy(part).to(scores.device) for part in lines[1:])
        blended = torch.lerp(scores.index_select(1, upper), scores.index_select(1, lower), weight[:, None])
        flat = blended.flatten(0, 1)[None, None]
        strip = F.interpolate(flat, size=(flat.shape[2], size[1]), mode="bilinear").view(len(scores), -1, size[1])
        best, winner = strip.max(dim=0)
        probability = strip.sub_(best).exp_().sum(dim=0).reciprocal_()
        winners.append(class_of[winner].cpu())
        certainties.append((probability_bin(probability) if binned else probability).cpu())
    return torch.cat(winners).numpy(), torch.cat(certainties).numpy()


def probability_bin(probability: Tensor) -> Tensor:
    """`bench.metrics.probability_bin` for a tensor on any device: float32 -> uint8."""
    half_an_ulp_up = (probability.double().view(torch.int64) | metrics.HALF_AN_ULP).view(torch.float64)
    return half_an_ulp_up.mul_(metrics.BINS).clamp_(max=metrics.BINS - 1).to(torch.uint8)


class _Lines(NamedTuple):
    """Lines of the enlarged image. Each blends an upper and a lower line of the scores, whose share is `weight`."""

    rows: slice
    upper: NDArray[np.int64]
    lower: NDArray[np.int64]
    weight: Floats


def _strips(shape: tuple[int, ...], size: tuple[int, int]) -> Iterator[_Lines]:
    """The lines of an image of `size`, enlarged bilinearly from scores (Q, h, w), in strips of about _VALUES scores."""
    queries, height, width = shape
    count = max(1, _VALUES // (queries * max(size[1], width)))
    position = ((np.arange(size[0], dtype=np.float32) + 0.5) * np.float32(height / size[0]) - 0.5).clip(0)
    upper = position.astype(np.int64).clip(max=height - 1)
    weight = (position - upper).astype(np.float32)
    for start in range(0, size[0], count):
        rows = slice(start, min(start + count, size[0]))
        yield _Lines(rows, upper[rows], (upper[rows] + 1).clip(max=height - 1), weight[rows])
