"""Label maps of single images, as a run counts them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.data.images import at_sizes, resize
from bench.errors import BenchError
from bench.evaluation.plan import DatasetJobs
from bench.evaluation.runner import Run, groups_of
from bench.inference.blame import described
from bench.inference.postprocess import apply_threshold, classify


def label_maps(run: Run, dataset: DatasetJobs, index: int) -> dict[str, NDArray[np.uint8]]:
    """Label map (H, W) of each row on one sample, at the thresholds of the settings: the one that a run kept, where it
    is still true, or computed now. BenchError where a row fails.
    """
    assert dataset.samples is not None
    sample = dataset.samples.read(index)
    jobs = {job.settings.row: job for job in dataset.jobs if job.variant is not None}
    found: dict[str, NDArray[np.uint8]] = {}
    for row, job in jobs.items():
        kept = run.label_maps(job).find(sample.id)
        if kept is not None:
            found[row] = np.asarray(Image.open(kept))
    for group in groups_of(run, [job for row, job in jobs.items() if row not in found]):
        height, width = sample.label.shape
        image, larger = resize(sample.image, group.resize), at_sizes(sample.image, group.segmenter.rules)
        for row, scores in group.segmenter.scores(image, None, (height, width), larger).items():
            job = jobs[row]
            assert job.variant is not None
            if isinstance(scores, Exception):
                said = described(scores, job.variant.method)
                raise BenchError(f"{row} on {dataset.card.name}, {sample.id}: {said}")
            prediction = classify(
                scores, sample.label.shape, job.variant.classes, job.variant.scale, job.variant.aggregate
            )
            found[row] = apply_threshold(prediction, job.settings.threshold, job.settings.background)
    return {row: found[row] for row in jobs}
