"""The weights of the tiny CLIP, as open_clip takes them.

The token table is stored as the rows that training used and their indices; the other rows are zero.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.errors import BenchError
from bench.models.checkpoints import TOKEN_INDICES, TOKEN_ROWS, TOKEN_TABLE, with_token_table

WEIGHTS: Final = Path(__file__).resolve().parents[1] / "weights"
CONFIG_FILE: Final = WEIGHTS / "tiny-clip.json"


def demo_backbone(weights: Path = WEIGHTS / "tiny-clip.safetensors") -> tuple[Path, dict[str, Tensor]]:
    """The model-config JSON of the tiny CLIP and its state dict in float32, with the names and shapes of
    open_clip.
    """
    return CONFIG_FILE, load_packed(weights)


def read_config() -> dict[str, Any]:
    """open_clip's model configuration of the tiny CLIP, as a dict."""
    config: dict[str, Any] = json.loads(CONFIG_FILE.read_text())
    return config


def save_packed(state: dict[str, Tensor], tokens: Tensor, path: Path, metadata: dict[str, str]) -> None:
    """Write a state dict whose token table (n, width) has only the rows of `tokens` (n,), as float16
    safetensors.
    """
    packed = {name: value.half().contiguous() for name, value in state.items() if name != TOKEN_TABLE}
    packed[TOKEN_ROWS] = state[TOKEN_TABLE].half().contiguous()
    packed[TOKEN_INDICES] = tokens.to(torch.int32)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.part")
    save_file(packed, partial, metadata)
    partial.replace(path)


def load_packed(path: Path) -> dict[str, Tensor]:
    """What `save_packed` wrote, in float32 and with the whole token table."""
    if not path.exists():
        raise BenchError(f"{path}: no such file; restore it, or train it: python -m bench.demo.clip.train --out {path}")
    whole = with_token_table(load_file(path), read_config()["text_cfg"]["vocab_size"])
    return {name: value.float() for name, value in whole.items()}
