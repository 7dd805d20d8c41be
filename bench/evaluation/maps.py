"""Label maps of single images, as a run counts them."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.errors import BenchError
from bench.evaluation.dataset_run import Run, segmenters_of
from bench.evaluation.plan import DatasetPlan
from bench.inference.blame import described


def label_maps(run: Run, dataset: DatasetPlan, index: int) -> dict[str, NDArray[np.uint8]]:
    """Return the label map (H, W) of each row on one sample, at the thresholds of the settings.

    It is the one that a run kept, where that is still true, or computed now. BenchError where a row fails.
    """
    assert dataset.samples is not None
    sample = dataset.samples.read(index)
    cells = {cell.row: cell for cell in dataset.cells if cell.ready is not None}
    found: dict[str, NDArray[np.uint8]] = {}
    for name, cell in cells.items():
        kept = cell.label_maps(run.store).find(sample.id)
        if kept is not None:
            found[name] = np.asarray(Image.open(io.BytesIO(kept)))
    size = sample.label.shape[0], sample.label.shape[1]
    for segmenter in segmenters_of(run, [cell for name, cell in cells.items() if name not in found]):
        scores = segmenter.scores_of_original(sample.image, size)
        for row in segmenter.rows:
            own = scores[row.name]
            if isinstance(own, Exception):
                said = described(own, row.method)
                raise BenchError(f"{row.name} on {dataset.card.name}, {sample.id}: {said}")
            found[row.name] = row.label_map(own, size)
    return {name: found[name] for name in cells}
