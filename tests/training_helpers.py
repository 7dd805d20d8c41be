"""A small training: images of coloured squares, a tiny backbone with patches of 8 pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from reference import tiny_backbone
from torch import Tensor, nn

from bench.runtime.distributed import Distributed
from bench.training.crops import Crops, find_images
from bench.training.loop import train
from bench.training.losses import AttentionDownsampler
from bench.training.spec import RunLength, TrainingConfig
from bench.training.trainer import Trainer

SMALL = TrainingConfig(radius=2, crop=32, batch=2, jitters=2, projection=4)  # a grid of 4×4


def small(**changes: Any) -> TrainingConfig:
    """SMALL with other values."""
    return SMALL.model_copy(update=changes)


def write_images(folder: Path, count: int, size: int = 48) -> Path:
    """Squares of one colour on a ground of another, as PNG files; every other one in a subfolder."""
    for number in range(count):
        rng = np.random.default_rng(number)
        image = np.empty((size, size, 3), np.uint8)
        image[:] = rng.integers(0, 256, 3)
        top, left = rng.integers(0, size // 2, 2)
        image[top : top + size // 2, left : left + size // 2] = rng.integers(0, 256, 3)
        home = folder / "more" if number % 2 else folder
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(home / f"{number}.png")
    return folder


def new_trainer(settings: TrainingConfig = SMALL, distributed: Distributed | None = None) -> Trainer:
    return Trainer(tiny_backbone(8, 32), settings, distributed or Distributed())


def batch_of(folder: Path, indices: range) -> Tensor:
    """Crops (B, 32, 32, 3) of the images below `folder`."""
    return Crops(find_images(folder).paths, SMALL.crop, seed=0).batch([(0, index) for index in indices]).pixels


def train_small(images: Path, out: Path, steps: int, settings: TrainingConfig = SMALL, **plan: Any) -> Trainer:
    """A whole training in this process."""
    wanted = RunLength(out=out, steps=steps, workers=0, **plan)
    return train(tiny_backbone(8, 32), find_images(images), settings, wanted, Distributed())


def without_dropout(trainer: Trainer) -> Trainer:
    """What is left of a step's randomness are jitters and directions."""
    for module in trainer.learner.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0
        if isinstance(module, AttentionDownsampler):
            module.patch_dropout = 0.0
    return trainer
