from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import metrics
from bench.inference import postprocess as module
from bench.inference import postprocess_cpu
from bench.inference.postprocess import classify, classify_binned, pixel_histograms, probability_bin
from bench.inference.row import Row


@settings(max_examples=30)
@given(st.integers(2, 30), st.integers(2, 30), st.integers(1, 70), st.integers(1, 70))
def test_classify_is_resize_scale_softmax_best_synonym_argmax(h: int, w: int, height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(h * 31 + w)
    scores = torch.randn(5, h, w, generator=generator) * 0.05
    classes = torch.tensor([0, 1, 1, 2, 3])
    resized = F.interpolate(scores[None], size=(height, width), mode="bilinear")[0]
    probability = (resized * 50).softmax(dim=0)
    by_class = torch.stack([probability[classes == index].max(dim=0).values for index in range(4)])
    prediction = classify(scores, (height, width), classes, 50.0)
    best, index = by_class.max(dim=0)
    assert np.allclose(prediction.probability, best.numpy(), atol=1e-5)
    clear = (by_class.topk(2, dim=0).values.diff(dim=0)[0].abs() > 1e-4).numpy()
    assert np.array_equal(prediction.classes[clear], index.to(torch.uint8).numpy()[clear])


def test_threshold_is_strict() -> None:
    scores = torch.zeros(2, 1, 1)  # both classes at one half, of which the first wins
    assert classify(scores, (1, 1), torch.tensor([1, 0]), 50.0).probability.item() == 0.5
    for threshold, label in ((0.5, 1), (0.51, 0)):
        row = Row("row", None, None, torch.tensor([1, 0]), threshold=threshold)  # type: ignore[arg-type]
        assert row.label_map(scores, (1, 1)).item() == label


def test_binned_classification_is_classification_and_numpys_bins() -> None:
    scores = torch.randn(5, 30, 40) * 0.05
    classes = torch.tensor([0, 1, 1, 2, 3])
    plain, binned = classify(scores, (90, 70), classes, 50.0), classify_binned(scores, (90, 70), classes, 50.0)
    assert np.array_equal(binned.classes, plain.classes)
    assert np.array_equal(binned.bins, metrics.probability_bin(plain.probability))


def test_bins_at_their_edges_are_numpys() -> None:
    edges = (np.arange(101) / 100).astype(np.float32)
    near = [np.nextafter(edges, np.float32(side)).clip(0, 1) for side in (-1, 2)]
    probability = np.concatenate([edges, *near])
    assert np.array_equal(probability_bin(torch.from_numpy(probability)).numpy(), metrics.probability_bin(probability))
    assert probability_bin(torch.tensor([torch.nan, torch.inf, -1.0])).tolist() == [99, 99, 0]  # none counts elsewhere


def test_the_first_of_equal_queries_wins_also_among_hundreds() -> None:
    scores = torch.zeros(300, 1, 2)
    scores[270, 0, 1] = scores[280, 0, 1] = 1.0
    classes = torch.arange(300) // 2
    assert classify(scores, (1, 2), classes, 50.0).classes.tolist() == [[0, 135]]


@pytest.mark.parametrize("queries", [2, 9, 256, 300])
@pytest.mark.parametrize("binned", [False, True])
@pytest.mark.parametrize("size", [(61, 90), (30, 40), (300, 41)])
def test_the_fast_way_finds_what_the_textbook_way_finds(queries: int, binned: bool, size: tuple[int, int]) -> None:
    scores = torch.randn(queries, 30, 40)
    classes = (np.arange(queries) // 2).astype(np.uint8)
    winner, certainty = postprocess_cpu.winners(scores, size, classes, binned)
    other_winner, other_certainty = module._textbook(scores, size, torch.from_numpy(classes).long(), binned)
    assert winner.shape == certainty.shape == size
    assert np.mean(winner != other_winner) < 1e-3  # the resize rounds differently
    if binned:
        assert certainty.dtype == other_certainty.dtype == np.uint8
        assert np.mean(certainty != other_certainty) < 1e-2
    else:
        np.testing.assert_allclose(certainty, other_certainty, atol=2e-5)


def test_strips_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, classes = torch.randn(5, 20, 31), torch.arange(5)
    whole = classify(scores, (70, 93), classes, 1.0)
    monkeypatch.setattr(postprocess_cpu, "_VALUES", 1)
    by_lines = classify(scores, (70, 93), classes, 1.0)
    assert np.array_equal(whole.classes, by_lines.classes)
    assert np.array_equal(whole.probability, by_lines.probability)


@pytest.mark.parametrize(("height", "enlarged"), [(1, 7), (5, 5), (30, 31), (7, 100), (40, 13), (3, 300)])
def test_every_line_is_in_one_run_and_weighs_what_exact_arithmetic_says(height: int, enlarged: int) -> None:
    runs = postprocess_cpu._runs(height, enlarged)
    assert np.array_equal(np.repeat(runs.first, runs.lines) + _counting(runs.lines), np.arange(enlarged))
    weight = np.repeat(runs.weight, runs.lines) + _counting(runs.lines) * np.repeat(runs.growth, runs.lines)
    upper, lower = np.repeat(runs.upper, runs.lines), np.repeat(runs.lower, runs.lines)
    ramp = torch.arange(height, dtype=torch.float64)[None, None, :, None]
    exact = F.interpolate(ramp, size=(enlarged, 1), mode="bilinear")[0, 0, :, 0]
    np.testing.assert_allclose(upper * (1 - weight) + lower * weight, exact.numpy(), atol=1e-5)


def _counting(lengths: np.ndarray) -> np.ndarray:
    """0, 1, … of each length, one after the other."""
    return np.concatenate([np.arange(length) for length in lengths])


def test_large_enlargements_are_those_of_exact_arithmetic() -> None:
    scores = F.interpolate(torch.randn(1, 9, 6, 8), size=(48, 64), mode="bicubic")[0] * 0.02
    found = classify(scores, (1200, 1000), torch.arange(9), 50.0)
    exact = (F.interpolate(scores[None].double(), size=(1200, 1000), mode="bilinear")[0] * 50).softmax(dim=0)
    probability, winner = exact.max(dim=0)
    assert np.mean(found.classes != winner.numpy()) < 1e-5
    np.testing.assert_allclose(found.probability, probability.numpy(), atol=2e-6)


def test_scores_too_far_apart_for_float32_go_the_other_way(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, classes = torch.randn(4, 9, 11) * 3, torch.arange(4)
    near = classify(scores, (40, 50), classes, 1.0)
    monkeypatch.setattr(postprocess_cpu, "RANGE", 1.0)
    monkeypatch.setattr(postprocess_cpu, "winners", None)
    far = classify(scores, (40, 50), classes, 1.0)
    assert np.mean(near.classes != far.classes) < 1e-3
    np.testing.assert_allclose(near.probability, far.probability, atol=1e-5)


def test_scores_that_are_no_numbers_still_give_a_map() -> None:
    found = classify_binned(torch.full((3, 4, 5), torch.nan), (8, 10), torch.arange(3), 50.0)
    assert found.classes.shape == found.bins.shape == (8, 10)


def test_far_apart_scores_do_not_overflow() -> None:
    scores = torch.tensor([-300.0, 300.0, 0.0])[:, None, None]
    prediction = classify(scores, (2, 2), torch.arange(3), 50.0)
    assert prediction.classes.tolist() == [[1, 1], [1, 1]]
    assert prediction.probability.tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize("values", [1, 5_000, 1 << 25])
def test_histograms_on_a_device_count_what_maps_count(values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_VALUES", values)
    generator = np.random.default_rng(0)
    label = generator.choice(np.array([0, 1, 2, 3, 7, 255], np.uint8), (60, 47))
    scores = torch.randn(3, 5, 20, 31) * 0.05
    classes = torch.tensor([[0, 1, 1, 2, 3], [3, 2, 1, 0, 0], [0, 0, 0, 1, 2]])
    scales = torch.tensor([50.0, 40.0, 10.0])
    found = module.pixel_histograms(scores, classes, scales, torch.from_numpy(label), 4)
    for row in range(3):
        maps = module._textbook(scores[row] * scales[row], label.shape, classes[row], binned=True)
        keys, counts = metrics.count(label, *maps, 4)
        expected = np.zeros(5 * 4 * 100, np.int64)
        expected[keys] = counts
        assert np.array_equal(found[row].numpy(), expected)


@settings(max_examples=20)
@given(st.integers(2, 20), st.integers(1, 40), st.booleans())
def test_probabilities_are_enlarged_and_taken_as_they_are(side: int, enlarged: int, same: bool) -> None:
    size = (side, side) if same else (enlarged, enlarged)
    scores = torch.rand(4, side, side, generator=torch.Generator().manual_seed(side))
    classes = torch.tensor([0, 1, 1, 2])
    best, query = F.interpolate(scores[None], size=size, mode="bilinear")[0].max(dim=0)
    found = classify(scores, size, classes, 0.0)
    assert np.allclose(found.probability, best.numpy(), atol=1e-6)
    clear = best.numpy() == found.probability
    assert np.array_equal(found.classes[clear], classes[query].to(torch.uint8).numpy()[clear])
    label = torch.zeros(size, dtype=torch.uint8)
    counted = pixel_histograms(scores[None], classes[None], None, label, 3)
    binned = classify_binned(scores, size, classes, 0.0)
    assert counted.sum() == label.numel()
    keys, counts = metrics.count(label.numpy(), *binned, 3)
    assert np.array_equal(counted[0].numpy()[keys], counts)
