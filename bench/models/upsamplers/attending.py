"""AnyUp (Wimmer et al., ICLR 2026) and JAFAR (Couairon et al., arXiv 2506.11136): pixels attend to patches.

Queries come from the image, keys from image and features; a pixel's feature is the mean over four heads of its
attention, times the features as they are. So weights are a row's own, but its scores need no pixel features.

AnyUp looks at patches within a tenth of the image's side, JAFAR at all. AnyUp's code reads the correlations of
channels and filters in another order than its paper says; the released weights were trained so, and so it is here.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.models.upsamplers.base import Scorer, ScoreRequest, Upsampler, upsampler
from bench.models.upsamplers.encoders import attention_in_sight, convolution, encoder, in_sight, points, rotated, split
from bench.models.upsamplers.logits import Band, weighted_scores
from bench.runtime.timing import stage

WIDTH = 128
REACH = 0.1  # of the image's side, in which AnyUp's pixels see patches
FILTER = 5  # pixels of AnyUp's filters on the features

# Names of released checkpoints -> names of the modules here. What their code holds and never uses is left out.
_NAMES = {
    ".block.0.": ".norm1.",
    ".block.2.": ".conv1.",
    ".block.3.": ".norm2.",
    ".block.5.": ".conv2.",
    "cross_decode.conv2d.": "mix.",
    "cross_decode.cross_attn.": "",
    "attention.": "",
    "sft_key.": "",
}
_UNUSED = ("out_proj.", "v_proj_weight", "norm_v.")


class Attending(Upsampler):
    """Base class of AnyUp and JAFAR."""

    def __init__(self) -> None:
        super().__init__()
        self.image_encoder = encoder(convolution(3, WIDTH, 1), WIDTH)
        self.query_encoder = encoder(convolution(WIDTH, WIDTH, 1), WIDTH)
        self.key_encoder = encoder(convolution(WIDTH, WIDTH, 1), WIDTH)
        quarter = 2 * math.pi * 100.0 ** -torch.linspace(0, 1, WIDTH // 4)
        half, none = torch.cat([quarter, quarter]), torch.zeros(WIDTH // 2)
        self.rope = nn.Module()  # radians a unit of length: half of the channels turn by the row, half by the column
        self.rope.register_buffer("freqs", torch.stack([torch.cat([half, none]), torch.cat([none, half])]))
        self.mix = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)
        self.norm_q, self.norm_k = nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)
        self.q, self.k = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, patches: Tensor, guidance: Tensor) -> Tensor:
        code = self.code(guidance)
        rows, columns = self.sees(guidance, (patches.shape[2], patches.shape[3]))
        weights = attention_in_sight(self.queries(code), self.keys(code, patches), in_sight(rows, columns))
        weights = weights.mean(dim=1)  # (B, H * W, h * w)
        return (weights @ patches.flatten(2).mT).mT.reshape(*patches.shape[:2], *guidance.shape[2:])

    def prepare(self, guidance: Tensor, grid: tuple[int, int]) -> Scorer:
        with stage("operator"):
            code = self.code(guidance.float())
            rows, columns = self.sees(guidance, grid)
            queries = _on_grid(self.queries(code), guidance.shape[2:])

        @torch.no_grad()
        def scores(requests: Sequence[ScoreRequest]) -> list[Tensor]:
            with stage("operator"):
                maps = [ask.patches.float().mT for ask in requests]
                maps = [patches.reshape(*patches.shape[:2], *grid) for patches in maps]
                keys = [_on_grid(self.keys(code, patches), grid) for patches in maps]

            def weights(number: int, band: Band) -> Tensor:
                pixels, patches = queries[:, :, band.pixels], keys[number][:, :, band.patches]
                return attention_in_sight(pixels.flatten(2, 3), patches.flatten(2, 3), band.mask).mean(dim=1)

            return weighted_scores(requests, rows, columns, weights)

        return scores

    def code(self, guidance: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 128, H, W), rotated by the place in the image, 0 to 1 from edge to edge."""
        code = self.image_encoder(guidance)
        lines = [torch.linspace(0, 1, size, device=code.device) for size in guidance.shape[2:]]
        angles = points(*lines) @ self.rope.get_buffer("freqs")
        return rotated(code.flatten(2).mT, angles).mT.reshape(code.shape)

    def queries(self, code: Tensor) -> Tensor:
        """(B, heads, H * W, 32)."""
        return split(self.q(self.norm_q(self.mix(self.query_code(code)).flatten(2).mT)))

    def keys(self, code: Tensor, patches: Tensor) -> Tensor:
        """(B, heads, h * w, 32) for features (B, C, h, w)."""
        grid = (patches.shape[2], patches.shape[3])
        pooled = F.adaptive_avg_pool2d(self.key_encoder(code), grid)
        return split(self.k(self.norm_k(self.with_features(pooled, patches).flatten(2).mT)))

    def query_code(self, code: Tensor) -> Tensor:
        """Return the code that queries are made of, (B, 128, H, W)."""
        encoded: Tensor = self.query_encoder(code)
        return encoded

    @abstractmethod
    def with_features(self, pooled: Tensor, patches: Tensor) -> Tensor:
        """Keys of the image (B, 128, h, w) and features (B, C, h, w) -> (B, 128, h, w)."""

    @abstractmethod
    def sees(self, guidance: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return which patches a pixel sees, down (H, h) and across (W, w)."""

    @classmethod
    def renamed(cls, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Name a released checkpoint's tensors as the modules here; its joint projection is cut into q and k."""
        found: dict[str, Tensor] = {}
        for key, value in state.items():
            for theirs, ours in _NAMES.items():
                key = key.replace(theirs, ours)
            if key.startswith("in_proj_"):
                part = key.removeprefix("in_proj_")
                found[f"q.{part}"], found[f"k.{part}"] = value[:WIDTH], value[WIDTH : 2 * WIDTH]
            elif key in ("q_proj_weight", "k_proj_weight"):
                found[f"{key[0]}.weight"] = value
            elif not key.startswith(_UNUSED):
                found[key] = value
        return found


def _on_grid(heads: Tensor, size: Sequence[int]) -> Tensor:
    return heads.reshape(*heads.shape[:2], *size, heads.shape[3])


@upsampler("anyup")
class AnyUp(Attending):
    """For features of any width: channels are brought to 128 by what filters make of each of them."""

    statistics = "imagenet"

    def __init__(self) -> None:
        super().__init__()
        self.key_features_encoder = encoder(_Unification(), WIDTH)
        self.aggregation = encoder(convolution(2 * WIDTH, WIDTH, 3), WIDTH)

    def with_features(self, pooled: Tensor, patches: Tensor) -> Tensor:
        features = self.key_features_encoder(F.normalize(patches, dim=1))
        joined: Tensor = self.aggregation(torch.cat([pooled, features], dim=1))
        return joined

    def sees(self, guidance: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        found = []
        for pixels, patches in zip(guidance.shape[2:], grid, strict=True):
            centre = (torch.arange(pixels, device=guidance.device) + 0.5)[:, None] / pixels
            each = torch.arange(patches, device=guidance.device)
            found.append((each >= ((centre - REACH) * patches).floor()) & (each < ((centre + REACH) * patches).ceil()))
        return found[0], found[1]

    @classmethod
    def recognises(cls, state: Mapping[str, Tensor]) -> bool:
        return "key_features_encoder.0.basis" in state


class _Unification(nn.Module):
    """Features (B, C, h, w) of any width -> (B, 128, h, w): each channel correlated with 128 filters, softmax, mean."""

    def __init__(self) -> None:
        super().__init__()
        self.basis = nn.Parameter(torch.zeros(WIDTH, 1, FILTER, FILTER))

    def forward(self, features: Tensor) -> Tensor:
        """As released: the maps, channel-major, are read as (128, C) before softmax and mean."""
        batch, channels, height, width = features.shape
        one = features.new_ones(1, 1, FILTER, FILTER)
        inside = F.conv2d(features.new_ones(1, 1, height, width), one, padding=FILTER // 2)  # taps inside the image
        maps = F.conv2d(features.reshape(-1, 1, height, width), self.basis, padding=FILTER // 2) / inside
        return maps.reshape(batch, WIDTH, channels, height, width).softmax(dim=1).mean(dim=2)


@upsampler("jafar")
class Jafar(Attending):
    """For features of one width: their code scales and shifts the keys of the image.

    dim: channels C.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.key_features_encoder = encoder(convolution(dim, WIDTH, 1), WIDTH)
        self.gamma, self.beta = convolution(WIDTH, WIDTH, 1), convolution(WIDTH, WIDTH, 1)

    def query_code(self, code: Tensor) -> Tensor:
        return F.group_norm(super().query_code(code), 8)

    def with_features(self, pooled: Tensor, patches: Tensor) -> Tensor:
        features = self.key_features_encoder(F.normalize(patches, dim=1))
        keys: Tensor = self.gamma(features) * F.group_norm(pooled, 8) + self.beta(features)
        return keys

    def sees(self, guidance: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        down, across = (
            torch.ones(pixels, patches, dtype=torch.bool, device=guidance.device)
            for pixels, patches in zip(guidance.shape[2:], grid, strict=True)
        )
        return down, across

    @classmethod
    def width_of(cls, state: Mapping[str, Tensor]) -> int | None:
        first = state.get("key_features_encoder.0.weight")
        return None if first is None else first.shape[1]

    @classmethod
    def recognises(cls, state: Mapping[str, Tensor]) -> bool:
        return any(key.endswith("gamma.weight") for key in state)
