"""Records of a training besides weights: a CSV of its losses, and pictures of features."""

from __future__ import annotations

import csv
import io
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from bench.errors import BenchError
from bench.runtime.atomic import write_atomic

_GAP = 4  # white pixels between the parts of a picture


@dataclass(frozen=True)
class LogRecord:
    """Losses of step `step` (from 1), means over all its images and jitters.

    seconds: how long it took
    peak_gib: the most memory that the leading process, or its GPU, has used so far
    """

    step: int
    epoch: int
    loss: float
    reconstruction: float
    image: float
    seconds: float
    peak_gib: float


class Log:
    """A CSV with one line a step, on disk as soon as it is written."""

    def __init__(self, path: Path, done: int) -> None:
        """Keep the first `done` steps of an older log: a resumed training writes the later ones again."""
        self.path = path
        header = [field.name for field in fields(LogRecord)]
        rows = _rows(path) if done else []
        kept = [row for row in rows if int(row[0]) <= done]
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows([header, *kept])
        write_atomic(path, buffer.getvalue().encode())

    def write(self, entry: LogRecord) -> None:
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(astuple(entry))


def _rows(path: Path) -> list[list[str]]:
    """Whole lines below the header; a crash of the machine may have torn the last."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)[1:]
    rows = [line.strip().split(",") for line in lines if line.endswith("\n")]
    width = len(fields(LogRecord))
    if any(len(row) != width or not row[0].isdigit() for row in rows):
        raise BenchError(f"{path}: not a training log of {width} columns; move it away and resume again")
    return rows


def feature_picture(image: NDArray[np.uint8], before: Tensor, after: Tensor) -> bytes:
    """PNG, side by side: the image (S, S, 3), its patch features (C, h, w), its pixel features (C, S, S).

    Colours are the three principal components of the patch features, the same for both.
    """
    mean, axes = _principal_axes(before)
    low, high = ((features.double().cpu().permute(1, 2, 0) - mean) @ axes for features in (before, after))  # (H, W, 3)
    bounds = torch.quantile(low.flatten(0, 1), low.new_tensor([0.02, 0.98]), dim=0)  # (2, 3)
    side = image.shape[0]
    parts = [image]
    for colours in (low, high):
        scaled = ((colours - bounds[0]) / (bounds[1] - bounds[0]).clamp_min(1e-6)).clamp(0, 1) * 255
        picture = Image.fromarray(scaled.round().to(torch.uint8).numpy())
        parts.append(np.asarray(picture.resize((side, side), Image.Resampling.NEAREST)))
    gap = np.full((side, _GAP, 3), 255, np.uint8)
    strip = np.concatenate([parts[0], gap, parts[1], gap, parts[2]], axis=1)
    buffer = io.BytesIO()
    Image.fromarray(strip).save(buffer, "PNG")
    return buffer.getvalue()


def _principal_axes(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (C,) of (C, h, w) and three directions (C, 3) of most variance, signs not left to luck."""
    points = features.flatten(1).T.double().cpu()
    mean = points.mean(0)
    axes = torch.linalg.svd(points - mean, full_matrices=False).Vh[:3].T  # (C, 3)
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    return mean, axes * largest.sign()
