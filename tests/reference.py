"""The reference's outputs beside the checkout, when they are there, and small models for tests."""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import open_clip
import pytest
import torch

from bench.models.backbone import Backbone
from bench.models.checkpoints import state_fingerprint

SHARED = Path(__file__).resolve().parents[2] / "shared"
GOLDEN = SHARED / "golden"
SAMPLES = SHARED / "samples"
needs_golden = pytest.mark.beside("golden")
needs_samples = pytest.mark.beside("samples")


@cache
def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return {key: arrays[key] for key in arrays.files}


@cache
def recipe() -> ModuleType:
    """The script that recreates the weights and images of the reference's outputs."""
    spec = importlib.util.spec_from_file_location("golden_weights", GOLDEN / "weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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


def tiny_backbone(patch_size: int = 16, image_size: int = 224) -> Backbone:
    model = tiny_model(patch_size, image_size)
    return Backbone("tiny", model, open_clip.SimpleTokenizer(), state_fingerprint(model.state_dict()))


def write_tiny(folder: Path) -> tuple[Path, Path]:
    """Config JSON and checkpoint of the tiny model, as a user would give them."""
    config, checkpoint = folder / "tiny.json", folder / "tiny.pt"
    config.write_text(json.dumps(tiny_config()))
    torch.save(tiny_model().state_dict(), checkpoint)
    return config, checkpoint
