"""Pictures of single images: label maps as a run counts them, and the effect of the global bias (Figure 5)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bench.errors import BenchError
from bench.evaluation.dataset_run import Run, segmenters_of
from bench.evaluation.models import build_segmenter
from bench.evaluation.plan import DatasetPlan
from bench.models.backbone import Trunk
from bench.runtime.sources import described


class _WithCls:
    """Own scores: the cosine of each patch of a method with the method's CLS token."""

    def __init__(self, method: Any) -> None:
        self._method = method

    def scores(self, trunk: Trunk, text: Tensor) -> Tensor:
        """(B, 1, h, w)."""
        found = self._method(trunk)
        if found.cls is None:
            raise BenchError("the method gives no CLS token, so it has no global bias to show")
        patches, cls = F.normalize(found.patches, dim=-1), F.normalize(found.cls, dim=-1)
        return (patches @ cls[..., None])[..., 0].view(len(patches), 1, *(found.grid or trunk.grid))


def bias_of(run: Run, dataset: DatasetPlan, number: int) -> dict[str, NDArray[Any]]:
    """Pictures of what the first row of a dataset makes of one sample, in the order of the figure, by their titles.

    The image (H, W, 3), and cosines (h, w) at the network's size: with the CLS token, and with a word (a building where
    the card has them, else class 1) before and after λ times the CLS token's own was subtracted.
    """
    cell, samples, card = dataset.cells[0], dataset.samples, dataset.card
    if samples is None or cell.ready is None:
        raise BenchError(dataset.missing or cell.error or f"{card.name}: no samples")
    row, settings = cell.ready, cell.settings
    if not row.debias:
        raise BenchError(f"row '{settings.row}': subtracts no bias (λ is 0); name a row with one, such as segearth-ov")
    wanted = card.classes.index("building") if "building" in card.classes else 1
    query = int((row.classes.cpu() == wanted).nonzero()[0])
    after = replace(row, name="after", text=row.text[query : query + 1], classes=torch.zeros_like(row.classes[:1]))
    with_cls: Any = _WithCls(row.method)
    rows = [
        after,
        replace(after, name="before", debias=0.0),
        replace(after, name="cls", method=with_cls, upsampler=None, debias=0.0, takes_text=False),
    ]
    image = samples.read(number).image
    maps = {}
    for name, scores in build_segmenter(rows, settings, run.models, run.batch).scores_of_original(image).items():
        if isinstance(scores, Exception):
            raise BenchError(f"{settings.row} on {card.name}: {described(scores, row.method)}")
        maps[name] = scores[0].float().cpu().numpy()
    word = run.models.config.words(card, settings.vocabulary)[wanted][0]
    return {
        "cosine with CLS": maps["cls"],
        "image": image,
        f"“{word}”, before": maps["before"],
        f"after, λ = {row.debias:g}": maps["after"],
    }


def label_maps(run: Run, dataset: DatasetPlan, index: int) -> dict[str, NDArray[np.uint8]]:
    """Return the label map (H, W) of each row on one sample, at the thresholds of the settings.

    It is the one that a run kept, where that is still true, or computed now. BenchError where a row fails.
    """
    assert dataset.samples is not None
    sample = dataset.samples.read(index)
    cells = {cell.row: cell for cell in dataset.cells if cell.ready is not None}
    found: dict[str, NDArray[np.uint8]] = {}
    for name, cell in cells.items():
        kept = cell.label_maps(run.store).labels(sample.id)
        if kept is not None:
            found[name] = kept
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
