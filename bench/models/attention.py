"""Attention weights inside the tower, which training-free methods replace, and the steps around them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.models.backbone import Features, Trunk

Mix = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(q, k, v) -> what replaces the attention's output before the output projection; all (B, heads, N, d)."""


def attention(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(a·bᵀ/√d + bias), the weights (B, heads, N, N) of one attention map.

    a, b: (B, heads, N, d), e.g. the queries twice for q·q self-attention. bias: added after the scaling.
    """
    scores: Tensor = (a * float(a.shape[-1] ** -0.5)) @ b.transpose(-2, -1)
    return (scores if bias is None else scores + bias).softmax(dim=-1)


def merge_heads(trunk: Trunk, index: int, mixed: Tensor) -> Tensor:
    """(B, heads, N, d) -> (B, N, D) through the output projection (and layer scale) of block `index`."""
    return trunk.merge_heads(index, mixed)


def last_block(trunk: Trunk, mix: Mix, *, residual: bool, ffn: bool) -> Features:
    """Features with the last block's attention replaced by `mix`.

    residual: add the block's input to the attention's output. ffn: pass the sum through the block's
    feed-forward network (with its own residual), as CLIP does. ClearCLIP's finding is that dropping both
    helps.
    """
    tokens = merge_heads(trunk, -1, mix(*trunk.qkv(-1)))
    if residual:
        tokens = trunk.input(-1) + tokens
    if ffn:
        tokens = tokens + trunk.feed_forward(-1, tokens)
    return trunk.project(tokens)


def cosine(trunk: Trunk, patches: Tensor, text: Tensor) -> Tensor:
    """Cosine (B, Q, h, w) of patches (B, h*w, C) with words (Q, C) of unit length, on the grid of the patches."""
    cosines: Tensor = F.normalize(patches, dim=-1) @ text.T  # (B, h*w, Q)
    return cosines.mT.reshape(len(patches), -1, *trunk.grid)


def gaussian(trunk: Trunk, sigma: float) -> Tensor:
    """exp(−‖p_i − p_j‖² / 2σ²) between patch positions, (1 + N, 1 + N), 0 in the row and the column of CLS.

    sigma: in patches. NACLIP adds it to the attention's logits.
    """
    h, w = trunk.grid
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    position = torch.stack([y, x], dim=-1).view(-1, 2).double()  # (N, 2)
    near = torch.exp(-(torch.cdist(position, position) ** 2) / (2 * sigma**2))
    return F.pad(near, (1, 0, 1, 0)).to(trunk.images.device, torch.float32)


def inverse_temperature(trunk: Trunk, index: int) -> Tensor:
    """GEM's, for `self_self` in block `index`: mean norm of the block's normalised input over √d, (B, 1, 1, 1)."""
    norm: Tensor = trunk.blocks[index].ln_1(trunk.input(index)).norm(dim=-1).mean(dim=1)
    return norm[:, None, None, None] * float(trunk.qkv(index)[0].shape[-1] ** -0.5)


def self_self(u: Tensor, inverse_temperature: Tensor, iterations: int = 1) -> Tensor:
    """GEM's self-self attention weights of one of q, k, v (Bousselham et al. 2024, section 3).

    u: (B, heads, N, d). inverse_temperature: broadcastable to (B, heads, N, N). Each iteration replaces the
    normalised u by its average under its own attention. Returns (B, heads, N, N).
    """
    for _ in range(iterations):
        u = F.normalize(u, dim=-1)
        u = F.scaled_dot_product_attention(inverse_temperature * u, u, u, scale=1.0)
    u = F.normalize(u, dim=-1)
    return (inverse_temperature * u @ u.transpose(-2, -1)).softmax(dim=-1)
