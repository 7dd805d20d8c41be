from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from narrowed import tensor
from PIL import Image
from reference import tiny_backbone

from bench.errors import BenchError
from bench.inference.row import Row
from bench.inference.segmenter import Segmenter
from bench.inference.windows import Box, RollingMean, WindowMean, window_boxes
from bench.maps.scene import DecodedImage, open_scene
from bench.maps.strips import gaussian, score_strips, strip_edges
from bench.models.backbone import Backbone, Features, Trunk
from bench.models.upsamplers import JBUOne
from bench.registry import load_methods
from tools.pretended_cuda import pretended_cuda


def _image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _row(method: object, **settings: object) -> Row:
    text = F.normalize(torch.randn(4, 24, generator=torch.Generator().manual_seed(1)), dim=-1)
    return Row("row", method, text, torch.tensor([0, 1, 1, 2]), **settings)


@pytest.mark.parametrize(("height", "width", "batch"), [(300, 260, 4), (150, 97, 3), (40, 200, 9), (60, 64, 1)])
def test_strips_are_the_whole_to_the_bit(height: int, width: int, batch: int) -> None:
    row = _row(load_methods()["sclip"].build({}), upsampler=JBUOne(24).eval(), debias=0.3)
    segmenter = Segmenter(tiny_backbone(), [row], window=64, stride=48, batch=batch)
    strips = [one["row"] for one in score_strips(segmenter, DecodedImage(_image(height, width)))]
    assert len(strips) > 1 or height <= 64
    assert torch.equal(torch.cat(strips, dim=1), segmenter.scores(_image(height, width))["row"])


def test_a_row_without_windows_sees_all_of_a_scene_at_once() -> None:
    segmenter = Segmenter(tiny_backbone(), [_row(load_methods()["sclip"].build({}))], window=0, stride=48, batch=3)
    (found,) = score_strips(segmenter, DecodedImage(_image(150, 97)))
    assert torch.equal(found["row"], segmenter.scores(_image(150, 97))["row"])


@pytest.mark.parametrize("strips", [range(1), range(1, 2), range(2, 5), range(4, 5)])
def test_some_strips_are_those_of_all(strips: range) -> None:
    """To the bit, though windows above and below overlap, and batches do not end with strips."""
    row = _row(load_methods()["sclip"].build({}), debias=0.3)
    segmenter = Segmenter(tiny_backbone(), [row], window=64, stride=48, batch=4)
    scene = DecodedImage(_image(240, 150))
    assert strip_edges(240, segmenter) == [0, 48, 96, 144, 176, 240]
    every = [one["row"] for one in score_strips(segmenter, scene)]
    some = [one["row"] for one in score_strips(segmenter, scene, strips)]
    assert len(some) == len(strips)
    assert all(torch.equal(one, every[number]) for number, one in zip(strips, some, strict=True))


def test_windows_are_read_while_those_before_are_computed() -> None:
    next_ones = threading.Event()

    class Watched(DecodedImage):
        def read(self, box: Box) -> np.ndarray:
            if box.top:
                next_ones.set()
            return super().read(box)

    def waiting(trunk: Trunk) -> Features:
        assert next_ones.wait(60)
        return trunk.project(trunk.input(-1))

    segmenter = Segmenter(tiny_backbone(), [_row(waiting)], window=64, stride=64, batch=2)
    assert next(score_strips(segmenter, Watched(_image(128, 128))))["row"].shape == (4, 64, 128)


def test_a_gpu_makes_the_same_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    def labels(backbone: Backbone) -> np.ndarray:
        row = _row(load_methods()["naclip"].build({}), refine=_largest_around, reach=6)
        row = replace(row, text=row.text.to(backbone.device), classes=row.classes.to(backbone.device))
        scene = DecodedImage(_image(150, 97))
        strips = score_strips(Segmenter(backbone, [row], 64, 48, batch=3), scene, None, gaussian)
        return np.concatenate([row.label_map(one["row"], (one["row"].shape[1], 97)) for one in strips])

    on_cpu = labels(tiny_backbone())
    with pretended_cuda(monkeypatch):
        backbone = Backbone("tiny", tiny_backbone().model.to("cuda"), open_clip.SimpleTokenizer(), "")
        try:
            assert np.array_equal(labels(backbone), on_cpu)
        finally:
            backbone.model.to("cpu")


def test_windows_without_data_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    row = _row(load_methods()["maskclip"].build({}))
    segmenter = Segmenter(tiny_backbone(), [row], window=64, stride=64, batch=3)
    empty = np.zeros((192, 192), bool)
    empty[:128, :128] = True
    seen: list[int] = []
    compute = segmenter.window_scores
    monkeypatch.setattr(
        segmenter, "window_scores", lambda images, rows: seen.append(len(images)) or compute(images, rows)
    )
    found = torch.cat([one["row"] for one in score_strips(segmenter, DecodedImage(_image(192, 192), empty))], dim=1)
    assert seen == [1, 1, 3]  # of nine windows
    whole = torch.cat([one["row"] for one in score_strips(segmenter, DecodedImage(_image(192, 192)))], dim=1)
    held = torch.from_numpy(~empty)
    assert torch.allclose(found[:, held], whole[:, held], atol=1e-6) and not found[:, ~held].any()


def _largest_around(image: torch.Tensor, scores: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """Refine by what is at most 6 pixels away, in the image and in the scores."""
    return F.max_pool2d(scores + image.mean(dim=0), 13, 1, 6)


@pytest.mark.parametrize("strips", [None, range(1, 2)])
def test_a_refinement_that_reaches_so_far_is_that_of_the_whole(strips: range | None) -> None:
    """To the bit: beyond strips, and beyond the parts of wide ones."""
    image = _image(150, 1100)
    row = _row(load_methods()["maskclip"].build({}), refine=_largest_around, reach=6)
    segmenter = Segmenter(tiny_backbone(), [row, replace(row, name="plain", refine=None, reach=None)], 64, 48, batch=9)
    whole, edges = segmenter.scores(image), strip_edges(150, segmenter)
    top, bottom = (0, 150) if strips is None else (edges[strips.start], edges[strips.stop])
    found = [*score_strips(segmenter, DecodedImage(image), strips)]
    for name in ("row", "plain"):
        assert torch.equal(torch.cat([one[name] for one in found], dim=1), tensor(whole[name])[:, top:bottom])


def test_data_is_refined_by_all_around_it() -> None:
    """Windows without data are computed where a refinement looks at them from pixels with data."""
    image, empty = _image(192, 192), np.ones((192, 192), bool)
    empty[100:110] = False
    row = _row(load_methods()["maskclip"].build({}), refine=_largest_around, reach=6)
    segmenter = Segmenter(tiny_backbone(), [row], 16, 16, batch=4)
    whole = tensor(segmenter.scores(image)["row"])
    found = torch.cat([one["row"] for one in score_strips(segmenter, DecodedImage(image, empty))], dim=1)
    assert torch.equal(found[:, 100:110], whole[:, 100:110]) and not torch.equal(found, whole)


def test_a_refinement_that_fails_is_one_line() -> None:
    def spoils(image: torch.Tensor, scores: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        return scores / 0

    row = _row(load_methods()["maskclip"].build({}), refine=spoils, reach=0)
    with pytest.raises(BenchError, match="'row' gives scores that are not finite"):
        next(score_strips(Segmenter(tiny_backbone(), [row], 64, 48), DecodedImage(_image(70, 70))))


def test_gaussian_weights_trust_the_middle() -> None:
    weights = gaussian(64, 48)
    assert weights.shape == (64, 48) and weights.argmax() in (31 * 48 + 23, 31 * 48 + 24, 32 * 48 + 23, 32 * 48 + 24)
    assert torch.equal(weights, weights.flip(0, 1)) and weights.min() >= 1e-3
    one = gaussian(32, 32)
    mean = RollingMean(1, 48, torch.device("cpu"))
    for left, value in ((0, 1.0), (16, 3.0)):
        mean.add(Box(0, left, 32, left + 32), torch.full((1, 32, 32), value), one)
    found = mean.take(32)[0]
    by_hand = (one[:, 16:] * 1 + one[:, :16] * 3) / (one[:, 16:] + one[:, :16])
    assert torch.allclose(found[:, 16:32], by_hand, atol=1e-6)
    assert found[:, :16].eq(1).all() and torch.allclose(found[:, 32:], torch.tensor(3.0))


@given(st.integers(1, 60), st.integers(1, 40), st.integers(4, 20), st.integers(2, 20))
def test_rolling_canvas_is_a_canvas(height: int, width: int, window: int, stride: int) -> None:
    boxes = window_boxes(height, width, window, min(stride, window))
    whole, rolling = WindowMean((2,), height, width, torch.device("cpu")), RollingMean(2, width, torch.device("cpu"))
    taken = []
    for box, after in zip(boxes, [*(later.top for later in boxes[1:]), height], strict=True):
        scores = torch.randn(2, box.bottom - box.top, box.right - box.left)
        whole.add(box, scores)
        rolling.add(box, scores)
        if after > rolling.top:
            taken.append(rolling.take(after))
    assert torch.equal(torch.cat(taken, dim=1), whole.mean())


def test_memory_is_that_of_a_strip() -> None:
    """Rows are handed over as soon as the windows below start, and forgotten."""
    row = _row(load_methods()["maskclip"].build({}))
    segmenter = Segmenter(tiny_backbone(), [row], window=32, stride=16, batch=2)
    heights = [strip["row"].shape[1] for strip in score_strips(segmenter, DecodedImage(_image(200, 50)))]
    assert sum(heights) == 200
    assert max(heights) == 32  # the last band; 16 before
    canvas = RollingMean(1, 5, torch.device("cpu"))
    for top in range(0, 1000, 10):
        canvas.add(Box(top, 0, top + 20, 5), torch.ones(1, 20, 5))
        assert canvas.take(top + 10).shape == (1, 10, 5)
        assert canvas._sum.shape == (1, 10, 5)


def test_no_memory_for_one_batch_says_what_to_do() -> None:
    def hungry(trunk: Trunk) -> Features:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    row = _row(hungry)
    segmenter = Segmenter(tiny_backbone(), [row], window=64, stride=48)
    with pytest.raises(BenchError, match="use a smaller --batch"):
        next(score_strips(segmenter, DecodedImage(_image(80, 80))))


def test_any_image_is_a_raster(tmp_path: Path) -> None:
    Image.fromarray(_image(20, 30)).save(tmp_path / "image.png")
    with open_scene(tmp_path / "image.png") as scene:
        assert (scene.height, scene.width) == (20, 30)
        assert np.array_equal(scene.read(Box(3, 5, 13, 29)), _image(20, 30)[3:13, 5:29])
    (tmp_path / "text.tif").write_text("no image")
    with pytest.raises(BenchError, match="not an image"), open_scene(tmp_path / "text.tif"):
        pass


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "I;16"])
def test_tiffs_read_as_the_decoder_reads_them(tmp_path: Path, mode: str) -> None:
    pytest.importorskip("rasterio")
    from bench.data.images import read_image

    file = tmp_path / "image.tif"
    picture = Image.fromarray(_image(20, 30))
    picture = Image.fromarray(np.zeros((20, 30), np.uint16)) if mode == "I;16" else picture.convert(mode)
    picture.save(file)
    if mode == "I;16":
        with pytest.raises(BenchError, match="uint16 pixels; give --stretch"), open_scene(file):
            pass
        return
    with open_scene(file) as scene:
        assert np.array_equal(scene.read(Box(2, 3, 18, 30)), read_image(file)[2:18, 3:30])
