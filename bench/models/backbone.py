"""A frozen open_clip ViT, and what it computes of a batch of windows, shared by all methods."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from typing_extensions import Self

from bench.errors import BenchError
from bench.models.block import Block, Heads
from bench.models.second import SecondModel, SecondTrunk, in_role
from bench.models.tower import PIXEL_MEAN, PIXEL_STD, ReadingTower, Windows, per_channel
from bench.runtime.device import exact_float32
from bench.runtime.shared_tensors import SharedWeights, counting_changes
from bench.runtime.timing import stage
from bench.settings import Library

Rule: TypeAlias = Literal["released", "antialiased", "bilinear", "bicubic"]


class Features(NamedTuple):
    """Features that a method gives for a batch of windows, in the joint image-text space, not normalised.

    patches: (B, h*w, C), row-major
    cls: (B, C), or None where the method has no such token (then λ must be 0)
    grid: (h, w) of the patches where it is not the tower's, as on a second model's finer grid
    """

    patches: Tensor
    cls: Tensor | None
    grid: tuple[int, int] | None = None


class Trunk(Windows):
    """The frozen image tower on one batch of windows.

    The input of each block is computed on demand and remembered for as long as the batch lives, so all
    methods that look at the same windows pay for the blocks once. Tokens are (B, 1 + h*w, D) with CLS first.
    """

    def __init__(self, visual: nn.Module, blocks: Sequence[Block], images: Tensor, rule: Rule = "released") -> None:
        """Start with no block computed.

        blocks: of `visual`
        images: (B, 3, H, W) normalised, H and W multiples of the patch size
        rule: by which the position embedding is resampled, see `resampled`
        """
        tower: Any = visual
        super().__init__(images, tower.patch_size[0])
        self.visual = tower
        self.blocks: Any = tower.transformer.resblocks
        self.depth = len(self.blocks)
        self._computed = blocks
        self._rule = rule
        self._inputs: list[Tensor] = []
        self._qkv: dict[int, Heads] = {}
        self._resampled: dict[str, Trunk] = {}
        self._second: dict[str, SecondTrunk] = {}  # by the model's name, shared with the views of `having`
        self._models: Mapping[str, SecondModel] = {}

    def second(self, role: str) -> SecondTrunk:
        """Return the same windows through the second model in that role, once for all rows that use the model.

        BenchError for a role that the method did not declare.
        """
        model = in_role(self._models, role)
        if model.name not in self._second:
            self._second[model.name] = model.trunk(self.rgb)
        return self._second[model.name]

    def having(self, models: Mapping[str, SecondModel]) -> Self:
        """Return this trunk, all that it remembers shared, with the second models (role -> model) of one row."""
        if not models:
            return self
        view = copy.copy(self)
        view._models = models
        return view

    def input(self, index: int = -1) -> Tensor:
        """Input of block `index`, (B, N, D). Negative counts from the last block; `depth` is the tower's output.

        BenchError for a block that the tower does not have.
        """
        index = self._number(index, self.depth)
        with stage("trunk"), counting_changes():
            if not self._inputs:
                self._inputs.append(self.made.keep("the input of block 0", self._embed(), handed_out=False))
            while len(self._inputs) <= index:
                number, tokens = len(self._inputs) - 1, self._inputs[-1]
                # Only the last block's are sure to be asked for again, and worth the memory.
                heads = self.qkv(number) if number == self.depth - 1 else self._computed[number].qkv(tokens)
                made = self._computed[number](tokens, heads)
                self._inputs.append(self.made.keep(f"the input of block {number + 1}", made, handed_out=False))
        return self.made.hand_out(self._inputs[index])

    def qkv(self, index: int = -1, tokens: Tensor | None = None) -> Heads:
        """Return queries, keys and values of block `index`, each (B, heads, N, D/heads) float32.

        tokens: (B, n, D) in place of the block's own input, such as patches without CLS.
        """
        index = self._number(index, self.depth - 1)
        if tokens is not None:
            q, k, v = self._computed[index].qkv(tokens)
            return q.float(), k.float(), v.float()
        if index not in self._qkv:
            tokens = self.input(index)
            with stage("trunk"), counting_changes():
                q, k, v = self._computed[index].qkv(tokens)
                self._qkv[index] = q.float(), k.float(), v.float()
            for part in self._qkv[index]:  # views of one tensor, unless it was of lower precision
                self.made.keep(f"the queries, keys or values of block {index}", part)
        return self._qkv[index]

    def merge_heads(self, index: int, mixed: Tensor) -> Tensor:
        """(B, heads, N, D/heads) -> (B, N, D) through the output projection (and layer scale) of block `index`."""
        return self._computed[index].merge_heads(mixed).float()

    def feed_forward(self, index: int, tokens: Tensor) -> Tensor:
        """Feed tokens (B, N, D) through the network of block `index`, layer norm included, without residual."""
        return self._computed[index].feed_forward(tokens).float()

    def block(
        self, index: int, tokens: Tensor, mix: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    ) -> Tensor:
        """Send tokens (B, n, D) through block `index`, residuals and feed-forward network included.

        mix: (q, k, v) -> what replaces the attention's output, all (B, heads, n, D/heads); None: the block's attention.
        """
        heads = self.qkv(index, tokens)
        mixed = F.scaled_dot_product_attention(*heads) if mix is None else mix(*heads)
        tokens = tokens + self.merge_heads(index, mixed)
        return tokens + self.feed_forward(index, tokens)

    def joint(self, tokens: Tensor) -> Tensor:
        """Project any tokens (…, D) into the joint space, (…, C), after the final layer norm."""
        projected: Tensor = self.visual.ln_post(tokens.float())
        return projected if self.visual.proj is None else projected @ self.visual.proj

    def project(self, tokens: Tensor) -> Features:
        """`joint` of (B, 1 + h*w, D) tokens, CLS first."""
        projected = self.joint(tokens)
        return Features(projected[:, 1:], projected[:, 0])

    def of(self, images: Tensor) -> Trunk:
        """Return the same tower on other windows (B, 3, H, W): turned, mirrored, grey …; shared by nobody."""
        return Trunk(self.visual, self._computed, images, self._rule)

    def resampled(self, rule: Rule) -> Trunk:
        """Return the same windows with the position embedding resampled by another rule, once for all.

        rule: "released" (SegEarth-OV's), "antialiased" (bicubic with antialiasing, GEM), "bilinear" (CLIP Surgery) or
        "bicubic" (MaskCLIP), the latter to the size of the grid. At the grid of pretraining all are equal, and this is
        the same object.
        """
        if rule == self._rule or self.grid == tuple(self.visual.grid_size):
            return self
        if rule not in self._resampled:
            self._resampled[rule] = Trunk(self.visual, self._computed, self.images, rule)
        return self._resampled[rule]

    @property
    def antialiased(self) -> Trunk:
        """`resampled("antialiased")`."""
        return self.resampled("antialiased")

    def changed(self, closely: bool) -> str | None:
        """Return the name of a shared tensor that is not as it was made; see `SharedTensors.changed`."""
        made = [trunk.made for trunk in self._trunks()] + [second.made for second in self._second.values()]
        return next((name for one in made if (name := one.changed(closely))), None)

    def renew(self) -> None:
        """Forget all that was computed, and take the windows as they were given."""
        super().renew()
        for trunk in self._resampled.values():
            trunk.renew()

    def forget(self) -> None:
        for kept in (self._inputs, self._qkv, self._second):
            kept.clear()  # also for the views of `having`

    def _trunks(self) -> list[Trunk]:
        return [self, *self._resampled.values()]

    def _number(self, index: int, last: int) -> int:
        """Return the index counted from the first block."""
        number = index + self.depth if index < 0 else index
        if not 0 <= number <= last:
            raise BenchError(
                f"block {index} was asked for, but the tower has {self.depth}; the method needs a deeper one, or "
                "options that name other blocks"
            )
        return number

    def _embed(self) -> Tensor:
        visual = self.visual
        x = visual.conv1(self.images).flatten(2).transpose(1, 2)  # (B, hw, D)
        cls = visual.class_embedding.expand(len(x), 1, -1)
        x = torch.cat([cls, x], dim=1)  # (B, 1 + hw, D)
        embedded: Tensor = visual.ln_pre(x + self._position_embedding())
        return embedded

    def _position_embedding(self) -> Tensor:
        """Return the stored embedding, resampled to this grid as the released code does.

        It is taken as stored whenever the number of tokens is the stored one, even on a grid of another
        shape. Else its grid part is enlarged bicubically by an explicit factor of (h + 0.1) / h_stored, and
        that factor, not the ratio of the sizes, places the samples.
        """
        stored: Tensor = self.visual.positional_embedding
        native = tuple(self.visual.grid_size)
        h, w = self.grid
        same = h * w + 1 == len(stored) if self._rule == "released" else self.grid == native
        if same:
            return stored
        cells = stored[1:].float().T.reshape(1, -1, *native)  # (1, D, h_stored, w_stored)
        if self._rule == "antialiased":
            cells = F.interpolate(cells, size=self.grid, mode="bicubic", antialias=True)
        elif self._rule != "released":
            cells = F.interpolate(cells, size=self.grid, mode=self._rule)
        else:
            factor = ((h + 0.1) / native[0], (w + 0.1) / native[1])
            cells = F.interpolate(cells, scale_factor=factor, mode="bicubic", recompute_scale_factor=False)
        return torch.cat([stored[:1].float(), cells.flatten(2)[0].T])


class Backbone(ReadingTower):
    """A frozen CLIP model of open_clip with a plain ViT image tower."""

    library: Library = "open_clip"

    def __init__(self, name: str, model: nn.Module, tokenizer: Any, fingerprint: str) -> None:
        self.name = name
        self.model: Any = model
        self.tokenizer = tokenizer
        self.fingerprint = fingerprint
        visual: Any = self.model.visual
        _check_tower(name, visual)
        self.visual = visual
        self.device: torch.device = visual.conv1.weight.device
        self.patch_size: int = visual.patch_size[0]
        self.dim: int = visual.output_dim
        self.blocks = [Block(block) for block in visual.transformer.resblocks]
        self.weights = SharedWeights(model)

    def normalise_rgb(self, rgb: Tensor) -> Tensor:
        """(…, 3, H, W) in 0..1 -> the same in units of CLIP's pixel statistics."""
        return (rgb * 255 - per_channel(PIXEL_MEAN, rgb.device)) / per_channel(PIXEL_STD, rgb.device)

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
