"""Label maps of single images, as a run counts them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.data.images import at_sizes, resize
from bench.errors import BenchError
from bench.evaluation.dataset_run import Run, groups_of
from bench.evaluation.plan import DatasetPlan
from bench.inference.blame import described
from bench.inference.postprocess import apply_threshold, classify


def label_maps(run: Run, dataset: DatasetPlan, index: int) -> dict[str, NDArray[np.uint8]]:
    """Label map (H, W) of each row on one sample, at the thresholds of the settings: the one that a run kept, where it
    is still true, or computed now. BenchError where a row fails.
    """
    assert dataset.samples is not None
    sample = dataset.samples.read(index)
    cells = {cell.row: cell for cell in dataset.cells if cell.variant is not None}
    found: dict[str, NDArray[np.uint8]] = {}
    for row, cell in cells.items():
        kept = cell.label_maps(run.store).find(sample.id)
        if kept is not None:
            found[row] = np.asarray(Image.open(kept))
    for group in groups_of(run, [cell for row, cell in cells.items() if row not in found]):
        height, width = sample.label.shape
        image, larger = resize(sample.image, group.resize), at_sizes(sample.image, group.segmenter.rules)
        for row, scores in group.segmenter.scores(image, None, (height, width), larger).items():
            cell = cells[row]
            assert cell.variant is not None
            if isinstance(scores, Exception):
                said = described(scores, cell.variant.method)
                raise BenchError(f"{row} on {dataset.card.name}, {sample.id}: {said}")
            prediction = classify(
                scores, sample.label.shape, cell.variant.classes, cell.variant.scale, cell.variant.join
            )
            found[row] = apply_threshold(prediction, cell.settings.threshold, cell.settings.background)
    return {row: found[row] for row in cells}
