"""SegEarth-OV (Li et al., CVPR 2025): M-SA, upsampled by SimFeatUp, less the global bias.

M-SA(q, k, v) = Σ_{i ∈ {q, k, v}} softmax(iiᵀ/√d)·v (eq. 10): a sum, its rows add up to 3. Residual and FFN
are dropped. Row "SegEarth-OV" of Tables 1 and 2; with `upsampler: none, debias: 0` the baseline of Table 5.
"""

from torch import Tensor

from bench.api import Features, Trunk, attention, last_block, method


@method("segearth-ov", label="SegEarth-OV", venue="CVPR'25", upsampler="simfeatup", debias=0.3)
def segearth_ov(trunk: Trunk) -> Features:
    return last_block(trunk, _m_sa, residual=False, ffn=False)


def _m_sa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (attention(q, q) + attention(k, k) + attention(v, v)) @ v
