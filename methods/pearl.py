"""PEARL (CVPR 2026): keys are turned onto the queries (Procrustes), and scores propagate over the whole image.

Last block, per head: with weights ‖q_i‖ (CLS 0) the means q̄ and k̄; M = (k − k̄)ᵀ(q − q̄); R = M(MᵀM)^(−1/2) by five
coupled Newton–Schulz steps; A = softmax(q(kR)ᵀ/√d + α(k − k̄)(k − k̄)ᵀ/√d). Residual and FFN are dropped.

Released code: five steps do not converge, so R is not quite a rotation; α is 0.08, on ADE20K 0.3.
"""

import torch

from bench.api import Features, Trunk, last_block, method


@method("pearl", label="PEARL", venue="CVPR'26")
def pearl(trunk: Trunk, alpha: float = 0.08, steps: int = 5) -> Features:
    def mix(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        weights = q.norm(dim=-1, keepdim=True)  # (B, heads, N, 1)
        weights = torch.cat([torch.zeros_like(weights[:, :, :1]), weights[:, :, 1:]], dim=2)
        weights = weights / weights.sum(dim=2, keepdim=True)
        centred_q, centred_k = (x - (weights * x).sum(dim=2, keepdim=True) for x in (q, k))
        rotation = procrustes(centred_k.mT @ centred_q, steps)
        scale = q.shape[-1] ** -0.5
        scores = scale * (q @ (k @ rotation).mT + alpha * centred_k @ centred_k.mT)
        return scores.softmax(dim=-1) @ v

    return last_block(trunk, mix, residual=False, ffn=False)


def procrustes(matrix: torch.Tensor, steps: int) -> torch.Tensor:
    """M(MᵀM)^(−1/2) of matrices (…, d, d) by coupled Newton–Schulz steps."""
    gram = matrix.mT @ matrix
    norm = gram.norm(dim=(-2, -1), keepdim=True)
    identity = torch.eye(gram.shape[-1], device=gram.device, dtype=gram.dtype)
    root, inverse = gram / norm + 1e-6 * identity, identity.expand_as(gram)
    for _ in range(steps):
        step = (3 * identity - inverse @ root) / 2
        root, inverse = root @ step, step @ inverse
    return matrix @ inverse / norm.sqrt()
