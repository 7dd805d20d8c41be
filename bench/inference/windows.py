"""Sliding windows over the network's input, and the average of what is computed in them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.models.collector import Box


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Return starts along one axis. The last window is moved back to the border; a short axis gives one window."""
    count = max(length - window + stride - 1, 0) // stride + 1
    return [max(min(index * stride, length - window), 0) for index in range(count)]


def window_boxes(height: int, width: int, window: int, stride: int) -> list[Box]:
    """All windows of an image, row by row; each is `window` long, or the image's side where that is shorter.

    window: 0 for one window, the whole image.
    """
    if not window:
        return [Box(0, 0, height, width)]
    return [
        Box(top, left, min(top + window, height), min(left + window, width))
        for top in window_starts(height, window, stride)
        for left in window_starts(width, window, stride)
    ]


def squashed_size(height: int, width: int, multiple: int, window: int) -> tuple[int, int]:
    """Return (height, width) of an image that is stretched to multiples of a number, as Trident and RADSeg do it.

    An image whose sides are multiples keeps its size; another gets a longer side rounded up, a shorter one in
    proportion and rounded up, and no side below the window's.
    """
    longer = max(height, width)
    if height % multiple == 0 and width % multiple == 0:
        return height, width
    scaled = -(-longer // multiple) * multiple
    sides = [-(-(side * scaled // longer) // multiple) * multiple for side in (height, width)]
    return max(sides[0], window), max(sides[1], window)


def pad_to_multiple(windows: Tensor, patch: int) -> tuple[Tensor, Box]:
    """Zero-pads (B, 3, h, w) to multiples of `patch`, evenly, an odd pixel going right and bottom.

    Zero is the mean colour, as the windows are normalised. Also returns where the original is in the padded
    windows.
    """
    height, width = windows.shape[-2:]
    padded_h, padded_w, inside = padded_size(height, width, patch)
    right, bottom = padded_w - inside.right, padded_h - inside.bottom
    return F.pad(windows, (inside.left, right, inside.top, bottom)), inside


def padded_size(height: int, width: int, patch: int) -> tuple[int, int, Box]:
    """Height and width of what `pad_to_multiple` gives, and where the original is in it."""
    pad_h, pad_w = -height % patch, -width % patch
    top, left = pad_h // 2, pad_w // 2
    return height + pad_h, width + pad_w, Box(top, left, top + height, left + width)


class WindowMean:
    """Mean over windows of score maps (…, H, W), such as (R, Q, H, W) of R rows with Q queries."""

    def __init__(self, maps: tuple[int, ...], height: int, width: int, device: torch.device) -> None:
        self._sum = torch.zeros(*maps, height, width, device=device)
        self._count = torch.zeros(height, width, device=device)

    def add(self, box: Box, scores: Tensor | Sequence[Tensor], weight: Tensor | None = None) -> None:
        """Add the (…, h, w) scores of one window, or a sequence of maps along the first axis.

        weight: (h, w) of its pixels in the mean, with a tensor of scores; None: 1.
        """
        rows, columns = slice(box.top, box.bottom), slice(box.left, box.right)
        if weight is not None:
            assert isinstance(scores, Tensor)
            weight = weight.to(self._count.device)
            scores = scores * weight
        self._count[rows, columns].add_(1 if weight is None else weight)
        if isinstance(scores, Tensor):
            self._sum[..., rows, columns].add_(scores)
            return
        for total, one in zip(self._sum, scores, strict=True):
            total[..., rows, columns].add_(one)

    def mean(self) -> Tensor:
        """(…, H, W), once, after the last window; every pixel must be in at least one."""
        return self._sum.div_(self._count)


class RollingMean(WindowMean):
    """Mean over windows, as wide as the image and only as high as the windows that still overlap.

    Its upper rows are taken away as soon as no further window will touch them. top: the image's row that is its first.
    """

    def __init__(self, queries: int, width: int, device: torch.device, top: int = 0) -> None:
        super().__init__((queries,), 0, width, device)
        self.top = top

    def add(self, box: Box, scores: Tensor | Sequence[Tensor], weight: Tensor | None = None) -> None:
        missing = box.bottom - self.top - len(self._count)
        if missing > 0:
            self._sum = F.pad(self._sum, (0, 0, 0, missing))
            self._count = F.pad(self._count, (0, 0, 0, missing))
        super().add(Box(box.top - self.top, box.left, box.bottom - self.top, box.right), scores, weight)

    def take(self, bottom: int) -> Tensor:
        """Take the mean (Q, bottom - top, W) of the rows above `bottom`, which must be complete, and forget them."""
        rows = bottom - self.top
        mean = self._sum[:, :rows] / self._count[:rows]
        self._sum, self._count = self._sum[:, rows:].clone(), self._count[rows:].clone()
        self.top = bottom
        return mean
