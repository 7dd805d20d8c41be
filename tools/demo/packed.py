"""The weights' file of the tiny CLIP: float16, and of the token table the rows that training used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from bench.demo.config import CONFIG_FILE
from bench.models.checkpoints import TOKEN_INDICES, TOKEN_ROWS, TOKEN_TABLE, read_state_dict, with_token_table
from bench.runtime.atomic import write_asked


def read_config() -> dict[str, Any]:
    """open_clip's model configuration of the tiny CLIP, as a dict."""
    config: dict[str, Any] = json.loads(CONFIG_FILE.read_text())
    return config


def save_packed(state: dict[str, Tensor], tokens: Tensor, path: Path, metadata: dict[str, str]) -> None:
    """Write a state dict whose token table (n, width) has only the rows of `tokens` (n,), as float16 safetensors."""
    packed = {name: value.half().contiguous() for name, value in state.items() if name != TOKEN_TABLE}
    packed[TOKEN_ROWS] = state[TOKEN_TABLE].half().contiguous()
    packed[TOKEN_INDICES] = tokens.to(torch.int32)
    write_asked(path, save(packed, metadata))


def load_packed(path: Path) -> dict[str, Tensor]:
    """Read the state dict of such a file in float32, with the whole token table. BenchError where it cannot be read."""
    whole = with_token_table(read_state_dict(path), read_config()["text_cfg"]["vocab_size"])
    return {name: value.float() for name, value in whole.items()}
