"""Tiny second models whose weights are drawn by name, as those behind the stored outputs of the authors' code were."""

from __future__ import annotations

import zlib
from functools import cache
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.models.second import IMAGENET_MEAN, IMAGENET_STD
from bench.models.second_kinds import TimmModel
from bench.verify.goldens import Bed

SEED = 20251
VIT = {"embed_dim": 96, "depth": 4, "num_heads": 3, "num_classes": 0, "dynamic_img_size": True}
VITS: dict[str, dict[str, Any]] = {
    "dino8": {"img_size": 224, "patch_size": 8},
    "dino16": {"img_size": 224, "patch_size": 16},
    "dinov2": {"img_size": 518, "patch_size": 14, "init_values": 1e-5, "reg_tokens": 4, "no_embed_class": True},
}
SAM = {
    "img_size": 1024,
    "patch_size": 16,
    "embed_dim": 48,
    "depth": 4,
    "num_heads": 3,
    "window_size": 14,
    "global_attn_indexes": (1, 3),
    "use_rel_pos": True,
    "num_classes": 0,
    "neck_chans": 256,
}
VIT_GAINS = {"patch_embed.proj.weight": 1.2, "attn.qkv.weight": 1.5, "attn.proj.weight": 0.4, "mlp.fc2.weight": 0.3}
NORMS = ("norm", "neck.1.", "neck.3.")


def drawn(kind: str, key: str, shape: tuple[int, ...], offset: float, scale: float) -> Tensor:
    """A tensor from a generator of its own, so that neither order nor other tensors matter."""
    generator = np.random.default_rng([SEED, zlib.crc32(f"{kind}/{key}".encode())])
    return torch.from_numpy((offset + scale * generator.standard_normal(shape)).astype(np.float32))


@cache
def second(kind: str) -> TimmModel:
    """dino8, dino16, dinov2 (four registers) or sam."""
    if kind == "sam":
        model: Any = timm.models.vision_transformer_sam.VisionTransformerSAM(**SAM)
        state = {key: _of_sam(key, value) for key, value in model.state_dict().items()}
    else:
        model = timm.models.vision_transformer.VisionTransformer(**VIT, **VITS[kind])
        state = {key: _of_vit(kind, key, value) for key, value in model.state_dict().items()}
        if kind == "dinov2":  # the hub's file has a position for CLS, which timm adds to the token
            positions = drawn(kind, "pos_embed", (1, 37 * 37 + 1, 96), 0, 0.6)
            state["cls_token"] = state["cls_token"] + positions[:, :1]
            state["pos_embed"] = positions[:, 1:]
    model.load_state_dict(state)
    model.pretrained_cfg = {}
    return TimmModel(kind, model, kind, "factor" if kind.startswith(("dino8", "dino16")) else "library")


def _of_vit(kind: str, key: str, value: Tensor) -> Tensor:
    shape = tuple(value.shape)
    name = "register_tokens" if key == "reg_token" else key
    if key.endswith("gamma"):
        return drawn(kind, name, shape, 0.5, 0.1)
    if "norm" in key:
        return drawn(kind, name, shape, *((1, 0.1) if key.endswith("weight") else (0, 0.02)))
    if key in ("cls_token", "pos_embed", "reg_token"):
        return drawn(kind, name, shape, 0, 0.6 if key == "pos_embed" else 0.25)
    if key.endswith("bias"):
        return drawn(kind, name, shape, 0, 0.05)
    gain = next((gain for end, gain in VIT_GAINS.items() if key.endswith(end)), 1.0)
    return drawn(kind, name, shape, 0, gain * int(np.prod(shape[1:])) ** -0.5)


def _of_sam(key: str, value: Tensor) -> Tensor:
    shape = tuple(value.shape)
    name = key.replace("mlp.fc", "mlp.lin")
    if any(part in key for part in NORMS):
        return drawn("sam", name, shape, *((1, 0.1) if key.endswith("weight") else (0, 0.02)))
    for part, scale in (("rel_pos", 0.1), ("pos_embed", 0.15), ("bias", 0.05)):
        if part in key:
            return drawn("sam", name, shape, 0, scale)
    gain = 1.5 if key.endswith("attn.qkv.weight") else 1.0
    return drawn("sam", name, shape, 0, gain * int(np.prod(shape[1:])) ** -0.5)


def mixture_case(patches: int = 800, width: int = 48, classes: int = 9) -> tuple[Tensor, Tensor]:
    """Unit features (patches, width) around a centre for each class, and noisy cosines (patches, classes)."""
    rng = np.random.default_rng([SEED, zlib.crc32(b"gmm_case")])
    centres = rng.standard_normal((classes, width))
    member = rng.integers(0, classes, patches)
    features = centres[member] + 0.9 * rng.standard_normal((patches, width))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    cosine = 0.20 + 0.02 * rng.standard_normal((patches, classes))
    cosine[np.arange(patches), member] += 0.02
    return torch.from_numpy(features.astype(np.float32)), torch.from_numpy(cosine.astype(np.float32))


ENCODERS = ("image_encoder", "query_encoder", "key_encoder", "key_features_encoder", "aggregation")


def upsampler_state(kind: str) -> dict[str, Tensor]:
    """anyup, jafar and loftup (for 128 channels) or naf, by the names that the authors' checkpoints have."""
    makers = {"anyup": _anyup_shapes, "jafar": _jafar_shapes, "naf": _naf_shapes, "loftup": _loftup_shapes}
    shapes = makers[kind]()
    state = {key: _of_upsampler(kind, key, shape) for key, shape in shapes.items()}
    if kind == "loftup":
        for key in state:
            if key.endswith("running_var"):
                state[key] = state[key].abs() + 0.5
            elif key.endswith("num_batches_tracked"):
                state[key] = torch.tensor(1)
        return state
    if kind == "naf":
        state["image_encoder.rope.periods"] = torch.from_numpy((100.0 ** (np.arange(16) / 16)).astype(np.float32))
    else:
        one = 100.0 ** np.linspace(0, -1, 32)
        frequencies = np.zeros((2, 128))
        frequencies[0, :64] = frequencies[1, 64:] = np.concatenate([one, one])
        state["rope.freqs"] = torch.from_numpy((frequencies * 2 * np.pi).astype(np.float32))
    return state


def guidance(window: NDArray[np.uint8], statistics: str) -> Tensor:
    """A window (H, W, 3) as upsamplers of "clip" or "imagenet" statistics want it, (1, 3, H, W)."""
    pixels = torch.from_numpy(window)
    if statistics == "clip":
        return Bed("cpu", "fp32").backbone.normalise(pixels)[None]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return ((pixels.permute(2, 0, 1) / 255 - mean) / std)[None]


def _anyup_shapes() -> dict[str, tuple[int, ...]]:
    shapes = _attention()
    for name, inputs, kernel in zip(ENCODERS, (3, 128, 128, 0, 256), (1, 1, 1, 0, 3), strict=True):
        first = {"0.basis": (128, 1, 5, 5)} if not inputs else {"0.weight": (128, inputs, kernel, kernel)}
        block = {"0.weight": (128,), "0.bias": (128,), "2.weight": (128, 128, 1, 1)}
        block |= {"3.weight": (128,), "3.bias": (128,), "5.weight": (128, 128, 1, 1)}
        shapes |= {f"{name}.{key}": shape for key, shape in first.items()}
        shapes |= {f"{name}.{i}.block.{key}": shape for i in (1, 2) for key, shape in block.items()}
    return shapes


def _jafar_shapes() -> dict[str, tuple[int, ...]]:
    shapes = _attention()
    shapes |= {"cross_decode.cross_attn.norm_v.weight": (128,)}
    shapes |= {f"sft_key.{name}.weight": (128, 128, 1, 1) for name in ("gamma", "beta")}
    for name, inputs in zip(ENCODERS[:4], (3, 128, 128, 128), strict=True):
        shapes[f"{name}.0.weight"] = (128, inputs, 1, 1)
        for i in (1, 2):
            for n in (1, 2):
                shapes |= {f"{name}.{i}.norm{n}.{part}": (128,) for part in ("weight", "bias")}
                shapes[f"{name}.{i}.conv{n}.weight"] = (128, 128, 1, 1)
    return shapes


def _naf_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, kernel in (("image_encoder.encoder", 1), ("image_encoder.sem_encoder", 3)):
        shapes |= {f"{name}.0.weight": (128, 3, kernel, kernel), f"{name}.0.bias": (128,)}
        for i in (1, 2):
            for n in (1, 2):
                shapes |= {f"{name}.{i}.norm{n}.{part}": (128,) for part in ("weight", "bias")}
                shapes |= {f"{name}.{i}.conv{n}.weight": (128, 128, kernel, kernel), f"{name}.{i}.conv{n}.bias": (128,)}
    return shapes


def _loftup_shapes() -> dict[str, tuple[int, ...]]:
    width = 148  # 128 channels and 20 of the position
    norms = {"ca_transformer.norm": width, "final_conv.1": 128, "first_conv.0.norm": 203}
    shapes: dict[str, tuple[int, ...]] = {"lr_pe.biases": (2, 2, 5), "fourier_feat.1.biases": (2, 5, 20)}
    linear: dict[str, tuple[int, ...]] = {
        "first_conv.1": (width, 203, 3, 3),
        "first_conv.4": (width, width, 3, 3),
        "final_conv.0": (128, width, 1, 1),
    }
    for i in (0, 1):
        layer = f"ca_transformer.layers.{i}"
        norms |= {f"{layer}.0.norm_q": width, f"{layer}.0.norm_kv": width, f"{layer}.1.net.0": width}
        linear |= {f"{layer}.1.net.1": (128, width), f"{layer}.1.net.4": (width, 128)}
        linear |= {f"{layer}.0.attention.out_proj": (width, width)}
        shapes |= {f"{layer}.0.attention.in_proj_weight": (3 * width, width)}
        shapes |= {f"{layer}.0.attention.in_proj_bias": (3 * width,)}
    for name in ("first_conv.2", "first_conv.5"):
        norms[name] = width
        shapes |= {f"{name}.running_mean": (width,), f"{name}.running_var": (width,), f"{name}.num_batches_tracked": ()}
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for name, channels in norms.items():
        shapes |= {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}
    own = {"channelnorm.norm.weight": (128,), "channelnorm.norm.bias": (128,)}
    return {f"upsampler.{key}": shape for key, shape in shapes.items()} | own


def _attention() -> dict[str, tuple[int, ...]]:
    prefix = "cross_decode.cross_attn."
    shapes: dict[str, tuple[int, ...]] = {"cross_decode.conv2d.weight": (128, 128, 3, 3)}
    shapes |= {f"{prefix}norm_{x}.weight": (128,) for x in "qk"}
    shapes |= {f"{prefix}attention.in_proj_weight": (384, 128), f"{prefix}attention.in_proj_bias": (384,)}
    return shapes | {f"{prefix}attention.out_proj.weight": (128, 128), f"{prefix}attention.out_proj.bias": (128,)}


def _of_upsampler(kind: str, key: str, shape: tuple[int, ...]) -> Tensor:
    if len(shape) == 1 and any(part in key for part in ("norm", ".block.0.", ".block.3.")):
        return drawn(kind, key, shape, 1, 0.1) if key.endswith("weight") else drawn(kind, key, shape, 0, 0.05)
    if len(shape) < 2 and kind == "loftup" and key.endswith("weight"):
        return drawn(kind, key, shape, 1, 0.1)
    if key.endswith("bias"):
        return drawn(kind, key, shape, 0, 0.05)
    if key.endswith(("running_mean", "running_var", "biases")):
        return drawn(kind, key, shape, 0, 0.3)
    if key.endswith("basis"):
        return drawn(kind, key, shape, 0, 1)
    if not shape:
        return torch.tensor(0)
    sharp = 2 if "in_proj_weight" in key else 1  # a flat attention would hide mistakes
    return drawn(kind, key, shape, 0, sharp * int(np.prod(shape[1:])) ** -0.5)
