"""NACLIP (Hajimiri et al., WACV 2025): k·k attention with a Gaussian over neighbouring patches.

A = softmax(kkᵀ/√d + G), G_ij = exp(−‖p_i − p_j‖² / 2σ²) between patch positions, 0 in the row and the column
of CLS. σ = 5 in NACLIP's own code, 1 in the copy inside SegEarth-OV's. Residual and FFN are dropped. In no
table of the paper.
"""

from bench.api import Features, Trunk, attention, gaussian, last_block, method


@method("naclip", label="NACLIP", venue="WACV'25")
def naclip(trunk: Trunk, sigma: float = 5.0) -> Features:
    bias = gaussian(trunk, sigma)
    return last_block(trunk, lambda q, k, v: attention(k, k, bias) @ v, residual=False, ffn=False)
