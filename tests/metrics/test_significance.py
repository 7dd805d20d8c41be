"""Paired tests: textbook examples, exact enumeration, scipy, and the error rate under the null hypothesis."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scene_helpers import scenes_of
from scipy import stats as scipy_stats

from bench import metrics
from bench.metrics import Areas
from bench.metrics import significance as stats
from bench.metrics.intervals import Scenes, interval


def two_rows(scenes: int, gain: int, seed: int = 0) -> tuple[Scenes, Scenes]:
    """Two rows of three classes on the same labels; the first has `gain` more hits per scene and class."""
    rng = np.random.default_rng(seed)
    rows = []
    for extra in (gain, 0):
        confusions = np.zeros((scenes, 4, 3), np.int64)
        hits = rng.integers(30, 60, size=(scenes, 3)) + extra
        confusions[:, range(3), range(3)] = hits
        confusions[:, range(3), [1, 2, 0]] = 100 - hits
        rows.append(scenes_of(confusions))
    return rows[0], rows[1]


def scipy_p_value(first: Scenes, second: Scenes, permutations: float, seed: int) -> float:
    def statistic(swap: np.ndarray, _: np.ndarray, axis: int) -> np.ndarray:
        """swap (..., S): 1 where the two rows have changed places."""
        swap = swap[..., None, None]
        a = (first.areas.stack * (1 - swap) + second.areas.stack * swap).sum(-3)
        b = (second.areas.stack * (1 - swap) + first.areas.stack * swap).sum(-3)
        return metrics.mean_iou(Areas(a)) - metrics.mean_iou(Areas(b))

    scenes = len(first)
    return scipy_stats.permutation_test(  # type: ignore[call-overload]  # its statistic takes an axis
        (np.zeros(scenes), np.ones(scenes)),
        statistic,
        permutation_type="samples",
        vectorized=True,
        n_resamples=permutations,
        batch=1000,
        random_state=np.random.default_rng(seed),
    ).pvalue


def permuted(first: Scenes, second: Scenes, permutations: int = 1000, seed: int = 0) -> stats.PermutationTest:
    return stats.permutation_test([first], [second], permutations, seed)


@pytest.mark.parametrize("gain", [0, 3, 8])
def test_few_scenes_are_enumerated(gain):
    first, second = two_rows(8, gain)
    result = permuted(first, second)
    assert (result.exact, result.permutations, result.unit, result.scenes) == (True, 256, "scene", 8)
    assert result.p_value == pytest.approx(scipy_p_value(first, second, np.inf, 0))
    assert result.difference == pytest.approx(first.score - second.score)
    assert permuted(second, first).p_value == result.p_value


def test_many_scenes_are_sampled():
    first, second = two_rows(40, 2)
    result = permuted(first, second, 4000)
    assert (result.exact, result.permutations) == (False, 4000)
    assert result.p_value == pytest.approx(scipy_p_value(first, second, 4000, 1), abs=0.03)
    assert result == permuted(first, second, 4000)
    assert result.p_value == permuted(second, first, 4000).p_value
    assert result.p_value != permuted(first, second, 4000, seed=1).p_value


def test_a_row_that_wins_everywhere_has_the_smallest_p_value_there_is():
    for result, least in ((permuted(*two_rows(9, 40)), 2 / 2**9), (permuted(*two_rows(30, 40), 99), 1 / 100)):
        assert result.p_value == result.least == least


def test_fewer_than_six_scenes_have_no_p_value():
    five, six = permuted(*two_rows(5, 40)), permuted(*two_rows(6, 40))
    assert np.isnan(five.p_value)
    assert five.difference > 0
    assert six.p_value == 2 / 2**6


def test_a_row_against_itself_has_p_one():
    for scenes in (6, 20):
        row, _ = two_rows(scenes, 0)
        result = permuted(row, row, 200)
        assert (result.difference, result.p_value) == (0.0, 1.0)


def test_equal_rows_are_rejected_as_often_as_the_level_says():
    p_values = [permuted(*two_rows(8, 0, seed)).p_value for seed in range(400)]
    assert 0.02 < np.mean(np.array(p_values) <= 0.05) < 0.08


def test_chunks_are_an_implementation_detail(monkeypatch):
    small, large = two_rows(7, 3), two_rows(40, 3)
    whole = [permuted(*rows, 500) for rows in (small, large)]
    monkeypatch.setattr(stats, "_CHUNK", 1600)
    assert [permuted(*rows, 500) for rows in (small, large)] == whole


def test_a_pair_has_the_same_result_whatever_else_is_permuted():
    (a, b), (c, _) = two_rows(30, 2), two_rows(30, 5, seed=1)
    (x, y), (z, _) = two_rows(25, 1, seed=2), two_rows(25, 4, seed=3)
    datasets = [{"c": c, "b": b, "a": a}, {"a": x, "b": y, "c": z}]
    together = stats.permutation_tests(datasets, [("a", "c"), ("a", "b"), ("b", "c")], 500)[1]
    assert together == stats.permutation_test([a, x], [b, y], 500)
    assert together.p_value == stats.permutation_test([x, a], [y, b], 500).p_value


def test_over_datasets_the_scenes_of_all_are_swapped_at_once():
    (a, b), (x, y) = two_rows(4, 5), two_rows(3, 8, seed=1)
    result = stats.permutation_test([a, x], [b, y])
    assert (result.exact, result.permutations, result.scenes) == (True, 2**7, 7)
    assert result.difference == pytest.approx((a.score - b.score + x.score - y.score) / 2)
    found = []
    for bits in np.ndindex(*[2] * 7):  # the definition, swap by swap
        swap = np.array(bits)[:, None, None]
        mean: Any = 0.0
        for first, second, part in ((a, b, swap[:4]), (x, y, swap[4:])):
            change = part * (second.areas.stack - first.areas.stack)
            mean += metrics.mean_iou(Areas((first.areas.stack + change).sum(0))) / 2
            mean -= metrics.mean_iou(Areas((second.areas.stack - change).sum(0))) / 2
        found.append(abs(mean) >= abs(result.difference) - 1e-12)
    assert result.p_value == np.mean(found)


def test_datasets_with_equal_labels_are_swapped_independently():
    a, b = two_rows(12, 2)
    twice = stats.permutation_test([a, a], [b, b], 4000)
    assert not twice.exact
    assert twice.p_value < stats.permutation_test([a], [b], 4096).p_value  # the same evidence twice


def test_rows_on_other_images_are_refused():
    first, second = two_rows(8, 0)
    with pytest.raises(ValueError, match="not counted on the same images"):
        permuted(first, Scenes(Areas(second.areas.stack[:7]), "scene", "miou"))
    second.areas.stack[2, 2, 0] += 1  # one more pixel labelled out of range
    with pytest.raises(ValueError, match="not counted on the same images"):
        permuted(first, second)


def test_an_undefined_metric_has_no_p_value():
    nothing = scenes_of(np.zeros((7, 3, 2), np.int64), "image")
    result = permuted(nothing, nothing)
    assert np.isnan([result.difference, result.p_value]).all()
    assert stats.permutation_tests([], []) == []


def test_interval_and_test_agree_about_a_clear_difference():
    first, second = two_rows(20, 10)
    assert interval(first, second).low > 0
    assert permuted(first, second, 2000).p_value < 0.01


def test_holm_by_hand():
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert stats.holm([0.02]) == pytest.approx([0.02])
    assert stats.holm([]).size == 0


def test_holm_leaves_out_what_has_no_p_value():
    assert stats.holm([np.nan, 0.01, np.nan, 0.04]) == pytest.approx([np.nan, 0.02, np.nan, 0.04], nan_ok=True)


def test_some_of_a_family_are_never_adjusted_less_than_in_the_whole_family():
    p = np.random.default_rng(0).uniform(size=30) ** 4
    assert (stats.holm(p[:12], among=30) >= stats.holm(p)[:12]).all()
    assert stats.holm([0.01, 0.02], among=4) == pytest.approx([0.04, 0.06])


def test_a_row_is_ahead_of_those_that_tests_tell_from_it():
    scores = {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.7}
    adjusted = {("b", "a"): 0.3, ("a", "c"): 0.01, ("a", "d"): 0.05, ("b", "c"): float("nan")}
    assert stats.ahead(scores, adjusted) == {"a": ["c", "d"], "b": [], "c": [], "d": []}
    assert stats.ahead(scores, adjusted, level=0.01) == {"a": ["c"], "b": [], "c": [], "d": []}


def test_wilcoxon_by_hand():
    result = stats.wilcoxon([0.31, 0.42, 0.53, 0.64, 0.75, 0.86], [0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    assert result.p_value == 2 / 2**6  # six wins of six
    assert (result.datasets, result.wins, result.losses) == (6, 6, 0)
    assert result.median_difference == pytest.approx(0.035)


def test_wilcoxon_leaves_equal_datasets_out():
    result = stats.wilcoxon([0.5, 0.2, 0.3], [0.5, 0.1, 0.6])
    assert (result.datasets, result.wins, result.losses) == (3, 1, 1)
    assert np.isnan(result.p_value)  # three datasets cannot reach 0.05
    assert stats.wilcoxon([0.5] * 6, [0.5] * 6).p_value == 1.0


@pytest.mark.parametrize(("first", "second"), [([], []), ([0.5, np.nan], [0.5, 0.5])])
def test_wilcoxon_needs_scores(first, second):
    with pytest.raises(ValueError, match="score of both rows on each dataset"):
        stats.wilcoxon(first, second)


def test_mean_ranks_of_a_clear_order_by_hand():
    found = stats.mean_ranks({"b": [0.5] * 8, "a": [0.6] * 8, "c": [0.4] * 8})
    assert found is not None
    assert found.ranks == {"b": 2, "a": 1, "c": 3}
    assert found.p_value == pytest.approx(np.exp(-8))  # chi squared of 16 with two degrees of freedom
    assert found.critical == pytest.approx(2.343 * np.sqrt(3 * 4 / (6 * 8)), abs=1e-3)  # Demšar's table 5


def test_a_dataset_left_out_changes_mean_ranks_by_hand():
    found = stats.mean_ranks({"a": [0.9, 0.8, 0.1], "b": [0.5, 0.6, 0.7]})
    assert found is not None
    assert found.ranks == {"a": pytest.approx(4 / 3), "b": pytest.approx(5 / 3)}
    assert found.ranges == {"a": (1.0, 1.5), "b": (1.5, 2.0)}


def test_nothing_is_told_apart_where_friedman_finds_nothing():
    noise = np.random.default_rng(0).uniform(size=(4, 5))
    found = stats.mean_ranks({str(row): values.tolist() for row, values in enumerate(noise)})
    assert found is not None
    assert found.p_value > 0.05
    assert found.critical is None
    same = stats.mean_ranks({"a": [0.5, 0.5], "b": [0.5, 0.5], "c": [0.5, 0.5]})
    assert same is not None
    assert same.critical is None
    assert stats.mean_ranks({"a": [0.5, 0.6]}) is None
    assert stats.mean_ranks({"a": [0.5], "b": [0.6]}) is None
