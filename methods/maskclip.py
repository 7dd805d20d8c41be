"""MaskCLIP (Zhou et al., ECCV 2022): the last attention is dropped, each patch keeps its own value.

out = out_proj(v). Row "MaskCLIP" of Tables 1, 2, 4 and 6. Residual and FFN are dropped.
"""

from bench.api import Features, Trunk, last_block, method


@method("maskclip", label="MaskCLIP", venue="ECCV'22")
def maskclip(trunk: Trunk) -> Features:
    return last_block(trunk, lambda q, k, v: v, residual=False, ffn=False)
