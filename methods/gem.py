"""GEM (Bousselham et al., CVPR 2024): a parallel stream of self-self attention through the last six blocks.

In each of them q, k and v of the ordinary stream are smoothed by their own attention; the three resulting
maps weigh v and the results are averaged. The inverse temperature is the mean norm of the block's normalised
input over √d, one value an image. The stream never passes an FFN. The released SegEarth-OV configuration also
drops its residual, so only the last block matters; GEM's own default keeps it: `options: {residual: keep}`.
Row "GEM" of Tables 1 and 2.

The position embedding is resampled with antialiasing here (GEM's own code), unlike in the other methods. GEM
has no own CLS; for λ ≠ 0 the ordinary stream's CLS is used, which the released code cannot do at all.
"""

from typing import Literal

import torch

from bench.api import Features, Trunk, inverse_temperature, merge_heads, method, self_self


@method("gem", label="GEM", venue="CVPR'24")
def gem(trunk: Trunk, residual: Literal["keep", "drop"] = "drop", blocks: int = 6) -> Features:
    trunk = trunk.antialiased
    first = trunk.depth - blocks if residual == "keep" else trunk.depth - 1
    stream = trunk.input(first)
    for index in range(first, trunk.depth):
        branch = _self_self_branch(trunk, index)
        stream = stream + branch if residual == "keep" else branch
    return Features(trunk.project(stream).patches, trunk.project(trunk.input(trunk.depth)[:, :1]).cls)


def _self_self_branch(trunk: Trunk, index: int) -> torch.Tensor:
    q, k, v = trunk.qkv(index)
    heat = inverse_temperature(trunk, index)
    weights = self_self(q, heat)
    for u in (k, v):
        weights += self_self(u, heat)
    return merge_heads(trunk, index, weights @ v / 3)
