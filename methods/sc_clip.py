"""SC-CLIP (Bai et al., TIP 2025): self-calibrated patches without their outliers.

Only patches take part from block 11 on; CLS is neither query nor key. X_i is the output of block i, counted from 1.

1. Outliers of X₁₁ are the 5 % with the greatest local outlier factor; each becomes the mean of its sound neighbours
   on the grid (`mend`).
2. S is the cosine of the mended X₉, cut below 0.4; its rows average the mended X₁₁ into Y.
3. Block 12 takes Y without residual and FFN, its map ½(softmax(kkᵀ/√d) + softmax of 3(S − mean S) where S > mean S),
   and adds 0.3 CLS. The same is made of the sum of X₄ … X₁₀.
4. Both are averaged by the cosine of X₄, cut below 0.4, added, and projected.

Released code: reach(i, j) of the outlier factor takes the distance of i's 30th neighbour, classically j's; grids that
are not square raise an error there, as rows are computed from the number of rows; here they do not.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from bench.api import Features, Trunk, attention, merge_heads, method

Maps = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(q, k, S) -> attention maps (B, heads, N, N) of the last block."""
NEIGHBOURS = 30  # of the outlier factor
CUT = 0.4  # of similarities
CLS_SHARE = 0.3


@method("sc-clip", label="SC-CLIP", venue="TIP'25")
def sc_clip(trunk: Trunk) -> Features:
    late = trunk.input(-1)[:, 1:]
    outliers = local_outliers(late)  # (B, N)
    similarity = similarities(mend(trunk.input(-3)[:, 1:], outliers, trunk.grid))
    return calibrated(trunk, similarity, mend(late, outliers, trunk.grid), _map, _map)


def calibrated(trunk: Trunk, similarity: torch.Tensor, late: torch.Tensor, first: Maps, second: Maps) -> Features:
    """Compute steps 2 to 4.

    late: (B, N, D), mended
    first, second: attention maps of the two branches
    """
    tokens = average(positive(similarity), late)
    middle = [trunk.input(index) for index in range(trunk.depth - 8, trunk.depth - 1)]  # X₄ … X₁₀ of twelve blocks
    summed = torch.stack(middle).sum(dim=0)
    branches = _branch(trunk, similarity, tokens, trunk.input(-1)[:, :1], first)
    branches = branches + _branch(trunk, similarity, summed[:, 1:], summed[:, :1], second)
    early = positive(similarities(middle[0][:, 1:]))
    cls = trunk.project(trunk.input(trunk.depth)[:, :1]).cls
    return Features(trunk.joint(average(early, branches)), cls)


def _branch(
    trunk: Trunk, similarity: torch.Tensor, tokens: torch.Tensor, cls: torch.Tensor, weights: Maps
) -> torch.Tensor:
    q, k, v = trunk.qkv(-1, tokens)
    return merge_heads(trunk, -1, weights(q, k, similarity) @ v) + CLS_SHARE * cls


def _map(q: torch.Tensor, k: torch.Tensor, similarity: torch.Tensor) -> torch.Tensor:
    return (attention(k, k) + sharpened(similarity)[:, None]) / 2


def sharpened(similarity: torch.Tensor) -> torch.Tensor:
    """softmax of 3(S − mean S) over the entries above the mean, (B, N, N)."""
    centred = similarity - similarity.mean(dim=(1, 2), keepdim=True)
    return (3 * centred).masked_fill(centred <= 0, -torch.inf).softmax(dim=-1)


def similarities(tokens: torch.Tensor) -> torch.Tensor:
    """Cosines (B, N, N) of tokens (B, N, D)."""
    unit = F.normalize(tokens, dim=-1)
    return unit @ unit.mT


def positive(similarity: torch.Tensor) -> torch.Tensor:
    """Similarities that reach the cut, the others 0."""
    return similarity * (similarity >= CUT)


def average(weights: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Tokens averaged by the rows of weights, which need not add up to 1."""
    return (weights / (weights.sum(dim=-1, keepdim=True) + 1e-6)) @ tokens


def local_outliers(tokens: torch.Tensor, neighbours: int = NEIGHBOURS, share: float = 0.05) -> torch.Tensor:
    """(B, N) bool: the share of tokens (B, N, D) with the greatest local outlier factor."""
    factor = outlier_factor(tokens, neighbours)
    return factor > factor.quantile(1 - share, dim=-1, keepdim=True)


def outlier_factor(tokens: torch.Tensor, neighbours: int = NEIGHBOURS) -> torch.Tensor:
    """Local outlier factor (B, N) on squared distances."""
    distance = torch.cdist(tokens, tokens, compute_mode="donot_use_mm_for_euclid_dist") ** 2
    nearest, places = distance.topk(neighbours + 1, dim=-1, largest=False)
    nearest, places = nearest[..., 1:], places[..., 1:]  # without the token itself
    reach = nearest.maximum(nearest[..., -1:])
    density = 1 / reach.mean(dim=-1)  # (B, N)
    around = density[:, None].expand(-1, density.shape[1], -1).gather(2, places)
    return around.mean(dim=-1) / density


def mend(tokens: torch.Tensor, outliers: torch.Tensor, grid: tuple[int, int], without: str = "keep") -> torch.Tensor:
    """Tokens (B, N, D) with each outlier replaced by the mean of its sound neighbours among the eight around it.

    without: what becomes of an outlier that has none: "keep" it, or "zero".
    """
    sound = (~outliers).to(tokens.dtype).view(-1, 1, *grid)
    maps = tokens.mT.reshape(len(tokens), -1, *grid)
    ring = torch.ones(1, 1, 3, 3, device=tokens.device, dtype=tokens.dtype)
    ring[..., 1, 1] = 0
    count = F.conv2d(sound, ring, padding=1)
    total = F.conv2d((maps * sound).flatten(0, 1)[:, None], ring, padding=1).view_as(maps)
    replaced = torch.where(count > 0, total / count.clamp(min=1), maps if without == "keep" else 0 * maps)
    return torch.where(outliers[..., None], replaced.flatten(2).mT, tokens)
