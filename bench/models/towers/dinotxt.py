"""dino.txt (Meta, 2025): DINOv3 through timm, with the vision head and the text encoder that were trained on top.

timm, transformers and open_clip have neither head nor text encoder: here they are, by the names of the released file.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from open_clip import SimpleTokenizer
from torch import Tensor, nn

from bench.config import BackboneSpec
from bench.models.checkpoints import read_state_dict, state_fingerprint
from bench.models.second import IMAGENET_MEAN, IMAGENET_STD
from bench.models.tower import Windows, per_channel
from bench.models.towers import tiny
from bench.models.towers.loading import count_blocks, filled, of_timm, weights_file
from bench.models.towers.vit import TimmTower
from bench.runtime.device import products_in
from bench.runtime.timing import stage
from bench.settings import Library

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Pixel statistics by which VIP undoes CLIP's, which the windows have with fewer digits."""


class Dinotxt(TimmTower):
    """A frozen dino.txt; it reads the half of its text embeddings that belongs to patches."""

    library: Library = "dinotxt"
    version = 1

    def trunk(self, images: Tensor) -> DinotxtTrunk:
        return DinotxtTrunk(self, images)


class DinotxtTrunk(Windows):
    """dino.txt on one batch of windows."""

    def __init__(self, tower: Dinotxt, images: Tensor) -> None:
        super().__init__(images, tower.patch_size)
        self.tower = tower

    @property
    def patches(self) -> Tensor:
        """Patches (B, h*w, D) of DINOv3 after its final norm."""
        return self.once("the patches of DINOv3", self._computed)

    def _computed(self) -> Tensor:
        statistics = (CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD)
        mean, std, own_mean, own_std = (per_channel(values, self.images.device) for values in statistics)
        with stage("trunk"), products_in(self.tower.dtype, self.images.device):
            tokens: Tensor = self.tower.model.forward_features((self.images * std + mean - own_mean) / own_std)
        return tokens[:, self.tower.model.num_prefix_tokens :].float()


class VisionHead(nn.Module):
    """The blocks of dino.txt behind DINOv3, whose attention a method gives."""

    def __init__(self, width: int, hidden: int, blocks: int) -> None:
        super().__init__()
        self.dim = width
        self.blocks = nn.ModuleList(_HeadBlock(width, hidden) for _ in range(blocks))
        self.ln_final = nn.LayerNorm(width)

    def forward(self, patches: Tensor, weights: Tensor) -> Tensor:
        """Patches (B, N, D) -> (B, N, D). weights: (B, N, N), of the attention in all blocks and heads."""
        for block in self.blocks:
            patches = block(patches, weights)
        found: Tensor = self.ln_final(patches)
        return found


class _HeadBlock(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width, bias=False), "proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({name: nn.Linear(width, hidden) for name in ("w1", "w2")})
        self.mlp["w3"] = nn.Linear(hidden, width)
        self.ls1, self.ls2 = _Scale(width), _Scale(width)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        own: Any = self.attn["qkv"]
        value = F.linear(self.norm1(x), own.weight.chunk(3)[2])  # (B, N, D), the same for all heads
        x = x + self.ls1.gamma * self.attn["proj"](weights @ value)
        hidden = self.norm2(x)
        first, second = (self.mlp[name](hidden) for name in ("w1", "w2"))
        hidden = F.silu(first) * second
        found: Tensor = x + self.ls2.gamma * self.mlp["w3"](hidden)
        return found


class _Scale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))


class TextEncoder(nn.Module):
    """A causal transformer over CLIP's tokens: the embedding of the last one, projected."""

    def __init__(self, width: int, blocks: int, out: int, context: int = 77, vocabulary: int = 49408) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.token_embedding = nn.Embedding(vocabulary, width)
        self.backbone.positional_embedding = nn.Parameter(torch.zeros(context, width))
        self.backbone.blocks = nn.ModuleList(_TextBlock(width) for _ in range(blocks))
        self.backbone.ln_final = nn.LayerNorm(width)
        self.head = nn.ModuleDict({"linear_projection": nn.Linear(width, out, bias=False)})

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (n, context) -> (n, out)."""
        own: Any = self.backbone
        x = own.token_embedding(tokens) + own.positional_embedding[: tokens.shape[1]]
        for block in own.blocks:
            x = block(x)
        last = own.ln_final(x)[torch.arange(len(x)), tokens.argmax(dim=-1)]
        found: Tensor = self.head["linear_projection"](last)
        return found


class _TextBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention_norm, self.ffn_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        layers = {"qkv": nn.Linear(width, 3 * width, bias=False), "proj": nn.Linear(width, width)}
        self.attention = nn.ModuleDict(layers)
        self.feed_forward = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})
        self._heads = max(1, width // 64)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.attention["qkv"](self.attention_norm(x)).view(*x.shape[:2], 3, self._heads, -1)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + self.attention["proj"](mixed)
        hidden = F.gelu(self.feed_forward["fc1"](self.ffn_norm(x)))
        found: Tensor = x + self.feed_forward["fc2"](hidden)
        return found


def load(name: str, spec: BackboneSpec, file: Path, device: str, dtype: str) -> Dinotxt:
    """Load DINOv3 and dino.txt from their two released files."""
    image = weights_file(name, spec.model_copy(update={"file": spec.image_file}), None)
    model, state = of_timm(spec.model, dynamic_img_size=True), read_state_dict(file)
    own = {prefix: _below(state, prefix) for prefix in ("visual_model.head.", "text_model.")}
    head, text = _head_of(own["visual_model.head."]), _text_of(own["text_model."]).eval()
    prints = [filled(model, _timm_names(model, read_state_dict(image)), image, spec.model)]
    prints += [filled(part, own[prefix], file, "dino.txt") for prefix, part in zip(own, (head, text), strict=True)]
    tokenizer = SimpleTokenizer(context_length=77)

    def encode(prompts: list[str]) -> Tensor:
        found: Tensor = text(tokenizer(prompts))
        return found[:, found.shape[1] // 2 :]  # the other half is held to the class token

    return Dinotxt(name, model, head, encode, "-".join(one[:20] for one in prints), device, dtype)


def random(name: str, spec: BackboneSpec, device: str, dtype: str) -> Dinotxt:
    """Return dino.txt at its true size with random weights, which reads sentences as bags of drawn words."""
    model: Any = of_timm(spec.model, dynamic_img_size=True)
    width: int = model.embed_dim
    head = VisionHead(width, -(-8 * width // 3 // 64) * 64, 2)
    return Dinotxt(name, model, head, tiny.bags_of_words("dinotxt", width, 0), "", device, dtype)


def tiny_dinotxt(name: str, seed: int, device: str = "cpu", dtype: str = "fp32") -> Dinotxt:
    """Return a tiny dino.txt whose weights are drawn, and which reads sentences as bags of drawn words."""
    model, width = tiny.dinov3(), tiny.DINOTXT_WIDTH
    head = VisionHead(width, 3 * width, 2)
    tiny.fill(head, "dinotxt", tiny.dinotxt_rule, seed, "head.")
    drawn = _below(tiny.draw(tiny.dinov3_shapes(), tiny.dinotxt_rule, seed, "dinotxt/"), "backbone.")
    prints = [filled(model, _timm_names(model, drawn), Path("-"), "DINOv3"), state_fingerprint(head.state_dict())]
    return Dinotxt(name, model, head, tiny.bags_of_words("dinotxt", width, seed), "-".join(prints), device, dtype)


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _timm_names(model: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name DINOv3's weights as timm does; biases that the model does not have are zero, and left out."""
    if getattr(model.blocks[0].attn, "q_bias", None) is None:
        state = {name: value for name, value in state.items() if not name.endswith("qkv.bias")}
    found: dict[str, Tensor] = importlib.import_module(type(model).__module__).checkpoint_filter_fn(state, model)
    return found


def _head_of(state: Mapping[str, Tensor]) -> VisionHead:
    width, hidden = state["ln_final.weight"].shape[0], state["blocks.0.mlp.w1.weight"].shape[0]
    return VisionHead(width, hidden, count_blocks(state, "blocks."))


def _text_of(state: Mapping[str, Tensor]) -> TextEncoder:
    vocabulary, width = state["backbone.token_embedding.weight"].shape
    context, out = state["backbone.positional_embedding"].shape[0], state["head.linear_projection.weight"].shape[0]
    return TextEncoder(width, count_blocks(state, "backbone.blocks."), out, context, vocabulary)
