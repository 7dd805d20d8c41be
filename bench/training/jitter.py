"""Multi-view consistency (FeatUp): one random flip, shift and zoom for an image and its features alike."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_PAD = 20
MAX_ZOOM = 2.0


class Jitter(NamedTuple):
    """MAX_PAD pixels reflected beyond each border; enlarged by `zoom`; cut at (top, left); mirrored."""

    zoom: float
    top: int
    left: int
    flip: bool


def draw_jitter(size: int, generator: torch.Generator) -> Jitter:
    """For maps of side `size`: half of the time a flip, half of the time a zoom, a cut anywhere inside."""
    flip, zoomed, amount = torch.rand(3, generator=generator).tolist()
    zoom = 1 + amount * (MAX_ZOOM - 1) if zoomed > 0.5 else 1.0
    places = int((size + 2 * MAX_PAD) * zoom) - size + 1
    top, left = torch.randint(0, places, (2,), generator=generator).tolist()
    return Jitter(zoom, top, left, flip > 0.5)


def apply_jitter(maps: Tensor, jitter: Jitter) -> Tensor:
    """(B, C, S, S) -> (B, C, S, S), differentiable.

    The transform is linear and acts on rows and columns apart, so it is two matrix products. The padded and
    the zoomed map, up to six times as large, are never made.
    """
    size = maps.shape[-1]
    rows = _line(size, jitter.zoom, jitter.top).to(maps.device)
    columns = _line(size, jitter.zoom, jitter.left, jitter.flip).to(maps.device)
    return rows @ maps @ columns.T


def _line(size: int, zoom: float, start: int, flip: bool = False) -> Tensor:
    """Return the transform along one axis: (S, S), a row for each new pixel, a column for each old one."""
    line = F.pad(torch.eye(size)[None], [MAX_PAD, MAX_PAD], mode="reflect")
    if zoom > 1:
        line = F.interpolate(line, scale_factor=zoom, mode="linear")
    line = line[0, :, start : start + size]
    return (line.flip(1) if flip else line).T.contiguous()
