"""A transformer block of open_clip, computed as it defines it and faster on a CPU.

The products are the block's own, with weights that are packed once in the order in which oneDNN reads them.
"""

from __future__ import annotations

import functools
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Heads = tuple[Tensor, Tensor, Tensor]
"""Queries, keys and values, each (B, heads, N, D/heads)."""

_ROWS: Final = 4 * 197  # that packing is told to expect; any number of rows can be multiplied


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
        self._block: Any = block
        attention: Any = block.attn
        network: Any = block.mlp
        self._heads: int = attention.num_heads
        self._into_heads = _Linear(attention.in_proj_weight, attention.in_proj_bias)
        self._out_of_heads = _Linear(attention.out_proj.weight, attention.out_proj.bias)
        self._widen = _Linear(network.c_fc.weight, network.c_fc.bias)
        self._narrow = _Linear(network.c_proj.weight, network.c_proj.bias)

    def qkv(self, tokens: Tensor) -> Heads:
        """Of the block's input (B, N, D)."""
        batch, count, width = tokens.shape
        projected = self._into_heads(self._block.ln_1(tokens))
        q, k, v = projected.view(batch, count, 3, self._heads, width // self._heads).permute(2, 0, 3, 1, 4)
        return q, k, v

    def merge_heads(self, mixed: Tensor) -> Tensor:
        """(B, heads, N, D/heads) -> (B, N, D) through the output projection (and layer scale)."""
        merged: Tensor = self._block.ls_1(self._out_of_heads(mixed.transpose(1, 2).flatten(2)))
        return merged

    def feed_forward(self, tokens: Tensor) -> Tensor:
        """What the feed-forward network (and layer scale) makes of tokens (B, N, D)."""
        hidden = self._block.mlp.gelu(self._widen(self._block.ln_2(tokens)))
        made: Tensor = self._block.ls_2(self._narrow(hidden))
        return made

    def __call__(self, tokens: Tensor, heads: Heads) -> Tensor:
        """The block's output, of its input (B, N, D) and what `qkv` gave of that."""
        tokens = tokens + self.merge_heads(F.scaled_dot_product_attention(*heads))
        return tokens + self.feed_forward(tokens)


class _Linear:
    """x Wᵀ + b with a frozen W (outputs, inputs), computed in the precision of W."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, x: Tensor) -> Tensor:
        if self._packed is None:
            return F.linear(x.to(self._weight.dtype), self._weight, self._bias)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x.contiguous(), self._packed, self._bias, "none", [], "")
        return product

    @functools.cached_property
    def _packed(self) -> Tensor | None:
        """W as oneDNN wants it, or None where it would not help."""
        if self._weight.device.type != "cpu" or self._weight.dtype != torch.float32 or not _can_pack():
            return None
        packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(self._weight.detach(), _ROWS)
        return packed


@functools.cache
def _can_pack() -> bool:
    """Whether this build of torch has the products with packed weights, which its compiler uses."""
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(torch.ones(16, 16), 1)
        product = torch.ops.mkldnn._linear_pointwise(torch.ones(1, 16), packed, None, "none", [], "")
    except (AttributeError, RuntimeError):
        return False
    return bool((product == 16).all())
