"""Scores of a scene at its own resolution, strip by strip: only the windows that still overlap are in memory."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bench.errors import BenchError
from bench.inference.row import Row
from bench.inference.segmenter import Segmenter
from bench.inference.windows import RollingMean, window_boxes
from bench.maps.scene import Scene
from bench.models.collector import Box
from bench.runtime.device import to_device
from bench.runtime.sources import described

_COLUMNS: Final = 1024  # of a strip that are refined at once


def strip_edges(height: int, segmenter: Segmenter) -> list[int]:
    """Rows at which strips begin, and the height: where a row of windows begins, no earlier one changes again."""
    return [*(box.top for box in window_boxes(height, 1, segmenter.window, segmenter.stride)), height]


def score_strips(
    segmenter: Segmenter,
    scene: Scene,
    strips: range | None = None,
    weight: Callable[[int, int], Tensor] | None = None,
    done: Callable[[int], None] = lambda _: None,
) -> Iterator[dict[str, Tensor]]:
    """Yield strips of the stitched and refined scores, from top to bottom, each complete: row name -> (Q, h, width).

    Put together they are what `Segmenter.scores` gives for the whole scene at once: same windows in the same
    batches, each pixel the mean of all windows that hold it. A window without any data is not computed: all of its
    pixels score zero in it, which no pixel with data sees. A refinement is given as much around a strip as it reaches.

    strips: numbers of the strips that are wanted, next to each other; each is the same whichever others are.
    weight: (height, width) -> weights (h, w) of a window's pixels in the mean; None: all alike.
    done: told how many windows are through.

    Raises BenchError for what a row's method raises or gives, and where memory runs out.
    """
    edges = strip_edges(scene.height, segmenter)
    strips = range(len(edges) - 1) if strips is None else strips
    reach = _reach(segmenter)
    first = bisect_right(edges, max(edges[strips.start] - reach, 0)) - 1
    last = bisect_left(edges, min(edges[strips.stop] + reach, scene.height))
    top = edges[first]
    held: dict[str, Tensor] = {}  # from `top` on
    waiting = list(strips)
    for end, found in zip(
        edges[first + 1 : last + 1], _stitched(segmenter, scene, range(first, last), weight, done), strict=True
    ):
        held = {name: torch.cat([held[name], new], dim=1) if held else new for name, new in found.items()}
        while waiting and end >= min(edges[waiting[0] + 1] + reach, scene.height):
            box = Box(edges[waiting[0]], 0, edges[waiting.pop(0) + 1], scene.width)
            yield {row.name: _refined(segmenter, row, scene, held[row.name], top, box) for row in segmenter.rows}
            above = max(box.bottom - reach - top, 0)
            top += above
            held = {name: scores[:, above:].clone() for name, scores in held.items()} if top < end else {}


def _reach(segmenter: Segmenter) -> int:
    """Pixels around a strip that its rows' refinements look at."""
    return max((row.reach or 0 for row in segmenter.rows), default=0)


def _stitched(
    segmenter: Segmenter,
    scene: Scene,
    strips: range,
    weight: Callable[[int, int], Tensor] | None,
    done: Callable[[int], None],
) -> Iterator[dict[str, Tensor]]:
    """Yield strips as `score_strips` does, before they are refined."""
    edges, rows = strip_edges(scene.height, segmenter), segmenter.rows
    boxes = window_boxes(scene.height, scene.width, segmenter.window, segmenter.stride)
    top, bottom = edges[strips.start], edges[strips.stop]
    first = next(number for number, box in enumerate(boxes) if box.bottom > top) // segmenter.batch * segmenter.batch
    last = next((number for number, box in enumerate(boxes) if box.top >= bottom), len(boxes))
    device = segmenter.backbone.device
    means = {row.name: RollingMean(len(row.classes), scene.width, device, boxes[first].top) for row in rows}
    waiting = list(strips)
    chunks = [boxes[start : start + segmenter.batch] for start in range(first, last, segmenter.batch)]
    through = first
    with ThreadPoolExecutor(1) as reader:
        coming = [reader.submit(_read, scene, chunk, _reach(segmenter)) for chunk in chunks[:1]]
        for number, chunk in enumerate(chunks, 1):
            windows = coming.pop().result()
            coming += [reader.submit(_read, scene, after, _reach(segmenter)) for after in chunks[number : number + 1]]
            _add(segmenter, scene, chunk, windows, means, weight)
            done(len(chunk))
            through += len(chunk)
            after = boxes[through].top if through < last else bottom
            if after > top > means[rows[0].name].top:
                for mean in means.values():
                    mean.take(top)  # above what is wanted
            while waiting and edges[waiting[0] + 1] <= after:
                end = edges[waiting.pop(0) + 1]
                yield {name: mean.take(end) for name, mean in means.items()}


class _Windows(NamedTuple):
    """A batch of windows. held: whether each holds data. pixels: of those that do, uint8 (b, h, w, 3)."""

    held: list[bool]
    pixels: Tensor | None


def _read(scene: Scene, boxes: Sequence[Box], reach: int) -> _Windows:
    """Read the windows that hold data, or have some within reach; while those before are computed."""
    held = [not _is_empty(scene, _grown(box, reach, scene)) for box in boxes]
    images = [scene.read(box) for box, holds in zip(boxes, held, strict=True) if holds]
    return _Windows(held, torch.from_numpy(np.stack(images)) if images else None)


def _add(
    segmenter: Segmenter,
    scene: Scene,
    boxes: Sequence[Box],
    windows: _Windows,
    means: dict[str, RollingMean],
    weight: Callable[[int, int], Tensor] | None,
) -> None:
    """Compute a batch of windows, as far as they hold data, and add them to the means."""
    rows = segmenter.rows
    found = {} if windows.pixels is None else segmenter.window_scores(windows.pixels, rows)
    for row in rows:
        scores, mean = iter(of_row(row, found.get(row.name, torch.empty(0)), scene.name)), means[row.name]
        for box, holds in zip(boxes, windows.held, strict=True):
            height, width = box.size
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


@torch.inference_mode()
def _refined(segmenter: Segmenter, row: Row, scene: Scene, scores: Tensor, top: int, strip: Box) -> Tensor:
    """Refine a strip of a row, in parts. scores: (Q, h, width) from the scene's row `top` on, as far as needed."""
    if row.refine is None:
        return scores[:, strip.top - top : strip.bottom - top]
    assert row.reach is not None
    parts = []
    for left in range(0, scene.width, _COLUMNS):
        part = strip._replace(left=left, right=min(left + _COLUMNS, scene.width))
        around = _grown(part, row.reach, scene)
        pixels = segmenter.backbone.normalise(to_device(scene.read(around), segmenter.backbone.device))
        here = scores[:, around.top - top : around.bottom - top, around.left : around.right].clone()
        found: Tensor | Exception
        try:
            found = row.refined(here, pixels, None)
        except Exception as error:
            found = error
        found = of_row(row, found, scene.name)
        lines = slice(part.top - around.top, part.bottom - around.top)
        parts.append(found[:, lines, part.left - around.left : part.right - around.left])
    return torch.cat(parts, dim=2)


def _grown(box: Box, reach: int, scene: Scene) -> Box:
    """Return a box with so many pixels around it, as far as the scene goes."""
    return Box(
        max(box.top - reach, 0),
        max(box.left - reach, 0),
        min(box.bottom + reach, scene.height),
        min(box.right + reach, scene.width),
    )


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
