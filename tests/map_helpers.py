"""Synthetic scenes that lie somewhere, and rows that are quick on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rasterio.transform import from_origin
from reference import tiny_backbone

from bench.inference.row import Row
from bench.inference.segmenter import Segmenter
from bench.maps.plan import RowGroup
from bench.models.text import Vocabulary
from bench.registry import load_methods
from bench.settings import ResizeRule, Settings

CRS, METRES = "EPSG:25832", 0.5
ORIGIN = 500_000.0, 5_600_000.0
VOCABULARY = Vocabulary.parse("background; road & rail; water, river")


def scene(file: Path, bands: NDArray[Any], crs: str | None = CRS, metres: float = METRES, **profile: Any) -> Path:
    """Write bands (count, H, W) as a raster whose upper left corner is ORIGIN."""
    count, height, width = bands.shape
    options = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": bands.dtype, **profile}
    place = {} if crs is None else {"crs": crs, "transform": from_origin(*ORIGIN, metres, metres)}
    with rasterio.open(file, "w", **options, **place) as written:
        written.write(bands)
    return file


def noise(height: int = 150, width: int = 110, count: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    """Coarse noise (count, H, W), nowhere zero."""
    cells = np.random.default_rng(seed).integers(1, 256, (count, -(-height // 10), -(-width // 10)), dtype=np.uint8)
    return cells.repeat(10, axis=1).repeat(10, axis=2)[:, :height, :width]


def rows(*names: str, batch: int = 3) -> RowGroup:
    """Return methods on the tiny backbone with windows of 64 pixels every 48."""
    backbone = tiny_backbone()
    ready, settings = [], {}
    for name in names:
        text = F.normalize(torch.randn(4, 24, generator=torch.Generator().manual_seed(1)), dim=-1)
        ready.append(
            Row(name, load_methods()[name].build({}), text, torch.tensor([0, 1, 2, 2]), inputs={"weights": "x"})
        )
        settings[name] = Settings.neutral(name, "-", name, window=64, stride=48)
    return RowGroup([Segmenter(backbone, ready, 64, 48, batch, ResizeRule(long_side=64))], settings, VOCABULARY)
