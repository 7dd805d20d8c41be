"""Upsamplers without weights, to compare learned ones with: bilinear and nearest enlargement of the features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.models.upsamplers.base import Prepared, ScoreRequest, Upsampler, upsampler
from bench.models.upsamplers.strips import Band, weighted_scores


@upsampler("bilinear")
class Bilinear(Upsampler):
    """Features between the patches' centres, two a direction. Without upsampler it is the scores that are enlarged."""

    weightless = True

    def forward(self, patches: Tensor, guidance: Tensor) -> Tensor:
        return F.interpolate(patches, guidance.shape[2:], mode="bilinear")

    def prepare(self, guidance: Tensor, grid: tuple[int, int]) -> Prepared:
        return _BilinearScores(guidance, grid)


class _BilinearScores(Prepared):
    def __init__(self, guidance: Tensor, grid: tuple[int, int]) -> None:
        height, width = guidance.shape[2:]
        self._down, self._across = (
            _line_weights(pixels, patches, guidance) for pixels, patches in zip((height, width), grid, strict=True)
        )

    def scores(self, requests: Sequence[ScoreRequest]) -> list[Tensor]:
        def weights(number: int, band: Band) -> Tensor:
            down = self._down[band.pixels, None, band.patches, None]
            values = (down * self._across[None, :, None]).flatten(2).flatten(0, 1)
            return values.expand(len(requests[number].patches), -1, -1)

        return weighted_scores(requests, self._down > 0, self._across > 0, weights)


def _line_weights(pixels: int, patches: int, like: Tensor) -> Tensor:
    """(pixels, patches): each pixel's share of each patch along one axis."""
    identity = torch.eye(patches, device=like.device)[None]
    return F.interpolate(identity, pixels, mode="linear")[0].mT.contiguous()


@upsampler("nearest")
class Nearest(Upsampler):
    """Each pixel has its patch's feature."""

    weightless = True

    def forward(self, patches: Tensor, guidance: Tensor) -> Tensor:
        return F.interpolate(patches, guidance.shape[2:], mode="nearest")

    def prepare(self, guidance: Tensor, grid: tuple[int, int]) -> Prepared:
        return _NearestScores(guidance, grid)


class _NearestScores(Prepared):
    def __init__(self, guidance: Tensor, grid: tuple[int, int]) -> None:
        self._size, self._grid = guidance.shape[2:], grid

    @torch.no_grad()
    def scores(self, requests: Sequence[ScoreRequest]) -> list[Tensor]:
        low = [ask.at_pixels(ask.patches.float()).mT for ask in requests]  # (B, Q, n)
        maps = [scores.reshape(*scores.shape[:2], *self._grid) for scores in low]
        return [F.interpolate(scores, self._size).permute(0, 2, 3, 1) for scores in maps]
