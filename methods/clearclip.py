"""ClearCLIP (Lan et al., ECCV 2024): q·q self-attention in the last block, residual and FFN dropped.

A = softmax(qqᵀ/√d). Row "ClearCLIP" of Tables 1, 2, 4 and 6.
"""

from bench.api import Features, Trunk, attention, last_block, method


@method("clearclip", label="ClearCLIP", venue="ECCV'24")
def clearclip(trunk: Trunk) -> Features:
    return last_block(trunk, lambda q, k, v: attention(q, q) @ v, residual=False, ffn=False)
