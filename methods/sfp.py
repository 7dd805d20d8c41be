"""SFP (Jin et al., ICCV 2025): SC-CLIP with outliers that CLS looks at, and other maps in the last block.

Outliers: of the patches that CLS of block 11 looks at more than (1/1.5 times) they look at themselves, the ten that it
looks at most; one without sound neighbours becomes 0. S is cut below 0.4 before its mean is taken. The first branch has
the map ⅓(softmax(qqᵀ/√d) + softmax(kkᵀ/√d) + that of S), the second that of S alone.

Released code: detection in block 11 only, though the abstract says in each layer; the accumulated attention is computed
and never used.
"""

import torch

from bench.api import Features, Trunk, attention, method
from bench.methods.sc_clip import calibrated, mend, positive, sharpened, similarities


@method("sfp", label="SFP", venue="ICCV'25")
def sfp(trunk: Trunk, outliers: int = 10, factor: float = 1.5) -> Features:
    late = trunk.input(-1)[:, 1:]
    found = looked_at(trunk, outliers, factor)
    similarity = positive(similarities(mend(trunk.input(-3)[:, 1:], found, trunk.grid, without="zero")))
    return calibrated(trunk, similarity, mend(late, found, trunk.grid, without="zero"), _first, _second)


def looked_at(trunk: Trunk, most: int, factor: float) -> torch.Tensor:
    """(B, N) bool: the patches that CLS looks at most in the last block but one."""
    q, k, _ = trunk.qkv(-2)
    weights = attention(q, k).mean(dim=1)  # (B, 1 + N, 1 + N)
    by_cls, by_itself = weights[:, 0, 1:], weights.diagonal(dim1=1, dim2=2)[:, 1:]
    candidates = by_cls.masked_fill(factor * by_cls <= by_itself, -torch.inf)
    value, place = candidates.topk(min(most, candidates.shape[1]), dim=-1)
    found = torch.zeros_like(by_cls, dtype=torch.bool)
    return found.scatter(1, place, value > -torch.inf)


def _first(q: torch.Tensor, k: torch.Tensor, similarity: torch.Tensor) -> torch.Tensor:
    return (attention(q, q) + attention(k, k) + sharpened(similarity)[:, None]) / 3


def _second(q: torch.Tensor, k: torch.Tensor, similarity: torch.Tensor) -> torch.Tensor:
    return sharpened(similarity)[:, None]
