"""Files of a training: the checkpoint to resume from, which a run takes too, and the bare upsampler."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from bench.errors import BenchError
from bench.runtime.atomic import write_atomic
from bench.training.trainer import Trainer

_PREFIX = "upsampler."  # of the released Lightning checkpoints, whose `state_dict` holds such keys alone


def save_checkpoint(path: Path, trainer: Trainer, images: str) -> None:
    """Write the whole state, atomically. images: fingerprint of the image list.

    ``state_dict`` has the layout of the released checkpoints; nothing in the file needs more than
    weights-only loading.
    """
    nets = {name: value.cpu() for name, value in trainer.learner.state_dict().items()}
    content = {
        "state_dict": {name: value for name, value in nets.items() if name.startswith(_PREFIX)},
        "global_step": trainer.done,
        "training": {
            "identity": _identity(trainer, images),
            "other_nets": {name: value for name, value in nets.items() if not name.startswith(_PREFIX)},
            "optimizer": trainer.optimizer.state_dict(),
        },
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomic(path, buffer.getvalue())


def restore_checkpoint(path: Path, trainer: Trainer, images: str) -> None:
    """Put the stored state into `trainer`.

    Raises BenchError where the file is missing or no training checkpoint, or belongs to another training.
    """
    content = _read(path)
    training = content["training"]
    for key, value in _identity(trainer, images).items():
        if (stored := training["identity"].get(key)) != value:
            raise BenchError(
                f"{path}: was trained with {key} = {stored}, not {value}; resume with the same flags, or train again "
                "with another --out"
            )
    trainer.learner.load_state_dict({**content["state_dict"], **training["other_nets"]})
    trainer.optimizer.load_state_dict(training["optimizer"])
    trainer.done = content["global_step"]


def save_upsampler(path: Path, trainer: Trainer) -> None:
    """Write the upsampler alone as safetensors, by its modules' names; settings are in the metadata."""
    state = {name: value.cpu().contiguous() for name, value in trainer.learner.upsampler.state_dict().items()}
    training = {**trainer.settings.model_dump(), "steps": trainer.done}
    write_atomic(path, safetensors.torch.save(state, {"training": json.dumps(training)}))


def _identity(trainer: Trainer, images: str) -> dict[str, Any]:
    """Return all that must not change between the parts of one training."""
    return {
        **trainer.settings.model_dump(),
        "processes": trainer.distributed.size,
        "backbone": trainer.backbone.fingerprint,
        "images": images,
    }


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise BenchError(f"--resume: {path} does not exist; leave --resume out to start from nothing")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types on damaged files
        raise BenchError(f"{path}: cannot be read ({type(error).__name__}); train again with another --out") from None
    if not isinstance(content, dict) or "training" not in content:
        raise BenchError(f"{path}: an upsampler without the state of its training; it cannot be resumed")
    return content
