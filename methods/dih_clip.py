"""DIH-CLIP (Duan et al., ICCV 2025): SC-CLIP's pipeline without its outliers, with the heads that are surest.

A head is the surer the lower the entropy of its whole attention map. S is the cosine of X₉ plus what the four surest
heads of block 9 (by their q·k map) make of all heads' values with softmax(kkᵀ/√d). In block 12 the maps of the four
surest heads are added, divided by the number of heads, not by four, and applied to all heads' values.

Released code: does not run as it is (its segmenter unpacks two results of a tower that returns one).
"""

import torch

from bench.api import Features, Trunk, attention, merge_heads, method
from bench.methods.sc_clip import calibrated, sharpened, similarities

SUREST = 4


@method("dih-clip", label="DIH-CLIP", venue="ICCV'25")
def dih_clip(trunk: Trunk, heads: int = SUREST) -> Features:
    q, k, v = trunk.qkv(-4)  # CLS takes part here
    sure = surest(attention(q, k), heads)
    mixed = (attention(k, k) * sure).sum(dim=1, keepdim=True) @ v
    tokens = (trunk.input(-3) + merge_heads(trunk, -4, mixed))[:, 1:]

    def weights(q: torch.Tensor, k: torch.Tensor, similarity: torch.Tensor) -> torch.Tensor:
        maps = (attention(k, k) + sharpened(similarity)[:, None]) / 2
        return (maps * surest(maps, heads)).sum(dim=1, keepdim=True) / maps.shape[1]

    return calibrated(trunk, similarities(tokens), trunk.input(-1)[:, 1:], weights, weights)


def surest(maps: torch.Tensor, heads: int) -> torch.Tensor:
    """(B, heads, 1, 1): 1 for the heads of least entropy over their maps (B, heads, N, N), else 0."""
    entropy = -(maps * torch.log2(maps + 1e-6)).sum(dim=(2, 3))
    places = entropy.topk(min(heads, entropy.shape[1]), dim=1, largest=False).indices
    return torch.zeros_like(entropy).scatter(1, places, 1.0)[..., None, None]
