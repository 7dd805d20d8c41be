"""The inner loop: what fails alone, and what ten rows cost a GPU in launches and copies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from reference import tiny_backbone, tiny_config
from torch import Tensor

from bench.data.loader import Loaded
from bench.evaluation.loop import Outcome, Scoring, evaluate
from bench.inference.row import Row
from bench.inference.segmenter import Segmenter
from bench.models.backbone import Backbone, Features, Trunk
from bench.models.collector import Box, WholeImage
from bench.models.upsamplers import JBUOne
from bench.registry import load_methods
from bench.settings import ResizeRule
from bench.store.count_table import ImageCounts
from tools import pretended_cuda
from tools.gpu_counts import Counter

RULE = ResizeRule(long_side=96)


def image(size: int = 96, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def loaded(index: int, size: int = 96) -> Loaded:
    label = np.random.default_rng(index).integers(0, 4, (size, size), dtype=np.uint8)
    return Loaded(index, f"image-{index}", label, {RULE: image(size, index)})


def row(name: str, method: Any, device: str = "cpu", **settings: Any) -> Row:
    text = F.normalize(torch.randn(5, 24, generator=torch.Generator().manual_seed(1)), dim=-1)
    return Row(name, method, text.to(device), torch.tensor([0, 1, 1, 2, 3], device=device), **settings)


def outcomes(backbone: Backbone, rows: list[Row], images: list[Loaded], batch: int = 9) -> list[Outcome]:
    pending = {row.name: {one.index for one in images} for row in rows}
    segmenters = [Segmenter(backbone, rows, 48, 24, batch, RULE)]
    return list(evaluate(segmenters, images, pending, Scoring(4)))


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[Backbone]:
    """The tiny backbone on the pretended GPU."""
    with pretended_cuda.pretended_cuda(monkeypatch):
        backbone = Backbone("tiny", tiny_backbone().model.to("cuda"), open_clip.SimpleTokenizer(), "")
        yield backbone
        backbone.model.to("cpu")


def spoiling(value: float) -> Callable[[Trunk], Features]:
    """Return a method that spoils the features of windows of one colour."""

    def spoilt(trunk: Trunk) -> Features:
        features = trunk.project(trunk.input(-1))
        features.patches[trunk.images.flatten(2).std(2).sum(1) == 0] = value
        return features

    return spoilt


def uniform(index: int, size: int = 48) -> Loaded:
    """An image of one colour."""
    return replace(loaded(index, size), images={RULE: np.full((size, size, 3), 7, np.uint8)})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_scores_that_are_not_finite_fail_the_row_and_name_the_image(
    value: float, device: str, request: pytest.FixtureRequest
) -> None:
    backbone = tiny_backbone() if device == "cpu" else request.getfixturevalue("cuda")
    rows = [row("spoilt", spoiling(value), device), row("clip", load_methods()["clip"].build({}), device)]
    found = outcomes(backbone, rows, [loaded(0, 48), uniform(1), loaded(2, 48), loaded(3, 48)])
    by_row = {row: [one for one in found if one.row == row] for row in ("spoilt", "clip")}
    assert [one.image.error for one in by_row["clip"]] == [None] * 4
    good, bad = by_row["spoilt"]
    assert good.image.error is None and good.image.counts.sum() == 48 * 48
    assert bad.gives_up and bad.image.error == "its scores are not finite (NaN or infinity) (image image-1)"


def watching(seen: list[bytes]) -> Callable[[Trunk], Features]:
    """Return a method that notes which batches it is asked about."""

    def watched(trunk: Trunk) -> Features:
        seen.append(trunk.images.cpu().numpy().tobytes())
        return trunk.project(trunk.input(-1))

    return watched


def test_four_images_share_a_batch_on_a_gpu_and_count_as_each_by_itself(cuda: Backbone) -> None:
    seen: list[bytes] = []
    images = [*(loaded(number, 48) for number in range(3)), replace(loaded(3, 48), error="broken", images={})]
    images += [loaded(4, 96), loaded(5, 48)]  # nine windows and one, more than a batch
    rows = [row("watched", watching(seen), "cuda"), row("ours", load_methods()["sclip"].build({}), "cuda", debias=0.3)]
    together = outcomes(cuda, rows, images)
    windows = 4 * 3 * 48 * 48
    assert [len(one) // windows for one in dict.fromkeys(seen)] == [3, 9, 1]
    apart = [one for image in images for one in outcomes(cuda, rows, [image])]
    for one, other in zip(sorted(together, key=_place), sorted(apart, key=_place), strict=True):
        assert (one.row, one.image.index, one.image.error) == (other.row, other.image.index, other.image.error)
        if one.image.error is None:
            moved = _dense(one.image) - _dense(other.image)
            assert one.image.counts.sum() == len(images[one.image.index].label) ** 2
            assert np.abs(moved).sum() <= 2, (one.row, one.image.index)


def _place(outcome: Outcome) -> tuple[str, int]:
    return outcome.row, outcome.image.index


def _dense(image: ImageCounts) -> np.ndarray:
    return np.bincount(image.keys, image.counts, minlength=5 * 4 * 100)


def test_a_row_that_raises_on_one_of_four_images_names_it_and_the_others_see_one_batch(cuda: Backbone) -> None:
    def broken(trunk: Trunk) -> Features:
        if bool((trunk.images.flatten(2).std(2).sum(1) == 0).any()):
            raise ZeroDivisionError("no features of it")
        return trunk.project(trunk.input(-1))

    seen: list[bytes] = []
    rows = [row("broken", broken, "cuda"), row("watched", watching(seen), "cuda")]
    found = outcomes(cuda, rows, [loaded(0, 48), loaded(1, 48), uniform(2), loaded(3, 48), loaded(4, 48)])
    assert len(set(seen)) == 2  # four images, one image
    bad = [one for one in found if one.row == "broken"]
    assert [one.image.index for one in bad] == [0, 1, 2]
    assert [one.image.error for one in bad[:2]] == [None, None]
    assert bad[2].gives_up and bad[2].image.error is not None and "no features of it" in bad[2].image.error
    assert bad[2].image.error.endswith("(image image-2)")
    assert [one.image.error for one in found if one.row == "watched"] == [None] * 5


def test_memory_that_runs_out_parts_the_images_of_a_batch(cuda: Backbone) -> None:
    sizes = []

    def hungry(trunk: Trunk) -> Features:
        sizes.append(len(trunk.images))
        if len(trunk.images) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return trunk.project(trunk.input(-1))

    with pytest.warns(UserWarning, match="retrying with --batch 2"):
        found = outcomes(cuda, [row("hungry", hungry, "cuda")], [loaded(number, 48) for number in range(4)], batch=4)
    assert [one.image.index for one in found if one.image.error is None] == [0, 1, 2, 3]
    assert sizes == [4, 2, 2, 2, 2]  # the first two images three times: there it is looked at


class Whole:
    """A method that sees one whole image, and collector of it."""

    def __init__(self) -> None:
        self.images = 0

    def collect(self, image: WholeImage) -> Whole:
        self.images += 1
        return self

    def add(self, trunk: Trunk, boxes: Sequence[Box]) -> None:
        self.count = len(boxes)

    def scores(self, text: Tensor) -> Tensor:
        return torch.zeros(self.count, len(text), 48, 48, device=text.device)


def test_only_what_is_pending_is_counted_of_whole_groups(cuda: Backbone) -> None:
    """Rows that see whole images have no groups: of them nothing else is computed."""
    seen: list[bytes] = []
    whole = Whole()
    rows = [row("watched", watching(seen), "cuda"), row("clip", load_methods()["clip"].build({}), "cuda")]
    segmenters = [Segmenter(cuda, some, 48, 24, 9, RULE) for some in (rows, [row("whole", whole, "cuda")])]
    pending = {"watched": {1, 3}, "clip": {3}, "whole": {2}}
    found = list(evaluate(segmenters, [loaded(number, 48) for number in range(4)], pending, Scoring(4)))
    assert sorted(map(_place, found)) == [("clip", 3), ("watched", 1), ("watched", 3), ("whole", 2)]
    assert len(set(seen)) == 1
    assert whole.images == 2  # where a method is new its results are compared


def test_ten_rows_take_a_gpu_few_launches_and_four_copies_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four images of nine small windows and twelve blocks, as in ViT-B: width and window change no number here."""
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
        segmenters = [Segmenter(backbone, rows, 48, 24, 36, RULE)]
        images = [loaded(number) for number in range(4)]
        pending = {row.name: set(range(4)) for row in rows}
        list(evaluate(segmenters, images, pending, Scoring(4)))  # fills the caches, and looks at each method once
        pretended_cuda.crossings.clear()
        with Counter() as counter:
            found = list(evaluate(segmenters, images, pending, Scoring(4)))
    assert len(found) == 40 and all(one.image.error is None for one in found)
    assert counter.total[0] <= 4 * 290
    assert len(pretended_cuda.crossings) <= 4 * 4, pretended_cuda.crossings
