"""Upsamplers without weights, to compare learned ones with: bilinear and nearest enlargement of the features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.models.upsamplers.base import Scorer, ScoreRequest, Upsampler, upsampler
from bench.models.upsamplers.logits import Band, weighted_scores


@upsampler("bilinear")
class Bilinear(Upsampler):
    """Features between the patches' centres, two a direction. Without upsampler it is the scores that are enlarged."""

    weightless = True

    def forward(self, patches: Tensor, guidance: Tensor) -> Tensor:
        return F.interpolate(patches, guidance.shape[2:], mode="bilinear")

    def prepare(self, guidance: Tensor, grid: tuple[int, int]) -> Scorer:
        down, across = (  # (pixels, patches): each pixel's share of each patch along an axis
            F.interpolate(torch.eye(patches, device=guidance.device)[None], pixels, mode="linear")[0].mT.contiguous()
            for pixels, patches in zip(guidance.shape[2:], grid, strict=True)
        )

        def scores(requests: Sequence[ScoreRequest]) -> list[Tensor]:
            def weights(number: int, band: Band) -> Tensor:
                values = down[band.pixels, None, band.patches, None] * across[None, :, None]
                return values.flatten(2).flatten(0, 1).expand(len(requests[number].patches), -1, -1)

            return weighted_scores(requests, down > 0, across > 0, weights)

        return scores


@upsampler("nearest")
class Nearest(Upsampler):
    """Each pixel has its patch's feature."""

    weightless = True

    def forward(self, patches: Tensor, guidance: Tensor) -> Tensor:
        return F.interpolate(patches, guidance.shape[2:], mode="nearest")

    def prepare(self, guidance: Tensor, grid: tuple[int, int]) -> Scorer:
        @torch.no_grad()
        def scores(requests: Sequence[ScoreRequest]) -> list[Tensor]:
            low = [torch.unflatten(ask.at_pixels(ask.patches.float()).mT, 2, grid) for ask in requests]  # (B, Q, h, w)
            return [F.interpolate(maps, guidance.shape[2:]).permute(0, 2, 3, 1) for maps in low]

        return scores
