"""Paired tests: textbook examples, exact enumeration, scipy, and the error rate under the null hypothesis."""

from __future__ import annotations

import numpy as np
import pytest
from scene_helpers import scenes_of
from scipy import stats as scipy_stats

from bench import metrics
from bench.metrics import Areas
from bench.metrics import significance as stats
from bench.metrics.bootstrap import Interval, Scenes


def two_rows(scenes: int, gain: int, seed: int = 0) -> tuple[Scenes, Scenes]:
    """Two rows of three classes on the same labels; the first has `gain` more hits per scene and class."""
    rng = np.random.default_rng(seed)
    rows = []
    for extra in (gain, 0):
        confusions = np.zeros((scenes, 4, 3), np.int64)
        hits = rng.integers(30, 60, size=(scenes, 3)) + extra
        confusions[:, range(3), range(3)] = hits
        confusions[:, range(3), [1, 2, 0]] = 100 - hits
        rows.append(scenes_of(confusions, "scene"))
    return rows[0], rows[1]


def scipy_p_value(first: Scenes, second: Scenes, permutations: float, seed: int) -> float:
    def statistic(swap: np.ndarray, _: np.ndarray, axis: int) -> np.ndarray:
        """swap (..., S): 1 where the two rows have changed places."""
        swap = swap[..., None, None]
        a = (first.areas.stack * (1 - swap) + second.areas.stack * swap).sum(-3)
        b = (second.areas.stack * (1 - swap) + first.areas.stack * swap).sum(-3)
        return metrics.mean_iou(Areas(a)) - metrics.mean_iou(Areas(b))

    scenes = len(first)
    return scipy_stats.permutation_test(
        (np.zeros(scenes), np.ones(scenes)),
        statistic,
        permutation_type="samples",
        vectorized=True,
        n_resamples=permutations,
        batch=1000,
        random_state=np.random.default_rng(seed),
    ).pvalue


@pytest.mark.parametrize("gain", [0, 3, 8])
def test_few_scenes_are_enumerated(gain):
    first, second = two_rows(8, gain)
    result = stats.permutation_test(first, second, "miou")
    assert (result.exact, result.permutations, result.unit, result.clusters) == (True, 256, "scene", 8)
    assert result.p_value == pytest.approx(scipy_p_value(first, second, np.inf, 0))
    expected = metrics.mean_iou(first.areas.total) - metrics.mean_iou(second.areas.total)
    assert result.difference == pytest.approx(expected)


def test_many_scenes_are_sampled():
    first, second = two_rows(40, 2)
    result = stats.permutation_test(first, second, "miou", 4000)
    assert (result.exact, result.permutations) == (False, 4000)
    assert result.p_value == pytest.approx(scipy_p_value(first, second, 4000, 1), abs=0.03)
    assert result == stats.permutation_test(first, second, "miou", 4000)
    assert result.p_value != stats.permutation_test(first, second, "miou", 4000, seed=1).p_value


def test_a_row_that_wins_everywhere_has_the_smallest_p_value_there_is():
    assert stats.permutation_test(*two_rows(10, 40), "miou").p_value == 2 / 2**10
    assert stats.permutation_test(*two_rows(30, 40), "miou", 99).p_value == 1 / 100


def test_a_row_against_itself_has_p_one():
    for scenes in (6, 20):
        row, _ = two_rows(scenes, 0)
        result = stats.permutation_test(row, row, "aacc", 200)
        assert (result.difference, result.p_value) == (0.0, 1.0)


def test_equal_rows_are_rejected_as_often_as_the_level_says():
    p_values = [stats.permutation_test(*two_rows(8, 0, seed), "miou").p_value for seed in range(400)]
    assert 0.02 < np.mean(np.array(p_values) <= 0.05) < 0.08


def test_chunks_are_an_implementation_detail(monkeypatch):
    small, large = two_rows(7, 3), two_rows(40, 3)
    whole = [stats.permutation_test(*rows, "miou", 500) for rows in (small, large)]
    monkeypatch.setattr(stats, "_CHUNK", 1600)
    assert [stats.permutation_test(*rows, "miou", 500) for rows in (small, large)] == whole


def test_rows_on_other_images_are_refused():
    first, second = two_rows(8, 0)
    with pytest.raises(ValueError, match="not counted on the same images"):
        stats.permutation_test(first, Scenes(Areas(second.areas.stack[:7]), "scene"), "miou")
    second.areas.stack[2, 2, 0] += 1  # one more pixel labelled out of range
    with pytest.raises(ValueError, match="not counted on the same images"):
        stats.permutation_test(first, second, "miou")


def test_an_undefined_metric_has_no_p_value():
    nothing = scenes_of(np.zeros((5, 3, 2), np.int64), "image")
    result = stats.permutation_test(nothing, nothing, "miou")
    assert np.isnan([result.difference, result.p_value]).all()


def test_holm_by_hand():
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert stats.holm([0.02]) == pytest.approx([0.02])
    assert stats.holm([]).size == 0


def test_wilcoxon_by_hand():
    result = stats.wilcoxon([0.31, 0.42, 0.53, 0.64, 0.75, 0.86], [0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    assert result.p_value == 2 / 2**6  # six wins of six
    assert (result.datasets, result.wins, result.losses) == (6, 6, 0)
    assert result.median_difference == pytest.approx(0.035)


def test_wilcoxon_leaves_equal_datasets_out():
    result = stats.wilcoxon([0.5, 0.2, 0.3], [0.5, 0.1, 0.6])
    assert (result.datasets, result.wins, result.losses) == (3, 1, 1)
    assert result.p_value == 1.0
    assert stats.wilcoxon([0.5], [0.5]).p_value == 1.0


@pytest.mark.parametrize(("first", "second"), [([], []), ([0.5, np.nan], [0.5, 0.5])])
def test_wilcoxon_needs_scores(first, second):
    with pytest.raises(ValueError, match="score of both rows on each dataset"):
        stats.wilcoxon(first, second)


def interval(low: float, high: float) -> Interval:
    return Interval(0.40, low, high, 0.01, 0.95, 1000, "scene", 14)


@pytest.mark.parametrize(
    ("published", "status", "off", "text"),
    [
        (0.390, "inside", 0.0, "inside"),
        (0.3796, "inside", 0.0, "inside"),  # printed to 0.1 points: 0.3796 may be 0.3801
        (0.379, "above", 0.001, "off by +0.1"),
        (0.355, "above", 0.025, "off by +2.5"),
        (0.4204, "inside", 0.0, "inside"),
        (0.433, "below", -0.013, "off by -1.3"),
    ],
)
def test_verdict_by_hand(published, status, off, text):
    verdict = stats.verdict(published, interval(0.38, 0.42))
    assert verdict.status == status
    assert verdict.off == pytest.approx(off)
    assert verdict.difference == pytest.approx(0.40 - published)
    assert str(verdict) == text


def test_without_an_interval_there_is_no_verdict():
    verdict = stats.verdict(0.3, interval(float("nan"), float("nan")))
    assert verdict.status == "unknown"
    assert np.isnan(verdict.off)
    assert str(verdict) == "no interval"
