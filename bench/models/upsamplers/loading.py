"""Upsampler weights from files: released Lightning checkpoints, torch state dicts, safetensors."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.errors import BenchError
from bench.models.checkpoints import read_state_dict
from bench.models.upsamplers.base import KINDS, Upsampler, find_kind

_PREFIX = "upsampler."


def load_upsampler(kind: str | None, checkpoint: Path | None, dim: int, seed: int | None = None) -> Upsampler:
    """Load an upsampler in evaluation mode, for features of `dim` channels.

    kind: of `KINDS`; None: what the checkpoint is seen to hold. Without a checkpoint the weights are those of
    `draw`, or without a seed those that training begins with.

    Raises:
        BenchError: an unknown kind; a file that is no checkpoint, or one of another kind or embedding width.
    """
    if checkpoint is None:
        new = find_kind(kind or "jbu_one").blank(dim)
        if seed is not None:
            draw(new, seed)
        return new.eval()
    if kind is not None:
        find_kind(kind)  # before the file is read
    state = read_state(checkpoint)
    held = next((name for name, cls in KINDS.items() if cls.recognises(state)), None)
    if kind is not None and held not in (None, kind):
        raise BenchError(f"{checkpoint}: holds a {held}, not a {kind}; set kind: {held} or name another file")
    if kind is None and held is None:
        raise BenchError(
            f"{checkpoint}: no upsampler in it (the first key is {next(iter(state))!r}); name another file, or its kind"
        )
    return find_kind(kind or held or "").of_state(state, dim, checkpoint).eval()


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the upsampler's tensors of a file, by the names that the modules have (no "upsampler." in front)."""
    state = read_state_dict(path)
    ours = {
        key.removeprefix(_PREFIX): value for key, value in state.items() if key.startswith((_PREFIX, "channelnorm."))
    }
    return ours or state


@torch.no_grad()
def draw(upsampler: Upsampler, seed: int) -> None:
    """Weights from a recipe, the same on any machine; each tensor from its own generator.

    Gains of norms are about 1, biases about 0, the rest is normal with the variance 1 / inputs.
    """
    for name, parameter in upsampler.named_parameters():
        drawn = np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(tuple(parameter.shape))
        if parameter.dim() < 2:
            values = 0.05 * drawn if name.endswith("bias") else 1 + 0.1 * drawn
        else:
            values = drawn / np.sqrt(np.prod(parameter.shape[1:]))
        parameter.copy_(torch.from_numpy(np.asarray(values, dtype=np.float32)))
