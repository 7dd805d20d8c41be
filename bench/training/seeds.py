"""Random numbers that depend on what they are for, and on nothing that ran before.

Every draw has its own generator, seeded by the training's seed, a purpose and a place (step, epoch, image …).
So a resumed training needs no stored generator states, workers may come in any number, and processes agree
without talking.
"""

from __future__ import annotations

from enum import IntEnum, auto

import numpy as np
import torch


class Purpose(IntEnum):
    """Keeps the streams of one seed apart."""

    WEIGHTS = auto()
    ORDER = auto()
    CROP = auto()
    JITTER = auto()
    DIRECTIONS = auto()
    DROPOUT = auto()


def numpy_generator(seed: int, purpose: Purpose, *place: int) -> np.random.Generator:
    return np.random.default_rng([seed, purpose, *place])


def torch_generator(seed: int, purpose: Purpose, *place: int) -> torch.Generator:
    """On the CPU, so that all devices see the same numbers."""
    return torch.Generator().manual_seed(_number(seed, purpose, *place))


def seed_layers(seed: int, purpose: Purpose, *place: int) -> None:
    """Seeds torch's global generators: initial weights and dropout can draw from no others."""
    torch.manual_seed(_number(seed, purpose, *place))


def _number(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])
