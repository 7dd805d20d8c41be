"""Small models for tests."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import open_clip
import torch

from bench.models.backbone import Backbone
from bench.models.checkpoints import state_fingerprint


def tiny_config(patch_size: int = 16, image_size: int = 224, layers: int = 3) -> dict:
    """An open_clip model config that runs in milliseconds."""
    return {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": image_size,
            "layers": layers,
            "width": 32,
            "head_width": 16,
            "patch_size": patch_size,
        },
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }


@cache
def tiny_model(patch_size: int = 16, image_size: int = 224) -> open_clip.CLIP:
    torch.manual_seed(0)
    model = open_clip.CLIP(**tiny_config(patch_size, image_size))
    return model.requires_grad_(False).eval()


@cache
def tokenizer() -> open_clip.SimpleTokenizer:
    return open_clip.SimpleTokenizer()


def tiny_backbone(patch_size: int = 16, image_size: int = 224) -> Backbone:
    model = tiny_model(patch_size, image_size)
    return Backbone("tiny", model, tokenizer(), state_fingerprint(model.state_dict()))


def write_tiny(folder: Path) -> tuple[Path, Path]:
    """Config JSON and checkpoint of the tiny model, as a user would give them."""
    config, checkpoint = folder / "tiny.json", folder / "tiny.pt"
    config.write_text(json.dumps(tiny_config()))
    torch.save(tiny_model().state_dict(), checkpoint)
    return config, checkpoint
