"""LoftUp (Huang et al., ICCV 2025): every pixel is a query, a small transformer makes its feature.

Not linear in the features and no mean of them, so there is no faster way than forming all: a slow row. Pixels are sines
and cosines of their coordinates and colours, the colours stretched to −½ … ½ in each channel; the released code takes
the extremes of a whole batch, here of the window. A phase for each frequency and coordinate is stored
as (coordinates, frequencies) and read as (frequencies, coordinates); the weights were trained so.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bench.models.upsamplers.base import Upsampler, upsampler

HEADS, LAYERS = 4, 2
FREQUENCIES, GRID_FREQUENCIES = 20, 5  # of pixels, and of patches
PIXEL_CODE = 2 * 5 * FREQUENCIES + 3  # sine and cosine of two coordinates and three colours, and the colours
PATCH_CODE = 2 * 2 * GRID_FREQUENCIES


class _Waves(nn.Module):
    """Sines and cosines of c channels at geometric frequencies, with learned phases."""

    def __init__(self, channels: int, frequencies: int) -> None:
        super().__init__()
        self.biases = nn.Parameter(torch.zeros(2, channels, frequencies))

    def forward(self, values: Tensor) -> Tensor:
        """(B, c, H, W) -> (B, 2 · frequencies · c, H, W)."""
        _, channels, frequencies = self.biases.shape
        rates = torch.linspace(-2, 10, frequencies).exp().to(values.device)
        angles = rates.view(-1, 1, 1, 1) * values[:, None]  # (B, frequencies, c, H, W)
        sine, cosine = self.biases.view(2, frequencies, channels, 1, 1)
        return torch.cat([(angles + sine).sin().flatten(1, 2), (angles + cosine).cos().flatten(1, 2)], dim=1)


class _ChannelNorm(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(x.movedim(1, -1))
        return normed.movedim(-1, 1)


class _Layer(nn.Module):
    """Cross-attention of pixels to patches and a feed-forward network, both added to what comes in."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm_q, self.norm_kv = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, HEADS, batch_first=True)
        self.net = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Identity(), nn.Linear(hidden, width)
        )

    def forward(self, pixels: Tensor, patches: Tensor) -> Tensor:
        patches = self.norm_kv(patches)
        pixels = pixels + self.attention(self.norm_q(pixels), patches, patches, need_weights=False)[0]
        out: Tensor = pixels + self.net(pixels)
        return out


@upsampler("loftup")
class LoftUp(Upsampler):
    """For features of one width.

    dim: channels C.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        width = dim + PATCH_CODE
        self.channelnorm = _ChannelNorm(dim)
        self.lr_pe = _Waves(2, GRID_FREQUENCIES)
        self.fourier_feat = _Waves(5, FREQUENCIES)
        self.first_conv = nn.Sequential(
            _ChannelNorm(PIXEL_CODE),
            nn.Conv2d(PIXEL_CODE, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.layers = nn.ModuleList(_Layer(width, dim) for _ in range(LAYERS))
        self.norm = nn.LayerNorm(width)
        self.final = nn.Conv2d(width, dim, 1)
        self.final_norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, patches: Tensor, guidance: Tensor) -> Tensor:
        size = guidance.shape[2:]
        low, high = guidance.amin((2, 3), keepdim=True), guidance.amax((2, 3), keepdim=True)
        colours = (guidance - low) / (high - low).clamp_min(1e-4) - 0.5
        waves = self.fourier_feat(torch.cat([_coordinates(guidance), colours], dim=1))
        pixels = self.first_conv(torch.cat([waves, colours], dim=1)).flatten(2).mT
        places = self.lr_pe(_coordinates(patches))
        keys = torch.cat([self.channelnorm(patches), places], dim=1).flatten(2).mT
        for layer in self.layers:
            pixels = layer(pixels, keys)
        code = self.norm(pixels).mT.reshape(len(pixels), -1, *size)
        features: Tensor = self.final_norm(self.final(code).movedim(1, -1))
        return features.movedim(-1, 1)

    @classmethod
    def width_of(cls, state: Mapping[str, Tensor]) -> int | None:
        norm = state.get("channelnorm.norm.weight")
        return None if norm is None else len(norm)

    @classmethod
    def renamed(cls, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        names = {"fourier_feat.1.": "fourier_feat.", "ca_transformer.norm.": "norm.", "final_conv.0.": "final."}
        names |= {"final_conv.1.": "final_norm."}
        for layer in range(LAYERS):
            names[f"ca_transformer.layers.{layer}.0."] = f"layers.{layer}."
            names[f"ca_transformer.layers.{layer}.1."] = f"layers.{layer}."
        found = {}
        for key, value in state.items():
            start = next((theirs for theirs in names if key.startswith(theirs)), "")
            found[names.get(start, "") + key.removeprefix(start)] = value
        return found

    @classmethod
    def recognises(cls, state: Mapping[str, Tensor]) -> bool:
        return "lr_pe.biases" in state


def _coordinates(like: Tensor) -> Tensor:
    """Row and column of each place of maps (B, …, H, W), −1 to 1 from edge to edge: (B, 2, H, W)."""
    lines = [_line(n) for n in like.shape[2:]]
    return torch.stack(torch.meshgrid(*lines, indexing="ij")).to(like.device).expand(len(like), -1, -1, -1)


def _line(n: int) -> Tensor:
    """Values −1 to 1 at n places, as `torch.linspace` rounds them where multiply and add are one instruction.

    Without that instruction (a CPU without AVX, a GPU) it differs in the last bit, which the highest frequency, e¹⁰,
    makes a thousandth of a radian.
    """
    step = torch.tensor(2 / max(n - 1, 1), dtype=torch.float32).double()
    rising = step * torch.arange(n) - 1
    return torch.where(torch.arange(n) < max(n // 2, 1), rising, -rising.flip(0)).float()
