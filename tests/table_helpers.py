"""Stored results of small pictures, for tests of tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from store_helpers import stored

from bench.config import load_config
from bench.data.cards import load_card
from bench.report.scores import Collection, collect
from bench.settings import Overrides

GOOD = [[60, 20], [20, 100]]  # IoU 0.6 and 5/7
FAIR = [[40, 40], [40, 80]]  # IoU 1/3 and 0.5
CONFIG = load_config()


def as_configured(row: str, dataset: str) -> dict[str, Any]:
    """Settings that benchmark.yaml and the card give a row whose method has no defaults of its own."""
    return CONFIG.settings_of(row, load_card(dataset), Overrides()).model_dump(exclude={"row", "dataset"})


def put(folder: Path, row: str, dataset: str, images: list[list[list[int]]], **options: Any) -> None:
    """A cell as benchmark.yaml has it; its images have the given confusions of the first classes.

    like: a row whose settings it has, in place of its own.
    """
    changes = {**as_configured(options.pop("like", row), dataset), **options.pop("changes", {})}
    size = max([2, changes["background"] + 1, *map(len, images)])
    padded = [np.pad(image, (0, size - len(image))) for image in images]
    metric = "foreground_iou" if size == 2 else "miou"
    stored(folder, row, dataset, padded, size=size, changes=changes, metric=metric, **options)


def only(folder: Path) -> Collection:
    (collection,) = collect(folder, CONFIG)
    return collection
