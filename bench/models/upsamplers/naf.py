"""NAF (Chambon et al., arXiv 2511.18452): pixels attend to the 9×9 patches around them, by the image alone.

Four heads, each of which weighs a quarter of the channels; so, like JBU, it is linear in the features. The released
weights are for any backbone. Neighbourhoods are shifted inside at the borders, as in NATTEN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import BenchError
from bench.models.upsamplers.base import Scorer, ScoreRequest, Upsampler, upsampler
from bench.models.upsamplers.encoders import (
    HEADS,
    attention_in_sight,
    convolution,
    encoder,
    in_sight,
    joined,
    points,
    rotated,
    split,
)
from bench.models.upsamplers.logits import bands
from bench.runtime.timing import stage

WIDTH, NEIGHBOURS = 64, 9


class _ImageEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        half = HEADS * WIDTH // 2
        self.encoder = encoder(convolution(3, half, 1, bias=True), half, 1, residual=False)
        self.sem_encoder = encoder(convolution(3, half, 3, bias=True), half, 3, residual=False)
        self.rope = nn.Module()
        self.rope.register_buffer("periods", 100.0 ** (torch.arange(WIDTH // 4) / (WIDTH // 4)))

    def forward(self, guidance: Tensor) -> Tensor:
        """(B, 3, H, W) -> queries (B, heads, H * W, width), rotated by their place in the image."""
        code = torch.cat([self.encoder(guidance), self.sem_encoder(guidance)], dim=1)
        height, width = guidance.shape[2:]
        centres = [(torch.arange(n, device=code.device) + 0.5) / n * 2 - 1 for n in (height, width)]
        angles = (2 * math.pi * points(*centres)[:, :, None] / self.rope.get_buffer("periods")).flatten(1).tile(2)
        return rotated(split(code.flatten(2).mT), angles)


@upsampler("naf")
class Naf(Upsampler):
    """Softmax of q·k/8 over 9×9 patches, for each of four heads."""

    statistics = "imagenet"

    def __init__(self) -> None:
        super().__init__()
        self.image_encoder = _ImageEncoder()

    def forward(self, patches: Tensor, guidance: Tensor) -> Tensor:
        size, grid = guidance.shape[2:], patches.shape[2:]
        queries, keys = self.queries_and_keys(guidance, (grid[0], grid[1]))
        rows, columns = neighbourhoods(guidance, (grid[0], grid[1]))
        weights = attention_in_sight(queries, keys, in_sight(rows, columns))  # (B, heads, H * W, h * w)
        heads = split(patches.flatten(2).mT)
        return joined(weights @ heads).mT.reshape(*patches.shape[:2], *size)

    def prepare(self, guidance: Tensor, grid: tuple[int, int]) -> Scorer:
        with stage("operator"):
            queries, keys = self.queries_and_keys(guidance, grid)
            rows, columns = neighbourhoods(guidance, grid)
            queries, keys = torch.unflatten(queries, 2, guidance.shape[2:]), torch.unflatten(keys, 2, grid)

        @torch.no_grad()
        def scores(requests: Sequence[ScoreRequest]) -> list[Tensor]:
            heads = [torch.unflatten(split(ask.patches.float()), 2, grid) for ask in requests]
            found: list[list[Tensor]] = [[] for _ in requests]
            for band in bands(rows, columns):
                with stage("operator"):
                    asking, asked = queries[:, :, band.pixels], keys[:, :, band.patches]
                    weights = attention_in_sight(asking.flatten(2, 3), asked.flatten(2, 3), band.mask)
                with stage("scores"):
                    for ask, values, parts in zip(requests, heads, found, strict=True):
                        cosines = ask.at_pixels(joined(weights @ values[:, :, band.patches].flatten(2, 3)))
                        parts.append(torch.unflatten(cosines, 1, (-1, len(columns))))
            return [torch.cat(parts, dim=1) for parts in found]

        return scores

    def queries_and_keys(self, guidance: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """(B, heads, H * W, width) and (B, heads, h * w, width): keys are the means of a patch's queries."""
        queries: Tensor = self.image_encoder(guidance.float())
        code = joined(queries).mT.reshape(len(queries), -1, *guidance.shape[2:])
        return queries, split(F.adaptive_avg_pool2d(code, grid).flatten(2).mT)

    @classmethod
    def recognises(cls, state: Mapping[str, Tensor]) -> bool:
        return "image_encoder.rope.periods" in state


def neighbourhoods(guidance: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return which patches a pixel sees, down (H, h) and across (W, w). BenchError where there are too few."""
    found = []
    for pixels, patches in zip(guidance.shape[2:], grid, strict=True):
        if patches < NEIGHBOURS or pixels % patches:
            raise BenchError(
                f"naf needs at least {NEIGHBOURS} x {NEIGHBOURS} patches of whole pixels, not {grid[0]} x {grid[1]} on "
                f"{guidance.shape[2]} x {guidance.shape[3]} pixels; use larger windows or another upsampler"
            )
        own = torch.arange(pixels, device=guidance.device) // (pixels // patches)
        first = (own - NEIGHBOURS // 2).clamp(0, patches - NEIGHBOURS)[:, None]
        each = torch.arange(patches, device=guidance.device)
        found.append((each >= first) & (each < first + NEIGHBOURS))
    return found[0], found[1]
