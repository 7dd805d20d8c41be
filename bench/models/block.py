"""A transformer block of open_clip, computed as it defines it, its halves callable apart."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

Heads = tuple[Tensor, Tensor, Tensor]
"""Queries, keys and values, each (B, heads, N, D/heads)."""


def lower_precision(visual: nn.Module, dtype: torch.dtype) -> None:
    """Has all blocks of a tower but the last multiply in `dtype`, float16 or bfloat16.

    What is added up from block to block, layer norms and the last block, on which the methods differ, stay float32: a
    tower that is half precision throughout changes two to three times as many labels.
    """
    tower: Any = visual
    for block in tower.transformer.resblocks[:-1]:
        for module in block.modules():
            if isinstance(module, nn.Linear | nn.MultiheadAttention):
                for parameter in module.parameters(recurse=False):
                    parameter.data = parameter.data.to(dtype)


class Block:
    """One frozen `ResidualAttentionBlock`, its two halves callable apart."""

    def __init__(self, block: nn.Module) -> None:
        whole: Any = block
        self._block = whole
        self._heads: int = whole.attn.num_heads

    def qkv(self, tokens: Tensor) -> Heads:
        """Return queries, keys and values of the block's input (B, N, D)."""
        batch, count, width = tokens.shape
        attention = self._block.attn
        projected = _linear(self._block.ln_1(tokens), attention.in_proj_weight, attention.in_proj_bias)
        q, k, v = projected.view(batch, count, 3, self._heads, width // self._heads).permute(2, 0, 3, 1, 4)
        return q, k, v

    def merge_heads(self, mixed: Tensor) -> Tensor:
        """(B, heads, N, D/heads) -> (B, N, D) through the output projection (and layer scale)."""
        out = self._block.attn.out_proj
        merged: Tensor = self._block.ls_1(_linear(mixed.transpose(1, 2).flatten(2), out.weight, out.bias))
        return merged

    def feed_forward(self, tokens: Tensor) -> Tensor:
        """Return the feed-forward network (and layer scale) of tokens (B, N, D), without its residual."""
        network = self._block.mlp
        quick = isinstance(network.gelu, QuickGELU)  # x σ(1.702 x): one pass where products bring and take its factor
        activation, factor = (F.silu, 1.702) if quick else (network.gelu, 1.0)
        hidden = activation(_linear(self._block.ln_2(tokens), network.c_fc.weight, factor * network.c_fc.bias, factor))
        made: Tensor = self._block.ls_2(_linear(hidden, network.c_proj.weight, network.c_proj.bias, 1 / factor))
        return made

    def __call__(self, tokens: Tensor, heads: Heads) -> Tensor:
        """Return the block's output for its input (B, N, D), given `qkv` of that."""
        tokens = tokens + self.merge_heads(F.scaled_dot_product_attention(*heads))
        return tokens + self.feed_forward(tokens)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, factor: float = 1.0) -> Tensor:
    """factor · x Wᵀ + b, computed in the precision of W."""
    x = x.to(weight.dtype)
    if bias is None or factor == 1:
        return F.linear(x, weight, bias)
    return torch.unflatten(torch.addmm(bias, x.flatten(0, -2), weight.T, alpha=factor), 0, x.shape[:-1])
