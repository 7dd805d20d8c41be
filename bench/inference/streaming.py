"""Images at their own resolution, of any size, in the memory of a strip as high as a window."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from bench.inference.raster_io import Raster
from bench.inference.row import Row
from bench.inference.segmenter import Segmenter
from bench.inference.windows import RollingMean, window_boxes


def score_strips(segmenter: Segmenter, row: Row, raster: Raster) -> Iterator[Tensor]:
    """Yield strips (Q, rows, width) of the stitched scores, from top to bottom, each complete.

    Put together they are what `Segmenter.scores` gives for the whole image at once: same windows in the same
    batches, each pixel the mean of all windows that hold it. Raises what the row's method raises, and BenchError
    where memory runs out.
    """
    boxes = window_boxes(raster.height, raster.width, segmenter.window, segmenter.stride)
    mean = RollingMean(len(row.classes), raster.width, segmenter.backbone.device)
    with tqdm(total=len(boxes), unit="window", disable=None) as bar:
        for start in range(0, len(boxes), segmenter.batch):
            chunk = boxes[start : start + segmenter.batch]
            images = torch.from_numpy(np.stack([raster.read(box) for box in chunk]))
            for box, scores in zip(chunk, segmenter.window_scores(images, row), strict=True):
                mean.add(box, scores)
            bar.update(len(chunk))
            after = boxes[start + len(chunk)].top if start + len(chunk) < len(boxes) else raster.height
            if after > mean.top:
                yield mean.take(after)
