"""What is measured on held-out scenes, on cases small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest

from bench.demo.config import WEIGHTS
from tools.demo.probe_clip import confusion_of, iou, spread
from tools.demo.probe_upsamplers import BILINEAR, MEASURES, SceneCounts, accuracy, near_borders, probe, table


def test_near_borders_reaches_four_pixels_to_either_side() -> None:
    label = np.zeros((11, 20), np.uint8)
    label[:, 10:] = 3
    expected = np.zeros((11, 20), bool)
    expected[:, 6:14] = True
    assert np.array_equal(near_borders(label), expected)
    assert not near_borders(np.zeros((5, 5), np.uint8)).any()


def test_pixels_without_a_class_are_not_counted() -> None:
    label, predicted = np.array([[0, 0, 1, 255]], np.uint8), np.array([[0, 1, 1, 1]])
    confusion = confusion_of(label, predicted, 2)
    assert confusion.tolist() == [[1, 1], [0, 1]]
    assert iou(confusion).tolist() == [50.0, 50.0]
    assert accuracy(confusion) == pytest.approx(200 / 3)


def test_spread_is_between_one_token_and_all() -> None:
    tokens = spread(1)
    assert {"q·k (CLIP)", "v·v", "GEM's k"} <= set(tokens)
    assert all(1 < count <= 197.01 for count in tokens.values())
    assert tokens["v·v"] < tokens["GEM's v"]


def test_gains_are_differences_to_bilinear_over_the_same_scenes() -> None:
    good, bad = np.array([[3, 1], [0, 4]]), np.array([[1, 3], [2, 2]])
    base = [SceneCounts(bad, bad), SceneCounts(bad, good)]
    better = [SceneCounts(good, good), SceneCounts(good, good)]
    lines = table({BILINEAR: base, "ours": better}).splitlines()
    assert lines[0].count("|") == 2 * len(MEASURES) + 2
    accuracy_of = lines[3].split("|")[4:6]
    assert (
        float(accuracy_of[0]) == 87.5 and accuracy_of[1].strip() == "+50.0 [+50.0, +50.0]"
    )  # each draw gains the same
    near = lines[3].split("|")[6:8]
    assert near[1].strip().startswith("+25.0 [")  # one scene gains nothing, the other 50


@pytest.mark.slow
def test_an_upsampler_is_measured_on_the_same_scenes_as_bilinear() -> None:
    counts = probe({"simfeatup": WEIGHTS / "simfeatup.safetensors"}, scenes=1)
    assert set(counts) == {BILINEAR, "simfeatup"}
    ((bilinear,), (upsampled,)) = counts.values()
    assert np.array_equal(bilinear.everywhere.sum(1), upsampled.everywhere.sum(1))  # the same labels
    assert np.array_equal(bilinear.at_borders.sum(1), upsampled.at_borders.sum(1))
    assert (bilinear.at_borders <= bilinear.everywhere).all()
    assert not np.array_equal(bilinear.everywhere, upsampled.everywhere)
