"""Rows of pixels a strip at a time: what is held at once does not grow with the image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bench.models.upsamplers.base import ScoreRequest
from bench.models.upsamplers.logits import PixelScores
from bench.runtime.timing import stage

Axis = Tensor  # bool (pixels, patches): which patches of an axis a pixel sees


class Band(NamedTuple):
    """A strip of pixel rows and what it sees: rows of patches, and a mask (P, m) of its pixels and their patches."""

    pixels: slice
    patches: slice
    mask: Tensor


def bands(rows: Axis, columns: Axis) -> Iterator[Band]:
    """Cut the image from top to bottom into strips about as high as a patch."""
    height, across = len(rows), rows.shape[1]
    step = max(1, height // across)
    for first in range(0, height, step):
        pixels = slice(first, min(first + step, height))
        seen = rows[pixels].any(0).nonzero()
        patches = slice(int(seen[0]), int(seen[-1]) + 1)
        mask = rows[pixels, None, patches, None] & columns[None, :, None]  # (rows, W, h', w)
        yield Band(pixels, patches, mask.flatten(2).flatten(0, 1))


@torch.no_grad()
def weighted_scores(
    requests: Sequence[ScoreRequest],
    rows: Axis,
    columns: Axis,
    weights: Callable[[int, Band], Tensor],
) -> list[Tensor]:
    """Cosine scores (B, H, W, Q) of features that are weighted sums of patches, without ever forming them.

    weights: the number of a request and a strip -> (B, P, m), the weights of the patches that the strip sees.
    """
    with stage("scores"):
        scorers = PixelScores.of(requests)
    across = columns.shape[1]
    found: list[list[Tensor]] = [[] for _ in requests]
    for band in bands(rows, columns):
        for number, scorer in enumerate(scorers):
            with stage("operator"):
                values = weights(number, band)
            with stage("scores"):
                scores = scorer(values, band.patches.start * across)
            found[number].append(scores.view(len(scores), -1, len(columns), scores.shape[2]))
    return [torch.cat(parts, dim=1) for parts in found]
