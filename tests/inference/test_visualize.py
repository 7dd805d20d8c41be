"""Label maps as pictures, pixel by pixel."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.cli import main
from bench.data.cards import load_card
from bench.inference.visualize import Style, borders, distinct_colours, overlay_png

GREY = np.full((8, 300, 3), 100, np.uint8)
LABELS = np.zeros((8, 300), np.uint8)
LABELS[:, 150:] = 1
LABELS[:, 298:] = 255
NAMES = ("background", "road")
COLOURS = [(0, 0, 0), (200, 0, 0)]


def drawn(style: Style) -> np.ndarray:  # type: ignore[type-arg]
    return np.asarray(Image.open(io.BytesIO(overlay_png(GREY, LABELS, NAMES, style))))


@pytest.mark.parametrize(
    ("style", "background", "road"),
    [
        (Style(COLOURS), (50, 50, 50), (150, 50, 50)),
        (Style(COLOURS, alpha=1.0), (0, 0, 0), (200, 0, 0)),
        (Style(COLOURS, alpha=0.25), (75, 75, 75), (125, 75, 75)),
        (Style(COLOURS, clear=0), (100, 100, 100), (150, 50, 50)),
        (Style(COLOURS, contours=True), (100, 100, 100), (100, 100, 100)),
    ],
)
def test_colours_are_laid_over(style: Style, background: tuple[int, ...], road: tuple[int, ...]) -> None:
    found = drawn(style)
    assert tuple(found[4, 10]) == background and tuple(found[4, 200]) == road
    assert tuple(found[4, 299]) == (100, 100, 100)  # no data
    assert found.shape[0] > 8  # the legend


def test_contours_are_the_borders() -> None:
    found = drawn(Style(COLOURS, contours=True))
    assert tuple(found[4, 150]) == (200, 0, 0) and tuple(found[4, 149]) == (0, 0, 0)
    assert tuple(found[4, 148]) == tuple(found[4, 151]) == (100, 100, 100)


def test_borders_by_hand() -> None:
    labels = np.zeros((3, 5), np.uint8)
    labels[1, 2] = 1
    assert borders(labels).astype(int).tolist() == [[0, 0, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 0, 0]]
    assert not borders(np.ones((4, 4), np.uint8), 2).any()


def test_a_cleared_class_is_not_in_the_legend_and_the_legend_grows() -> None:
    colours = {tuple(colour) for colour in drawn(Style(COLOURS, clear=1))[8:].reshape(-1, 3)}
    assert (200, 0, 0) not in colours and (0, 0, 0) in colours
    large = overlay_png(np.zeros((8, 4000, 3), np.uint8), np.zeros((8, 4000), np.uint8), NAMES)
    small = overlay_png(GREY, LABELS, NAMES)
    assert Image.open(io.BytesIO(large)).height > 2 * Image.open(io.BytesIO(small)).height


def test_colours_of_a_card_and_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (60, 80, 3), np.uint8)).save(image)
    words = ["--method", "clip", "--backbone", "demo", "--classes", "background; building", "-o"]
    flags = ["--palette", "whu_aerial", "--alpha", "1", "--clear"]
    assert main(["predict", str(image), *words, str(tmp_path / "map.png"), *flags]) == 0
    palette = Image.open(tmp_path / "map.png").getpalette()
    assert palette is not None and palette[3:6] == list(load_card("whu_aerial").colours[1])
    capsys.readouterr()
    for wrong, said in (
        (["--palette", "loveda"], "7 colours for 2 classes; give one to each (--palette, --classes)"),
        (["--palette", "lovda"], "did you mean loveda"),
        (["--alpha", "2"], "--alpha 2.0: a share between 0 and 1"),
    ):
        assert main(["predict", str(image), *words, str(tmp_path / "map.png"), *wrong]) == 2
        assert said in capsys.readouterr().err
    assert len(set(distinct_colours(40))) == 40
