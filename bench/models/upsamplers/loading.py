"""Upsampler weights from files: released Lightning checkpoints, torch state dicts, safetensors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from bench.errors import BenchError, did_you_mean
from bench.models.checkpoints import load_strictly, read_state_dict
from bench.models.upsamplers.upsampler import JBUOne, JBUStack, Upsampler

KINDS = ("jbu_one", "jbu_stack")
_PREFIX = "upsampler."


def load_upsampler(kind: str | None, checkpoint: Path | None, dim: int) -> Upsampler:
    """An upsampler in evaluation mode, for features of `dim` channels.

    The kernels' radius and the number of modules come from the checkpoint, the kind too if `kind` is None.
    Without a checkpoint the weights are random, for training.

    Raises:
        BenchError: an unknown kind; a file that is no checkpoint, or one of another kind or embedding width.
    """
    if kind is not None and kind not in KINDS:
        raise BenchError(f"unknown upsampler kind {kind!r}; {did_you_mean(kind, KINDS)}")
    if checkpoint is None:
        return (JBUStack(dim) if kind == "jbu_stack" else JBUOne(dim)).eval()
    state = read_state(checkpoint)
    shape = _shape_of(state, checkpoint)
    if kind not in (None, shape.kind):
        raise BenchError(
            f"{checkpoint}: holds a {shape.kind}, not a {kind}; set kind: {shape.kind} or name another file"
        )
    upsampler: Upsampler = (
        JBUOne(dim, shape.radius) if shape.kind == "jbu_one" else JBUStack(dim, shape.radius, shape.modules)
    )
    _check_width(upsampler, state, checkpoint)
    load_strictly(upsampler, state, checkpoint, shape.kind)
    return upsampler.eval()


def read_state(path: Path) -> dict[str, Tensor]:
    """The upsampler's tensors of a file, by the names that the modules have (no "upsampler." in front)."""
    state = read_state_dict(path)
    ours = {key.removeprefix(_PREFIX): value for key, value in state.items() if key.startswith(_PREFIX)}
    return ours or state


class _Shape(NamedTuple):
    kind: str
    radius: int
    modules: int


def _shape_of(state: Mapping[str, Tensor], path: Path) -> _Shape:
    """What the file itself says about the upsampler that it was made for."""
    names = {match[1] for key in state if (match := re.match(r"(up\d*)\.", key))}
    if not names:
        found = f"the first key is {next(iter(state))!r}" if state else "it is empty"
        raise BenchError(f"{path}: no upsampler in it ({found}, none starts with 'up'); name another file")
    key = f"{min(names)}.fixup_proj.3.bias"
    if key not in state:
        raise BenchError(f"{path}: key {key!r} is missing; download or save the checkpoint again")
    taps = state[key].numel()
    diameter = math.isqrt(taps)
    if diameter**2 != taps or diameter % 2 == 0:
        raise BenchError(f"{path}: {key!r} has {taps} values, no odd square, so no kernel; name another file")
    return _Shape("jbu_one" if "up" in names else "jbu_stack", radius=diameter // 2, modules=len(names))


def _check_width(upsampler: Upsampler, state: Mapping[str, Tensor], path: Path) -> None:
    """The commonest mistake gets an answer of its own."""
    closing = state.get("fixup_proj.1.bias")
    if closing is not None and closing.numel() != upsampler.dim:
        raise BenchError(
            f"{path}: made for another embedding width: 'fixup_proj.1.bias' has {closing.numel()} channels, "
            f"features have {upsampler.dim}; use the backbone that it was trained with"
        )
