"""Counts of scenes, for tests of intervals and comparisons."""

from __future__ import annotations

import numpy as np

from bench import metrics
from bench.metrics.intervals import Scenes, Unit


def scenes_of(confusions: np.ndarray, unit: Unit = "scene", metric: str = "miou") -> Scenes:
    return Scenes(metrics.areas(confusions), unit, metric)
