"""Cosine scores -> winning class and its probability for each pixel at the original size, and counts of these.

At the original size the scores would be the largest thing of a whole run, so they only ever exist in strips.
What is written here is the definition, in torch, and what a GPU runs; `postprocess_cpu` finds the same faster on a CPU.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bench import metrics
from bench.inference import postprocess_cpu
from bench.runtime.device import exact_float32
from bench.runtime.timing import stage
from bench.settings import BEST_WORD, IGNORED, Join

Uint8s: TypeAlias = NDArray[np.uint8]
Floats: TypeAlias = NDArray[np.float32]

_VALUES = 1 << 25  # scores in a strip: one more call costs an accelerator more than a million more scores
_LINES = 128  # of the enlarged image in a strip at most: with more, more of the weights that are multiplied are zero
_COPIES = 1 << 22  # counters at most: pixels that are counted at once wait for each other less in several histograms


class Prediction(NamedTuple):
    """Per pixel at the label's size: winning class before any threshold (uint8), and its probability (float32)."""

    classes: Uint8s
    probability: Floats


class BinnedPrediction(NamedTuple):
    """Per pixel at the label's size: winning class before any threshold, and the bin 0..99 of its probability."""

    classes: Uint8s
    bins: Uint8s


def classify(
    scores: Tensor, size: tuple[int, int], classes: Tensor, scale: float, join: Join = BEST_WORD
) -> Prediction:
    """Winning class and its probability for each pixel at the original size.

    scores: (Q, h, w)
    size: (H, W)
    classes: (Q,) class of each query

    The scores are resized bilinearly, multiplied by `scale` and passed through a softmax over all queries; a class is
    as probable as its best query, and not renormalised. scale 0: the scores are probabilities, and no softmax is taken.

    join: aggregate "sum" instead adds the probabilities of a class's queries; "logsumexp" makes a score of each class
    first, (1/τ) log Σ exp(τ x) over its scaled queries x, and its softmax is over the classes.
    """
    return Prediction(*_classified(scores, size, classes, scale, join, binned=False))


def classify_binned(
    scores: Tensor, size: tuple[int, int], classes: Tensor, scale: float, join: Join = BEST_WORD
) -> BinnedPrediction:
    """Classify as `classify` does, with `bench.metrics.probability_bin` of each probability in its place."""
    return BinnedPrediction(*_classified(scores, size, classes, scale, join, binned=True))


@torch.inference_mode()
def _classified(
    scores: Tensor, size: tuple[int, int], classes: Tensor, scale: float, join: Join, *, binned: bool
) -> tuple[Uint8s, NDArray[Any]]:
    """Winning class (H, W), and its probability or the bin of that."""
    with stage("post-processing"):
        if not scale:
            return _textbook(scores, size, classes, binned, softmax=False)
        scaled = scores * scale
        if join.aggregate != "max":
            return _aggregated(scaled, size, classes, join, binned)
        if scores.device.type == "cpu":
            lowest, highest = scaled.aminmax()
            if highest - lowest <= postprocess_cpu.RANGE:
                centered = scaled.sub_((lowest + highest) / 2)
                return postprocess_cpu.winners(centered, size, classes.numpy().astype(np.uint8), binned)
        return _textbook(scaled, size, classes, binned)


def _textbook(
    scaled: Tensor, size: tuple[int, int], classes: Tensor, binned: bool, softmax: bool = True
) -> tuple[Uint8s, NDArray[Any]]:
    winners, certainties = [], []
    for _, winner, probability in _strips(scaled[None], size, softmax):
        winners.append(classes[winner[0]].to(torch.uint8).cpu())
        certainties.append((probability_bin(probability[0]) if binned else probability[0]).cpu())
    return torch.cat(winners).numpy(), torch.cat(certainties).numpy()


def _aggregated(
    scaled: Tensor, size: tuple[int, int], classes: Tensor, join: Join, binned: bool
) -> tuple[Uint8s, NDArray[Any]]:
    winners, certainties = [], []
    for _, blended in enlarged_strips(scaled[None], size):
        certainty, winner = of_classes(blended[0], classes, join).max(dim=0)
        winners.append(winner.to(torch.uint8).cpu())
        certainties.append((probability_bin(certainty.contiguous()) if binned else certainty).cpu())
    return torch.cat(winners).numpy(), torch.cat(certainties).numpy()


def of_classes(scaled: Tensor, classes: Tensor, join: Join) -> Tensor:
    """Probabilities (K, …) of the classes from scaled scores (Q, …) of their queries; see `classify`."""
    members = [scaled[classes == number] for number in range(int(classes.max()) + 1)]
    if join.aggregate == "logsumexp":
        return torch.stack([torch.logsumexp(join.tau * one, dim=0) / join.tau for one in members]).softmax(dim=0)
    total = torch.logsumexp(scaled, dim=0)
    if join.aggregate == "sum":
        return torch.stack([(torch.logsumexp(one, dim=0) - total).exp() for one in members])
    return torch.stack([(one.amax(dim=0) - total).exp() for one in members])


@torch.inference_mode()
def class_probabilities(
    scores: Tensor, size: tuple[int, int], classes: Tensor, scale: float, join: Join = BEST_WORD
) -> Floats:
    """Probability of every class for each pixel at the original size, (K, H, W); arguments as of `classify`."""
    found = []
    for _, blended in enlarged_strips((scores * scale if scale else scores)[None], size):
        if scale:
            found.append(of_classes(blended[0], classes, join))
        else:
            best = [blended[0, classes == number].amax(dim=0) for number in range(int(classes.max()) + 1)]
            found.append(torch.stack(best).clamp(0, 1))
    return torch.cat(found, dim=1).cpu().numpy()


@torch.inference_mode()
def pixel_histograms(scores: Tensor, classes: Tensor, scales: Tensor | None, label: Tensor, count: int) -> Tensor:
    """Count `classify_binned` as `bench.metrics.count` does, for R rows at once and on their own device.

    scores: (R, Q, h, w)
    classes: (R, Q) int64
    scales: (R,), or None where the scores of all rows are probabilities
    label: (H, W) uint8
    count: number of classes K

    Returns (R, (K + 1) * K * 100) int32. Nothing here waits for the device.
    """
    rows, device, keys = len(scores), label.device, (count + 2) * count * metrics.BINS  # a row more for what is ignored
    copies = max(1, min(16, _COPIES // (rows * keys)))
    key_of_query = (classes * metrics.BINS + torch.arange(rows, device=device)[:, None] * keys).int()
    key_of_label = torch.arange(256, device=device, dtype=torch.int32).clamp_max_(count)
    key_of_label[IGNORED] = count + 1
    key_of_label *= count * metrics.BINS
    key_of_column = torch.arange(label.shape[1], device=device, dtype=torch.int32) % copies * (rows * keys)
    histogram = torch.zeros(copies * rows * keys, dtype=torch.int32, device=device)
    one = histogram.new_ones(())
    scaled = scores if scales is None else scores * scales[:, None, None, None]
    for lines, winner, probability in _strips(scaled, (label.shape[0], label.shape[1]), scales is not None):
        key = key_of_query.gather(1, winner.flatten(1)).view_as(winner)  # (R, m, W)
        key += _bins(probability)
        key += key_of_label[label[lines].long()] + key_of_column
        histogram.index_add_(0, key.flatten(), one.expand(key.numel()))
    together = histogram.view(copies, rows, count + 2, -1).sum(0, dtype=torch.int32)
    return together[:, : count + 1].flatten(1)


def _strips(scaled: Tensor, size: tuple[int, int], softmax: bool) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Lines of the image, winning query and its probability (R, lines, W), of scaled scores (R, Q, h, w)."""
    for lines, blended in enlarged_strips(scaled, size):
        probability, winner = (torch.softmax(blended, dim=1) if softmax else blended.clamp(0, 1)).max(dim=1)
        yield lines, winner, probability


def enlarged_strips(scaled: Tensor, size: tuple[int, int]) -> Iterator[tuple[slice, Tensor]]:
    """Lines of the image and their scores (R, Q, lines, W): bilinear enlargement of (R, Q, h, w), across first."""
    rows, queries, height, width = scaled.shape
    count = max(1, _VALUES // (rows * queries * size[1]))
    if (height, width) == size:
        for start in range(0, height, count):
            yield slice(start, min(start + count, height)), scaled[:, :, start : start + count]
        return
    wide = F.interpolate(scaled.reshape(1, 1, -1, width), size=(rows * queries * height, size[1]), mode="bilinear")
    wide = wide.view(rows, queries, height, size[1])
    identity = torch.eye(height, device=scaled.device)[None, None]
    weights = F.interpolate(identity, size=(size[0], height), mode="bilinear")[0, 0]  # (H, h), of which a band is not 0
    count = min(count, _LINES)
    for start in range(0, size[0], count):
        stop = min(start + count, size[0])
        band = slice(max(start * height // size[0] - 1, 0), -(-stop * height // size[0]) + 1)
        with exact_float32():
            blended = weights[start:stop, band] @ wide[:, :, band]
        yield slice(start, stop), blended


def probability_bin(probability: Tensor) -> Tensor:
    """`bench.metrics.probability_bin` for a tensor on any device: float32 -> uint8."""
    return _bins(probability).to(torch.uint8)


def _bins(probability: Tensor) -> Tensor:
    """Bin of each probability, int32; of what is no number, some bin."""
    return torch.bucketize(probability, _first_of_bins(probability.device), out_int32=True, right=True)


@functools.lru_cache
@torch.inference_mode(False)
def _first_of_bins(device: torch.device) -> Tensor:
    """Least probability, as a float32, of each bin but the lowest."""
    return torch.arange(1, metrics.BINS, dtype=torch.float64).div_(metrics.BINS).float().to(device)
