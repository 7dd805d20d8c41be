"""Weights that every machine can draw again, for the tiny towers of the demo and of the stored reference.

Each tensor has its own generator, seeded with the tensor's name, so that the numbers depend neither on torch nor on the
order of the names. Nothing is pretrained: labels mean nothing.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

Rule: TypeAlias = Callable[[str, tuple[int, ...]], tuple[float, float]]
"""Name and shape of a tensor -> mean and deviation of its values."""


def draw(shapes: Mapping[str, tuple[int, ...]], rule: Rule, seed: int, prefix: str) -> dict[str, Tensor]:
    """Draw tensors of these shapes. prefix: of their names, in what seeds each of them alone."""
    found = {}
    for name, shape in shapes.items():
        offset, scale = rule(name, shape)
        random = np.random.default_rng([seed, zlib.crc32(f"{prefix}{name}".encode())])
        found[name] = torch.from_numpy(np.asarray(offset + scale * random.standard_normal(shape), np.float32))
    return found


def fill(module: nn.Module, kind: str, rule: Rule, seed: int, prefix: str = "") -> None:
    """Draw all parameters of a module. prefix: of their names."""
    shapes = {prefix + name: tuple(value.shape) for name, value in module.named_parameters()}
    drawn = {name.removeprefix(prefix): value for name, value in draw(shapes, rule, seed, f"{kind}/").items()}
    module.load_state_dict({**module.state_dict(), **drawn}, strict=True)


def fan_in(shape: tuple[int, ...]) -> float:
    """Deviation with which a layer neither shrinks nor swells its input."""
    return float(math.prod(shape[1:]) ** -0.5)


# SAM 3: plain fan-in scales would make all queries and words alike; these keep scores, presence and masks apart.
_SAM3_OWN = {
    "reference_points.weight": 1.0,
    "query_embed.weight": 1.0,
    "presence_token.weight": 0.5,
    "cls_embed.weight": 1.0,
    "position_embeddings": 0.3,
    "token_embedding.weight": 0.3,
    "position_embedding.weight": 0.1,
    "label_embed.weight": 0.3,
}
_SAM3_GAINS = {
    "scale_layers": 2.0,
    ".o_proj.": 0.7,
    ".mlp.fc2.": 0.7,
    ".out_proj.": 0.7,
    "patch_embeddings": 1.5,
    "cross_attn": 1.5,
    "presence_head.layer3": 6.0,
    "dot_product_scoring": 2.5,
    "semantic_projection": 4.0,
    "mask_embedder": 1.2,
    "instance_projection": 0.3,
}


def sam3_rule(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Rule of the tiny SAM 3, by transformers' names."""
    last = name.rpartition(".")[2]
    if "norm" in name and "proj" not in name:
        return (1.0, 0.1) if last == "weight" else (0.0, 0.05)
    for end, scale in _SAM3_OWN.items():
        if name.endswith(end):
            return 0.0, scale
    if last == "bias":
        if "presence_head.layer3" in name:
            return 0.5, 0.1
        return (-0.5, 0.1) if "semantic_projection" in name else (0.0, 0.05)
    scale = fan_in(shape)
    for part, gain in _SAM3_GAINS.items():
        scale *= gain if part in name else 1.0
    return 0.0, 2.0 * scale if name.startswith("text_projection") else scale


def sam3_config(transformers: Any) -> Any:
    """Sizes of the tiny SAM 3: squares of 112, four blocks of width 48, twelve instances."""
    grid = 8
    common = {"hidden_size": 32, "num_attention_heads": 4}
    detr = {**common, "intermediate_size": 64}
    vit = {
        "model_type": "sam3_vit_model",
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "image_size": 14 * grid,
        "patch_size": 14,
        "window_size": 4,
        "global_attn_indexes": [1, 3],
        "pretrain_image_size": 56,
        "rope_parameters": {"rope_type": "axial", "rope_theta": 10000.0},
    }
    text = {
        "model_type": "clip_text_model",
        "vocab_size": 49408,
        "hidden_size": 32,
        "intermediate_size": 128,
        "projection_dim": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
        "hidden_act": "gelu",
    }
    return transformers.Sam3Config(
        vision_config={
            "backbone_config": vit,
            "fpn_hidden_size": 32,
            "backbone_feature_sizes": [[4 * grid, 4 * grid], [2 * grid, 2 * grid], [grid, grid]],
        },
        text_config=text,
        geometry_encoder_config={**detr, "num_layers": 1},
        detr_encoder_config={**detr, "num_layers": 2},
        detr_decoder_config={**detr, "num_layers": 2, "num_queries": 12},
        mask_decoder_config=common,
    )


# C-RADIO: timm's vision transformer on a grid of 32 x 32, width 64, and a language head.
RADIO_TEXT = 40  # channels of the head


def radio() -> tuple[nn.Module, nn.Module]:
    """Return the tiny C-RADIO, and its language head."""
    from timm.models.vision_transformer import VisionTransformer

    from bench.models.towers.radio import LanguageHead

    model = VisionTransformer(
        img_size=512,
        patch_size=16,
        embed_dim=64,
        depth=3,
        num_heads=4,
        init_values=1e-5,
        reg_tokens=7,
        no_embed_class=True,
        final_norm=False,
        num_classes=0,
    )
    return model, LanguageHead(64, 96, RADIO_TEXT)


def radio_rule(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Rule of the tiny C-RADIO, by timm's names; of its head, `head.*`."""
    if name.endswith("gamma"):
        return 0.5, 0.1
    if "norm" in name or name.startswith("head.final.0."):
        return (1.0, 0.1) if name.endswith("weight") else (0.0, 0.02)
    if name in ("cls_token", "reg_token"):
        return 0.0, 0.3
    if name == "pos_embed":
        return 0.0, 0.6
    if name.endswith("bias"):
        return 0.0, 0.0 if name == "patch_embed.proj.bias" else 0.05  # the released model has none there
    return 0.0, vit_gain(name) * fan_in(shape)


def vit_gain(name: str) -> float:
    """Return the gain of a layer of a vision transformer."""
    gains = {"attn.qkv": 1.5, "mlp.fc2": 0.5, "mlp.w3": 0.5, "patch_embed": 1.2}
    return next((gain for part, gain in gains.items() if part in name), 1.0)


def bags_of_words(kind: str, width: int, seed: int) -> Callable[[list[str]], Tensor]:
    """Return a reader of sentences: the sum of drawn embeddings (n, width) of their words."""

    def embedding(sentence: str) -> Tensor:
        shapes = {f"token {token}": (width,) for token in sentence.lower().split()}
        return torch.stack(list(draw(shapes, lambda name, shape: (0.0, 1.0), seed, f"{kind}/").values())).sum(dim=0)

    return lambda sentences: torch.stack([embedding(sentence) for sentence in sentences])


# dino.txt: DINOv3 of width 64 and three blocks, and a head of two, by its authors' names.
DINOTXT_WIDTH = 64


def dinov3() -> nn.Module:
    """Return the tiny DINOv3."""
    from functools import partial

    from timm.models.eva import Eva

    model: nn.Module = Eva(
        patch_size=16,
        embed_dim=DINOTXT_WIDTH,
        depth=3,
        num_heads=4,
        qkv_bias=True,
        init_values=1e-5,
        rope_type="dinov3",
        rope_temperature=100,
        rope_rotate_half=True,
        use_rot_pos_emb=True,
        use_abs_pos_emb=False,
        num_reg_tokens=4,
        use_fc_norm=False,
        norm_layer=partial(nn.LayerNorm, eps=1e-5),
        dynamic_img_size=True,
        num_classes=0,
    )
    return model


def dinov3_shapes() -> dict[str, tuple[int, ...]]:
    """Shapes of the tiny DINOv3's weights, by its authors' names."""
    width = DINOTXT_WIDTH
    layers = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
    layers |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
    shapes: dict[str, tuple[int, ...]] = {"cls_token": (1, 1, width), "storage_tokens": (1, 4, width)}
    shapes |= {"patch_embed.proj.weight": (width, 3, 16, 16), "patch_embed.proj.bias": (width,)}
    vectors = ["norm.weight", "norm.bias"]
    for block in (f"blocks.{number}." for number in range(3)):
        shapes |= {f"{block}{name}.weight": shape for name, shape in layers.items()}
        shapes |= {f"{block}{name}.bias": shape[:1] for name, shape in layers.items()}
        vectors += [f"{block}norm{one}.{part}" for one in (1, 2) for part in ("weight", "bias")]
        vectors += [f"{block}ls{one}.gamma" for one in (1, 2)]
    shapes |= dict.fromkeys(vectors, (width,))
    return {f"backbone.{name}": shape for name, shape in shapes.items()}


def dinotxt_rule(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Rule of the tiny dino.txt, by its authors' names."""
    if name.endswith("gamma"):
        return 0.5, 0.1
    if "norm" in name or "ln_final" in name:
        return (1.0, 0.1) if name.endswith("weight") else (0.0, 0.02)
    if name.endswith(("cls_token", "storage_tokens")):
        return 0.0, 0.3
    return 0.0, 0.05 if name.endswith("bias") else vit_gain(name) * fan_in(shape)
