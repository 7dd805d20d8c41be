"""SCLIP (Wang et al. 2023): correlative self-attention in the last block.

A = softmax(qqᵀ/√d) + softmax(kkᵀ/√d): a sum, its rows add up to 2. Row "SCLIP" of Tables 1, 2, 4 and 6. The
released SegEarth-OV code drops residual and FFN; SCLIP's own code keeps both: `options: {residual: keep}`.
"""

from typing import Literal

from bench.api import Features, Trunk, attention, last_block, method


@method("sclip", label="SCLIP", venue="arXiv'23")
def sclip(trunk: Trunk, residual: Literal["keep", "drop"] = "drop") -> Features:
    keep = residual == "keep"
    return last_block(trunk, lambda q, k, v: (attention(q, q) + attention(k, k)) @ v, residual=keep, ffn=keep)
