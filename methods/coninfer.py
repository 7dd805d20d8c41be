"""ConInfer (CVPR 2026 Findings), its mixture within one image: patches of a second model agree on what the words mean.

p = softmax(100·cos) of each patch over the words. A mixture of Gaussians over DINOv3's unit tokens, one for each word:
means from the eight patches that are surest of the word, then ten rounds of z ∝ p·exp(log-likelihood / T), means = unit
means under z, one diagonal variance for all. The posterior z is the score, times 5.

Of the authors' code the mixture meets its output. It fits 50 images in the order of their files together, squeezed to
448×448 and without windows, so that a result depends on its neighbours; here it is fitted to the windows of one image,
which changes results. Their attention, 3·((1 − a)·M-SA + a·A) with the attention A of every third block, is from its
description, A as a mean over blocks; there is no output of it to compare with. T is 150 on iSAID, else 50.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.api import Box, Share, Trunk, WholeImage, attention, last_block, method

SHARPNESS, SUREST, ROUNDS = 100.0, 8, 10


@method("coninfer", label="ConInfer (one image)", venue="CVPR'26", models={"vfm": "dinov3-vitl16-sat"}, scale=5.0)
class ConInfer:
    def __init__(self, blocks: Share = 0.6, temperature: float = 50.0) -> None:
        self.blocks, self.temperature = blocks, temperature

    def collect(self, image: WholeImage) -> "_Windows":
        return _Windows(self, image)


class _Windows:
    def __init__(self, options: ConInfer, image: WholeImage) -> None:
        self._options = options
        self._patches: list[Tensor] = []
        self._tokens: list[Tensor] = []
        self._grid = (0, 0)

    def add(self, trunk: Trunk, boxes: Sequence[Box]) -> None:
        second = trunk.second("vfm")
        own = _features(trunk, self._options.blocks).mT.unflatten(2, trunk.grid)
        if second.grid != trunk.grid:
            own = F.interpolate(own, size=second.grid, mode="bilinear")
        self._patches += F.normalize(own.flatten(2).mT, dim=-1)
        self._tokens += F.normalize(second.tokens, dim=-1)
        self._grid = second.grid

    def scores(self, text: Tensor) -> Tensor:
        """(W, Q, h, w): the posterior on the patches of each window."""
        cosine = torch.cat(self._patches) @ text.T
        found = posterior(torch.cat(self._tokens), cosine, self._options.temperature)
        return found.view(len(self._tokens), -1, len(text)).mT.unflatten(2, self._grid)


def _features(trunk: Trunk, share: float) -> Tensor:
    """Patches (B, N, C) under M-SA mixed with the attention of blocks 2, 5, 8 and 11."""
    earlier = [attention(*trunk.qkv(block)[:2]) for block in range(2, trunk.depth, 3)] if share else []

    def mix(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = (1 - share) * (attention(q, q) + attention(k, k) + attention(v, v))
        if earlier:
            weights = weights + 3 * share * torch.stack(earlier).mean(dim=0)
        return weights @ v

    return last_block(trunk, mix, residual=False, ffn=False).patches


def posterior(features: Tensor, cosine: Tensor, temperature: float) -> Tensor:
    """(n, Q) of the mixture over unit features (n, D), whose words have cosines (n, Q)."""
    x, prior = features.double(), (SHARPNESS * cosine.double()).softmax(dim=-1)
    surest = prior.topk(min(SUREST, len(x)), dim=0).indices  # (8, Q)
    mean = F.normalize(x[surest].mean(dim=0), dim=-1)  # (Q, D)
    variance = torch.full_like(x[0], 1 / x.shape[1])
    found = prior
    for _ in range(ROUNDS):
        likelihood = -0.5 * torch.cdist(x / variance.sqrt(), mean / variance.sqrt()) ** 2  # but for a constant
        found = (prior.log() + likelihood / temperature).softmax(dim=-1)
        mass = found.sum(dim=0).clamp_min(1e-12)
        mean = F.normalize(found.T @ x / mass[:, None], dim=-1)
        spread = found.sum(dim=1) @ x**2 - 2 * ((found.T @ x) * mean).sum(dim=0) + mass @ mean**2
        variance = (spread / len(x)).clamp_min(1e-12)
    return found.float()
