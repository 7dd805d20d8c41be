"""Finding, building and reading the towers of `backbones:` that are no CLIP."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn

from bench.config import BackboneSpec
from bench.errors import BenchError
from bench.models.checkpoints import load_strictly, state_fingerprint
from bench.models.tower import Tower
from bench.models.weights import missing
from bench.paths import weights_dir


def load_tower(name: str, spec: BackboneSpec, checkpoint: Path | None, device: str, dtype: str) -> Tower:
    """Load the tower that `spec` describes, or draw a tiny one by its seed.

    checkpoint: in place of the file that `spec` names. device, dtype: see `bench.models.clip_weights.load_backbone`.
    BenchError for what is missing, naming what to do.
    """
    module: Any = importlib.import_module(f"bench.models.towers.{spec.library}")
    if spec.seed is not None:
        tower: Tower = getattr(module, f"tiny_{spec.library}")(name, spec.seed, device, dtype)
        return tower
    file = weights_file(name, spec, checkpoint)
    try:
        tower = module.load(name, spec, file, device, dtype)
    except KeyError as error:  # of weights that say how large a part is
        raise BenchError(f"{file}: lacks the weights {error}; give the file of backbone {name}") from None
    return tower


def random_tower(name: str, spec: BackboneSpec, device: str, dtype: str) -> Tower:
    """Return the tower at its true size with random weights, to measure its speed."""
    module: Any = importlib.import_module(f"bench.models.towers.{spec.library}")
    tower: Tower = module.random(name, spec, device, dtype)
    return tower


def weights_file(name: str, spec: BackboneSpec, checkpoint: Path | None) -> Path:
    """Return the file of a tower's weights. BenchError where it is not there, saying how to get it."""
    file = checkpoint or weights_dir() / (spec.file or f"{name}.safetensors")
    if not file.is_file():
        raise missing(name, spec, file)
    return file


def of_timm(model: str, **size: Any) -> Any:
    """Build a model of timm whose weights are to be filled in. BenchError for one that timm has not, or not so."""
    try:
        return timm.create_model(model, num_classes=0, **size)
    except (RuntimeError, TypeError) as error:
        raise BenchError(
            f"timm {timm.__version__} cannot build '{model}' as this tower ({error}); correct `model` in `backbones:`"
        ) from None


def needs(package: str, backbone: str) -> Any:
    """Import a package of the extra `towers`. BenchError where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise BenchError(
            f"backbone {backbone} needs {package} ({error}); install it with `pip install 'ovss-bench[towers]'`"
        ) from None


def filled(module: nn.Module, state: Mapping[str, Tensor], file: Path, what: str) -> str:
    """Load weights strictly. Returns their fingerprint; BenchError for those of another model."""
    load_strictly(module, {name: value.float() for name, value in state.items()}, file, what)
    return state_fingerprint(module.state_dict())


def count_blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    """Count the blocks that have weights, by names that go on with a number after the prefix."""
    return len({name.removeprefix(prefix).partition(".")[0] for name in state if name.startswith(prefix)})
