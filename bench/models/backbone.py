"""A frozen open_clip ViT, and what it computes of a batch of windows, shared by all methods."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn

from bench.errors import BenchError
from bench.models.block import Block, Heads
from bench.runtime.device import exact_float32

# CLIP's normalisation on the 0..255 scale, rounded as in the released configuration.
PIXEL_MEAN = (122.771, 116.746, 104.094)
PIXEL_STD = (68.501, 66.632, 70.323)


class Features(NamedTuple):
    """What a method makes of a batch of windows, in the joint image-text space, not normalised.

    patches: (B, h*w, C), row-major. cls: (B, C), or None where the method has no such token (then λ must be
    0).
    """

    patches: Tensor
    cls: Tensor | None


class Trunk:
    """The frozen image tower on one batch of windows.

    The input of each block is computed on demand and remembered for as long as the batch lives, so all
    methods that look at the same windows pay for the blocks once. Tokens are (B, 1 + h*w, D) with CLS first.
    """

    def __init__(self, visual: nn.Module, blocks: Sequence[Block], images: Tensor, antialias: bool = False) -> None:
        """blocks: of `visual`. images: (B, 3, H, W) normalised, H and W multiples of the patch size. antialias: see
        `antialiased`.
        """
        self.visual: Any = visual
        self.images = images
        tower: Any = visual
        self.blocks: Any = tower.transformer.resblocks
        self.depth = len(self.blocks)
        self._computed = blocks
        patch_h, patch_w = tower.patch_size
        self.grid = (images.shape[2] // patch_h, images.shape[3] // patch_w)
        self._antialias = antialias
        self._inputs: list[Tensor] = []
        self._qkv: dict[int, Heads] = {}

    def input(self, index: int = -1) -> Tensor:
        """Input of block `index`, (B, N, D). Negative counts from the last block; `depth` is the tower's output."""
        index = index + self.depth if index < 0 else index
        if not self._inputs:
            self._inputs.append(self._embed())
        while len(self._inputs) <= index:
            number, tokens = len(self._inputs) - 1, self._inputs[-1]
            # Only those of the last block are sure to be asked for again, and worth the memory.
            heads = self.qkv(number) if number == self.depth - 1 else self._computed[number].qkv(tokens)
            self._inputs.append(self._computed[number](tokens, heads))
        return self._inputs[index]

    def qkv(self, index: int = -1) -> Heads:
        """Queries, keys and values of block `index`, each (B, heads, N, D/heads) float32."""
        index = index + self.depth if index < 0 else index
        if index not in self._qkv:
            q, k, v = self._computed[index].qkv(self.input(index))
            self._qkv[index] = q.float(), k.float(), v.float()
        return self._qkv[index]

    def merge_heads(self, index: int, mixed: Tensor) -> Tensor:
        """(B, heads, N, D/heads) -> (B, N, D) through the output projection (and layer scale) of block `index`."""
        return self._computed[index].merge_heads(mixed).float()

    def feed_forward(self, index: int, tokens: Tensor) -> Tensor:
        """What the feed-forward network of block `index` makes of tokens (B, N, D), layer norm included, its residual
        not.
        """
        return self._computed[index].feed_forward(tokens).float()

    def project(self, tokens: Tensor) -> Features:
        """Final layer norm and projection of (B, N, D) tokens into the joint space."""
        projected = self.visual.ln_post(tokens.float())
        if self.visual.proj is not None:
            projected = projected @ self.visual.proj
        return Features(projected[:, 1:], projected[:, 0])

    @cached_property
    def antialiased(self) -> Trunk:
        """The same windows with the position embedding resampled with antialiasing, as GEM's own code does.

        At the grid of pretraining the two are equal, and this is the same object.
        """
        native = tuple(self.visual.grid_size)
        if self._antialias or self.grid == native:
            return self
        return Trunk(self.visual, self._computed, self.images, antialias=True)

    def _embed(self) -> Tensor:
        visual = self.visual
        x = visual.conv1(self.images).flatten(2).transpose(1, 2)  # (B, hw, D)
        cls = visual.class_embedding.expand(len(x), 1, -1)
        x = torch.cat([cls, x], dim=1)  # (B, 1 + hw, D)
        embedded: Tensor = visual.ln_pre(x + self._position_embedding())
        return embedded

    def _position_embedding(self) -> Tensor:
        """The stored embedding, resampled to this grid as the released code does.

        It is taken as stored whenever the number of tokens is the stored one, even on a grid of another
        shape. Else its grid part is enlarged bicubically by an explicit factor of (h + 0.1) / h_stored, and
        that factor, not the ratio of the sizes, places the samples.
        """
        stored: Tensor = self.visual.positional_embedding
        native = tuple(self.visual.grid_size)
        h, w = self.grid
        same = self.grid == native if self._antialias else h * w + 1 == len(stored)
        if same:
            return stored
        cells = stored[1:].float().T.reshape(1, -1, *native)  # (1, D, h_stored, w_stored)
        if self._antialias:
            cells = F.interpolate(cells, size=self.grid, mode="bicubic", antialias=True)
        else:
            factor = ((h + 0.1) / native[0], (w + 0.1) / native[1])
            cells = F.interpolate(cells, scale_factor=factor, mode="bicubic", recompute_scale_factor=False)
        return torch.cat([stored[:1].float(), cells.flatten(2)[0].T])


class Backbone:
    """A frozen CLIP model of open_clip with a plain ViT image tower.

    name: how messages call it. fingerprint: hash of the weights, part of the identity of every result.
    """

    def __init__(self, name: str, model: nn.Module, tokenizer: Any, fingerprint: str) -> None:
        self.name = name
        self.model: Any = model
        self.tokenizer = tokenizer
        self.fingerprint = fingerprint
        visual: Any = self.model.visual
        _check_tower(name, visual)
        self.visual = visual
        self.patch_size: int = visual.patch_size[0]
        self.dim: int = visual.output_dim
        self.blocks = [Block(block) for block in visual.transformer.resblocks]
        self._mean, self._std = (
            torch.tensor(values, device=self.device).view(3, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD)
        )

    @property
    def device(self) -> torch.device:
        device: torch.device = self.visual.conv1.weight.device
        return device

    def normalise(self, image: Tensor) -> Tensor:
        """uint8 RGB (H, W, 3) -> float32 (3, H, W) on the backbone's device, in units of CLIP's pixel statistics."""
        pixels = image.to(self.device).permute(2, 0, 1).float()
        return (pixels - self._mean) / self._std

    def trunk(self, images: Tensor) -> Trunk:
        """images: (B, 3, H, W) normalised, sides multiples of the patch size."""
        return Trunk(self.visual, self.blocks, images)

    def encode_prompts(self, prompts: list[str]) -> Tensor:
        """Un-normalised text embeddings of whole sentences, (n, C) float32."""
        tokens = self.tokenizer(prompts).to(self.device)
        with exact_float32():
            embeddings: Tensor = self.model.encode_text(tokens)
        return embeddings.float()


def _check_tower(name: str, visual: Any) -> None:
    plain = hasattr(visual, "transformer") and hasattr(visual, "conv1") and getattr(visual, "attn_pool", None) is None
    if not plain or not all(type(block) is ResidualAttentionBlock for block in visual.transformer.resblocks):
        raise BenchError(
            f"backbone {name}: its image tower ({type(visual).__name__}) is not a plain CLIP ViT; "
            "take an open_clip model whose vision_cfg has layers, width and patch_size and no attentional pool"
        )
    if visual.patch_size[0] != visual.patch_size[1]:
        raise BenchError(f"backbone {name}: patches of {visual.patch_size} are not square; take another model")
