"""The inner loop: what fails alone, and what ten rows cost a GPU in launches and copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from reference import tiny_backbone, tiny_config

from bench.data.loader import Loaded
from bench.evaluation.loop import Outcome, Scoring, evaluate
from bench.inference.row import Row
from bench.inference.segmenter import Segmenter
from bench.models.backbone import Backbone, Features, Trunk
from bench.models.upsamplers import JBUOne
from bench.registry import load_methods
from bench.settings import ResizeRule
from tools import pretended_cuda
from tools.gpu_counts import Counter

RULE = ResizeRule(long_side=96)


def image(size: int = 96, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def loaded(index: int, size: int = 96) -> Loaded:
    label = np.random.default_rng(index).integers(0, 4, (size, size), dtype=np.uint8)
    return Loaded(index, f"image-{index}", label, {RULE: image(size, index)})


def row(name: str, method: Callable[[Trunk], Features], device: str = "cpu", **settings: Any) -> Row:
    text = F.normalize(torch.randn(5, 24, generator=torch.Generator().manual_seed(1)), dim=-1)
    return Row(name, method, text.to(device), torch.tensor([0, 1, 1, 2, 3], device=device), **settings)


def outcomes(backbone: Backbone, rows: list[Row], images: list[Loaded], batch: int = 9) -> list[Outcome]:
    pending = {row.name: {one.index for one in images} for row in rows}
    segmenters = [Segmenter(backbone, rows, 48, 24, batch, RULE)]
    return list(evaluate(segmenters, images, pending, Scoring(4)))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_scores_that_are_not_finite_fail_the_row_and_name_the_image(
    value: float, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def spoilt(trunk: Trunk) -> Features:
        features = trunk.project(trunk.input(-1))
        seen.append(len(seen))
        if len(seen) > 3:  # from the second image on; on the first it is asked three times
            features.patches[0, 0, 0] = value
        return features

    with pretended_cuda.pretended_cuda(monkeypatch):
        backbone = Backbone("tiny", tiny_backbone().model.to(device), open_clip.SimpleTokenizer(), "")
        try:
            rows = [row("spoilt", spoilt, device), row("clip", load_methods()["clip"].build({}), device)]
            found = outcomes(backbone, rows, [loaded(number, 48) for number in range(4)])
        finally:
            backbone.model.to("cpu")
    by_row = {row: [one for one in found if one.row == row] for row in ("spoilt", "clip")}
    assert [one.image.error for one in by_row["clip"]] == [None] * 4
    good, bad = by_row["spoilt"]
    assert good.image.error is None and good.image.counts.sum() == 48 * 48
    assert bad.gives_up and bad.image.error == "its scores are not finite (NaN or infinity) (image image-1)"


def test_ten_rows_take_a_gpu_few_launches_and_four_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """One image of nine small windows and twelve blocks, as in ViT-B: width and window change no number here."""
    methods = load_methods()
    with pretended_cuda.pretended_cuda(monkeypatch):
        torch.manual_seed(0)
        model = open_clip.CLIP(**tiny_config(layers=12)).requires_grad_(False).eval().to("cuda")
        upsampler = JBUOne(24).eval().requires_grad_(False).to("cuda")
        rows = []
        for name in ("clip", "maskclip", "gem", "sclip", "clearclip", "segearth-ov"):
            rows.append(row(name, methods[name].build({}), "cuda"))
            if name not in ("clip", "gem"):
                ours = methods[name].build({})
                rows.append(row(f"{name}+ours", ours, "cuda", upsampler=upsampler, debias=0.3))
        assert len(rows) == 10
        backbone = Backbone("tiny", model, open_clip.SimpleTokenizer(), "")
        segmenters = [Segmenter(backbone, rows, 48, 24, 9, RULE)]
        pending = {row.name: {0, 1} for row in rows}
        list(evaluate(segmenters, [loaded(0)], pending, Scoring(4)))  # fills the caches, and looks at each method once
        pretended_cuda.crossings.clear()
        with Counter() as counter:
            found = list(evaluate(segmenters, [loaded(1)], pending, Scoring(4)))
    assert len(found) == 10 and all(one.image.error is None for one in found)
    assert counter.total[0] <= 894
    assert len(pretended_cuda.crossings) <= 4, pretended_cuda.crossings
