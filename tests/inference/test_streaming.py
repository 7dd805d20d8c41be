from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from reference import tiny_backbone

from bench.errors import BenchError
from bench.inference.predictor import score_strips
from bench.inference.raster_io import OVERLAY_SIDE, DecodedImage, LabelWriter, open_raster
from bench.inference.row import Row
from bench.inference.segmenter import Segmenter
from bench.inference.visualize import Style
from bench.inference.windows import Box, RollingMean, WindowMean, window_boxes
from bench.models.backbone import Features, Trunk
from bench.models.upsamplers import JBUOne
from bench.registry import load_methods

COLOURS = ((0, 0, 0), (255, 0, 0), (0, 255, 0))


def _image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _row(method: object, **settings: object) -> Row:
    text = F.normalize(torch.randn(4, 24, generator=torch.Generator().manual_seed(1)), dim=-1)
    return Row("row", method, text, torch.tensor([0, 1, 1, 2]), **settings)


@pytest.mark.parametrize(("height", "width", "batch"), [(300, 260, 4), (150, 97, 3), (40, 200, 9), (60, 64, 1)])
def test_strips_are_the_whole_to_the_bit(height: int, width: int, batch: int) -> None:
    row = _row(load_methods()["sclip"].build({}), upsampler=JBUOne(24).eval(), debias=0.3)
    segmenter = Segmenter(tiny_backbone(), [row], window=64, stride=48, batch=batch)
    strips = list(score_strips(segmenter, row, DecodedImage(_image(height, width))))
    assert len(strips) > 1 or height <= 64
    assert torch.equal(torch.cat(strips, dim=1), segmenter.scores(_image(height, width))["row"])


@settings(deadline=None)
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
    heights = [strip.shape[1] for strip in score_strips(segmenter, row, DecodedImage(_image(200, 50)))]
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
        next(score_strips(segmenter, row, DecodedImage(_image(80, 80))))


def test_any_image_is_a_raster(tmp_path: Path) -> None:
    Image.fromarray(_image(20, 30)).save(tmp_path / "image.png")
    with open_raster(tmp_path / "image.png") as raster:
        assert (raster.height, raster.width) == (20, 30)
        assert np.array_equal(raster.read(Box(3, 5, 13, 29)), _image(20, 30)[3:13, 5:29])
    (tmp_path / "text.tif").write_text("no image")
    with pytest.raises(BenchError, match="not an image"), open_raster(tmp_path / "text.tif"):
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
        with pytest.raises(BenchError, match="8 bits"), open_raster(file):
            pass
        return
    with open_raster(file) as raster:
        assert np.array_equal(raster.read(Box(2, 3, 18, 30)), read_image(file)[2:18, 3:30])


def test_overlay_of_a_large_image_is_thinned_out(tmp_path: Path) -> None:
    height, width = 7, 3 * OVERLAY_SIDE - 2
    pixels = _image(height, width)
    labels = np.random.default_rng(1).integers(0, 3, (height, width), dtype=np.uint8)
    writer = LabelWriter(
        tmp_path / "out.png", tmp_path / "in.png", DecodedImage(pixels), ["a", "b", "c"], Style(COLOURS)
    )
    for top in range(0, height, 2):
        writer.add(labels[top : top + 2])
    writer.finish()
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), labels)
    overlay = np.asarray(Image.open(tmp_path / "out_overlay.png"))
    blended = (pixels[::3, ::3].astype(int) + np.array(COLOURS)[labels[::3, ::3]]) // 2
    assert overlay.shape[1] == OVERLAY_SIDE
    assert np.array_equal(overlay[:3], blended)


def test_geotiff_without_rasterio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rasterio", None)
    with pytest.raises(BenchError, match="needs rasterio"):
        LabelWriter(tmp_path / "out.tif", tmp_path / "in.tif", DecodedImage(_image(5, 5)), ["a"], Style(COLOURS[:1]))
