"""ProxyCLIP (Lan et al., ECCV 2024): CLIP's last attention replaced by how alike a second model finds the patches.

F: unit tokens of the second model, S = F·Fᵀ, S' = γ·(S − β·mean(S)). A = softmax over the patches j with S'_ij ≥ 0
(eq. 4 to 6), the same for all heads. It weighs CLIP's values, enlarged bilinearly to the second model's grid; CLS takes
no part, residual and FFN are dropped. The mean is taken in each window, so that no result depends on the batch.

The released code is right for square windows only, and gives NaN where a window is of one colour, since then no S' is
positive: here a patch always keeps the patches that are most like it. λ acts on CLIP's own CLS, of which the paper says
nothing. Models: DINO B/8 by default; the paper also has DINOv2 with registers and SAM.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.api import Features, Trunk, method


@method("proxyclip", label="ProxyCLIP", venue="ECCV'24", models={"vfm": "dino-vitb8"})
def proxyclip(trunk: Trunk, beta: float = 1.2, gamma: float = 3.0) -> Features:
    second = trunk.second("vfm")
    tokens = F.normalize(second.tokens, dim=-1)
    likeness = tokens @ tokens.mT  # (B, N, N)
    weights = affinity(likeness, likeness.mean(dim=(1, 2), keepdim=True), beta, gamma)
    value = values_on(trunk, second.grid)
    heads = trunk.qkv(-1)[2].shape[1]
    mixed = (weights @ value).unflatten(2, (heads, -1)).transpose(1, 2)  # (B, heads, N, D/heads)
    patches = trunk.joint(trunk.merge_heads(-1, mixed))
    return Features(patches, trunk.project(trunk.input(trunk.depth)).cls, second.grid)


def affinity(likeness: Tensor, mean: Tensor, beta: float, gamma: float) -> Tensor:
    """Weights (…, N, N) of patches whose cosine (…, N, N) is above β·mean, or as great as any of the row."""
    centred = gamma * (likeness - beta * mean)
    kept = (centred >= 0) | (centred == centred.amax(dim=-1, keepdim=True))
    return centred.masked_fill(~kept, -torch.inf).softmax(dim=-1)


def values_on(trunk: Trunk, grid: tuple[int, int]) -> Tensor:
    """CLIP's values in the last block, all heads side by side, on another grid: (B, h*w, D)."""
    value = trunk.qkv(-1)[2][:, :, 1:].transpose(1, 2).flatten(2)  # (B, N, D)
    if grid == trunk.grid:
        return value
    maps = value.mT.unflatten(2, trunk.grid)
    return F.interpolate(maps, size=grid, mode="bilinear").flatten(2).mT
