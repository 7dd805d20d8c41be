"""What the global bias does on one image: Figure 5 of the SegEarth-OV paper."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bench.data.images import at_sizes, resize
from bench.errors import BenchError
from bench.evaluation.dataset_run import Run
from bench.evaluation.plan import DatasetPlan
from bench.inference.blame import described
from bench.inference.segmenter import Segmenter
from bench.models.backbone import Trunk


class Cosines(NamedTuple):
    """Of one image (H, W, 3); cosines (h, w) at the network's size. See `bench.report.paper_figures.Bias`."""

    image: NDArray[np.uint8]
    with_cls: NDArray[np.float32]
    before: NDArray[np.float32]
    after: NDArray[np.float32]
    word: str
    debias: float


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


def bias_of(run: Run, dataset: DatasetPlan, number: int) -> Cosines:
    """What the first row of a dataset shows on one sample, for buildings where the card has them, else for class 1."""
    cell, samples, card = dataset.cells[0], dataset.samples, dataset.card
    if samples is None or cell.variant is None:
        raise BenchError(dataset.missing or cell.error or f"{card.name}: no samples")
    variant, settings = cell.variant, cell.settings
    if not variant.debias:
        raise BenchError(f"row '{settings.row}': subtracts no bias (λ is 0); name a row with one, such as segearth-ov")
    wanted = card.classes.index("building") if "building" in card.classes else 1
    query = int((variant.classes.cpu() == wanted).nonzero()[0])
    text, classes = variant.text[query : query + 1], torch.zeros_like(variant.classes[:1])
    after = replace(variant, name="after", text=text, classes=classes)
    with_cls: Any = _WithCls(variant.method)
    rows = [
        after,
        replace(after, name="before", debias=0.0),
        replace(after, name="cls", method=with_cls, upsampler=None, debias=0.0, takes_text=False),
    ]
    sample = samples.read(number)
    rule = cell.geometry[1]
    segmenter = Segmenter(run.models.backbone(settings.backbone), rows, settings.window, settings.stride, run.batch)
    found = segmenter.scores(resize(sample.image, rule), larger=at_sizes(sample.image, segmenter.rules))
    maps = {}
    for row in rows:
        scores = found[row.name]
        if isinstance(scores, Exception):
            raise BenchError(f"{settings.row} on {card.name}: {described(scores, variant.method)}")
        maps[row.name] = scores[0].float().cpu().numpy()
    words = run.models.config.words(card, settings.vocabulary)[wanted]
    return Cosines(sample.image, maps["cls"], maps["before"], maps["after"], words[0], variant.debias)
