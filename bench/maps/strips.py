"""Scores of a scene at its own resolution, strip by strip: only the windows that still overlap are in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from bench.errors import BenchError
from bench.inference.row import Row
from bench.inference.segmenter import Segmenter
from bench.inference.windows import RollingMean, window_boxes, window_starts
from bench.maps.scene import Scene
from bench.models.collector import Box
from bench.runtime.sources import described


def strip_edges(height: int, segmenter: Segmenter) -> list[int]:
    """Rows at which strips begin, and the height: where a row of windows begins, no earlier one changes again."""
    return [*dict.fromkeys(window_starts(height, segmenter.window, segmenter.stride)), height]


def score_strips(
    segmenter: Segmenter,
    scene: Scene,
    strips: range | None = None,
    weight: Callable[[int, int], Tensor] | None = None,
    done: Callable[[int], None] = lambda _: None,
) -> Iterator[dict[str, Tensor]]:
    """Yield strips of the stitched scores, from top to bottom, each complete: row name -> (Q, h, width).

    Put together they are what `Segmenter.scores` gives for the whole scene at once: same windows in the same
    batches, each pixel the mean of all windows that hold it. A window without any data is not computed: all of its
    pixels score zero in it, which no pixel with data sees.

    strips: numbers of the strips that are wanted, next to each other; each is the same whichever others are.
    weight: (height, width) -> weights (h, w) of a window's pixels in the mean; None: all alike.
    done: told how many windows are through.

    Raises BenchError for what a row's method raises or gives, and where memory runs out.
    """
    edges = strip_edges(scene.height, segmenter)
    strips = range(len(edges) - 1) if strips is None else strips
    rows = segmenter.rows
    boxes = window_boxes(scene.height, scene.width, segmenter.window, segmenter.stride)
    top, bottom = edges[strips.start], edges[strips.stop]
    first = next(number for number, box in enumerate(boxes) if box.bottom > top) // segmenter.batch * segmenter.batch
    last = next((number for number, box in enumerate(boxes) if box.top >= bottom), len(boxes))
    device = segmenter.backbone.device
    means = {row.name: RollingMean(len(row.classes), scene.width, device, boxes[first].top) for row in rows}
    waiting = list(strips)
    for start in range(first, last, segmenter.batch):
        chunk = boxes[start : start + segmenter.batch]
        _add(segmenter, scene, chunk, rows, means, weight)
        done(len(chunk))
        after = boxes[start + len(chunk)].top if start + len(chunk) < last else bottom
        if after > top > means[rows[0].name].top:
            for mean in means.values():
                mean.take(top)  # above what is wanted
        while waiting and edges[waiting[0] + 1] <= after:
            end = edges[waiting.pop(0) + 1]
            yield {name: mean.take(end) for name, mean in means.items()}


def _add(
    segmenter: Segmenter,
    scene: Scene,
    boxes: Sequence[Box],
    rows: Sequence[Row],
    means: dict[str, RollingMean],
    weight: Callable[[int, int], Tensor] | None,
) -> None:
    """Compute a batch of windows, as far as they hold data, and add them to the means."""
    held = [not _is_empty(scene, box) for box in boxes]
    found: dict[str, Tensor | Exception] = {}
    if any(held):
        images = [scene.read(box) for box, holds in zip(boxes, held, strict=True) if holds]
        found = segmenter.window_scores(torch.from_numpy(np.stack(images)), rows)
    for row in rows:
        scores, mean = iter(of_row(row, found.get(row.name, torch.empty(0)), scene.name)), means[row.name]
        for box, holds in zip(boxes, held, strict=True):
            height, width = box.bottom - box.top, box.right - box.left
            one = next(scores) if holds else torch.zeros((), device=segmenter.backbone.device)
            mean.add(box, one, None if weight is None else weight(height, width))


def of_row(row: Row, found: Tensor | Exception, source: str) -> Tensor:
    """Return what a row gave of a scene; one line, a BenchError, for what it raised, and for NaN and infinity."""
    if isinstance(found, BenchError):
        raise found
    if isinstance(found, Exception):
        said = described(found, row.method)
        raise BenchError(f"{source}: the method '{row.name}' failed: {said}") from found
    if not bool(found.sum().isfinite()):
        raise BenchError(f"{source}: the method '{row.name}' gives scores that are not finite (NaN or infinity)")
    return found


def _is_empty(scene: Scene, box: Box) -> bool:
    empty = scene.empty(box)
    return empty is not None and bool(empty.all())


def gaussian(height: int, width: int) -> Tensor:
    """Weights (height, width) of a window's pixels that fall towards its borders: σ is an eighth of its side.

    None is below a thousandth, so that a pixel that only a window's corner holds keeps its scores.
    """
    axes = [torch.arange(side) - (side - 1) / 2 for side in (height, width)]
    down, across = (torch.exp(-((axis * 8 / side) ** 2) / 2) for axis, side in zip(axes, (height, width), strict=True))
    return (down[:, None] * across).clamp_min(1e-3)
