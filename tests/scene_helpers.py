"""Counts of scenes, for tests of intervals and comparisons."""

from __future__ import annotations

import numpy as np

from bench import metrics
from bench.metrics import bootstrap


def scenes_of(confusions: np.ndarray, unit: bootstrap.Unit) -> bootstrap.Scenes:
    return bootstrap.Scenes(metrics.areas(confusions), unit)
