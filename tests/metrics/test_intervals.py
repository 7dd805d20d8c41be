"""bench.metrics.intervals: small cases by hand, closed forms, simulated coverage."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scene_helpers import scenes_of
from scipy import stats

from bench import metrics
from bench.metrics import intervals
from bench.metrics.intervals import Interval, Scenes

AREA = 1000  # labelled pixels of an image in `two_classes`


def two_classes(correct: np.ndarray) -> np.ndarray:
    """(N, 3, 2): images of AREA pixels, half of each class, with (N,) hits; aAcc is their plain mean."""
    hits = np.stack([correct // 2, correct - correct // 2], axis=-1)
    confusions = np.zeros((len(correct), 3, 2), np.int64)
    confusions[:, [0, 1], [0, 1]] = hits
    confusions[:, [0, 1], [1, 0]] = AREA // 2 - hits
    return confusions


def hits(scenes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(300, 900, size=scenes)


def accuracy(correct: np.ndarray, unit: intervals.Unit = "scene") -> Scenes:
    return scenes_of(two_classes(correct), unit, "aacc")


def with_sizes(*sizes: int) -> Scenes:
    """Scenes of so many pixels, all right."""
    return scenes_of(np.array([[[size], [0]] for size in sizes]))


def test_the_jackknife_of_three_numbers_by_hand():
    found = intervals.interval(accuracy(np.array([200, 400, 900])))
    # without each: 0.65, 0.55, 0.3, whose mean is 0.5; 2/3 of the squared distances 0.0225 + 0.0025 + 0.04
    assert found.estimate == pytest.approx(0.5)
    assert found.standard_error == pytest.approx(math.sqrt(2 / 3 * 0.065))
    assert (found.degrees, found.scenes, found.unit) == (pytest.approx(2), 3, "scene")


def test_of_a_plain_mean_it_is_students_interval():
    correct = hits(50)
    found = intervals.interval(accuracy(correct, "image"))
    mean, error = (correct / AREA).mean(), (correct / AREA).std(ddof=1) / math.sqrt(50)
    assert found.standard_error == pytest.approx(error)
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, 49, mean, error))


@pytest.mark.parametrize("scenes", [2, 3, 6, 40])
def test_equal_scenes_have_one_degree_of_freedom_less_than_scenes(scenes):
    assert intervals.interval(with_sizes(*[7] * scenes)).degrees == pytest.approx(scenes - 1)


def test_unequal_scenes_have_fewer_degrees_of_freedom():
    # weights 1, 1, 16 of total 18: (2/3 · 18)² / (1/3 · 258 + 324/9)
    assert intervals.interval(with_sizes(1, 1, 4)).degrees == pytest.approx(144 / 122)
    assert intervals.interval(with_sizes(1, 1, 1000)).degrees == pytest.approx(1, abs=1e-3)
    assert intervals.interval(with_sizes(0, 0, 0)).degrees == 1


@pytest.mark.parametrize(
    ("scenes", "known", "text"),
    [
        (5, False, "5 scenes: no interval"),
        (6, True, "6 scenes: few"),
        (13, True, "13 scenes: few"),
        (14, True, "14 scenes"),
    ],
)
def test_fewer_than_six_scenes_give_no_interval_and_fewer_than_fourteen_are_few(scenes, known, text):
    found = intervals.interval(accuracy(hits(scenes)))
    assert (found.known, found.sample) == (known, text)
    assert np.isnan([found.low, found.high]).all() != known
    assert found.standard_error > 0


def test_one_scene_has_a_score_and_no_error():
    found = intervals.interval(accuracy(hits(1)))
    assert found.estimate > 0
    assert math.isnan(found.standard_error)
    assert math.isnan(found.effect)


def test_a_score_that_is_undefined_without_a_scene_has_no_interval():
    background, both = np.array([[9, 0], [0, 0], [0, 0]]), np.array([[5, 1], [1, 3], [0, 0]])
    found = intervals.interval(scenes_of(np.stack([background] * 6 + [both]), metric="foreground_iou"))
    assert (found.estimate, found.known) == (3 / 5, False)


def test_ends_stay_among_possible_scores():
    of_row = Interval(0.03, 0.04, 5, "scene", 6)
    assert of_row.low == 0
    assert replace(of_row, estimate=0.97).high == 1
    assert replace(of_row, lowest=-1).low < 0


def test_images_of_a_scene_are_added_up():
    images = two_classes(hits(4))
    scenes = intervals.by_scene(metrics.areas(images), ["b", "a", "b", "a"], "miou")
    expected = metrics.areas(np.stack([images[0] + images[2], images[1] + images[3]]))
    np.testing.assert_array_equal(scenes.areas.stack, expected.stack)
    assert scenes.unit == "scene"
    assert scenes.areas.stack.dtype == np.int64


def test_images_without_a_scene_stand_alone_and_it_is_said():
    images = metrics.areas(two_classes(hits(4)))
    apart = intervals.by_scene(images, [None] * 4, "miou")
    np.testing.assert_array_equal(apart.areas.stack, images.stack)
    mixed = intervals.by_scene(images, ["a", None, "a", None], "miou")
    assert len(mixed) == 3
    assert mixed.unit == "image"
    with pytest.raises(ValueError, match="4 images, 1 scene names"):
        intervals.by_scene(images, ["a"], "miou")


def test_scenes_cover_the_truth_and_their_tiles_do_not():
    """12 tiles of each of 25 scenes are alike, and an interval that forgets it is far too narrow."""
    rng = np.random.default_rng(0)
    truth, trials = 0.6, 300
    covered = {"scene": 0, "image": 0}
    names = np.repeat(np.arange(25), 12).astype(str).tolist()
    for _ in range(trials):
        images = metrics.areas(two_classes(rng.binomial(AREA, np.repeat(rng.beta(6, 4, size=25), 12))))  # mean 0.6
        for scenes in (intervals.by_scene(images, names, "aacc"), intervals.by_scene(images, [None] * 300, "aacc")):
            found = intervals.interval(scenes)
            covered[scenes.unit] += found.low <= truth <= found.high
    assert 0.92 < covered["scene"] / trials < 0.98
    assert 0.2 < covered["image"] / trials < 0.42


def test_what_makes_a_scene_hard_for_both_rows_cancels_out():
    correct = hits(40)
    first, second = accuracy(correct + 50), accuracy(correct)
    gain = intervals.interval(first, second)
    assert (gain.low, gain.estimate, gain.high) == pytest.approx((0.05, 0.05, 0.05))
    assert intervals.interval(first).standard_error > 0.01
    assert intervals.interval(second, first).low == pytest.approx(-gain.high)


@pytest.mark.parametrize("change", ["images", "order", "metric"])
def test_rows_on_other_images_are_not_subtracted(change):
    images = two_classes(hits(10))
    images[3:, 2] = 5  # label counts differ between images
    other = {"images": images[:9], "order": images[::-1]}.get(change, images)
    with pytest.raises(ValueError, match="not counted on the same images"):
        intervals.interval(scenes_of(images), scenes_of(other, metric="aacc" if change == "metric" else "miou"))


def test_the_average_over_datasets_by_hand():
    parts = [Interval(0.5, 0.03, 4, "scene", 5), Interval(0.7, 0.04, 9, "scene", 10)]
    mean = intervals.average(parts)
    assert (mean.estimate, mean.standard_error) == (pytest.approx(0.6), pytest.approx(0.025))
    assert mean.degrees == pytest.approx(0.0025**2 / (0.0009**2 / 4 + 0.0016**2 / 9))
    assert (mean.scenes, mean.unit, mean.lowest) == (15, "scene", 0)
    assert intervals.average([parts[0]]).standard_error == pytest.approx(0.03)


def test_an_average_is_as_optimistic_as_its_worst_part_and_needs_parts():
    parts = [intervals.interval(accuracy(hits(10), unit)) for unit in ("scene", "image")]
    assert intervals.average(parts).unit == "image"
    assert not intervals.average([*parts, intervals.interval(accuracy(hits(1)))]).known
    with pytest.raises(ValueError, match="average of nothing"):
        intervals.average([])


def test_datasets_without_any_spread_have_an_average():
    same = intervals.interval(with_sizes(*[7] * 6))
    assert (intervals.average([same, same]).low, intervals.average([same, same]).high) == (1, 1)


def test_scenes_needed_follow_the_power_formula():
    seen = Interval(0.02, 0.02, 59, "scene", 60, lowest=-1)
    found = intervals.scenes_needed(0.01, seen)
    assert found == pytest.approx(60 * (2.8 * 2) ** 2, rel=0.01)
    assert intervals.scenes_needed(0.5, seen) == intervals.LEAST
    assert intervals.scenes_needed(0.01, replace(seen, standard_error=math.nan)) is None
    assert intervals.scenes_needed(0.01, replace(seen, standard_error=0.0)) == intervals.LEAST


def test_the_power_that_was_asked_for_is_reached():
    """Differences of normal scenes: with as many as the formula asks for, Student's test finds 80 %."""
    spread, difference = 0.1, 0.05
    scenes = intervals.scenes_needed(difference, Interval(0, spread / math.sqrt(20), 19, "scene", 20, lowest=-1))
    drawn = np.random.default_rng(0).normal(difference, spread, (2000, scenes or 0))
    assert (stats.ttest_1samp(drawn, 0, axis=1).pvalue <= 0.05).mean() == pytest.approx(0.8, abs=0.04)


def test_the_effect_is_the_mean_over_the_deviation_of_scenes():
    correct = hits(30)
    gain = correct + np.random.default_rng(1).integers(-40, 60, 30)
    difference = (gain - correct) / AREA
    found = intervals.interval(accuracy(gain), accuracy(correct)).effect
    assert found == pytest.approx(difference.mean() / difference.std(ddof=1))


def test_improvement_by_hand():
    first, second = accuracy(np.array([500, 600, 700, 800])), accuracy(np.array([400, 600, 900, 700]))
    assert intervals.improvement(first, second) == 2.5 / 4
    nothing = scenes_of(np.zeros((2, 3, 2), np.int64))
    assert math.isnan(intervals.improvement(nothing, nothing))


def test_classes_that_an_interval_cannot_judge_are_named():
    confusions = np.zeros((7, 4, 3), np.int64)
    confusions[:, 0, 0] = 5
    confusions[2, 1, 1] = 5  # labelled in one scene
    confusions[3, 0, 2] = 1  # predicted alone
    assert intervals.blind_spots(scenes_of(confusions), ["road", "car", "tree"]) == [
        "labelled in one scene only: car",
        "predicted but labelled nowhere (IoU 0): tree",
    ]


@pytest.mark.parametrize(("count", "text"), [(1, "1 scene"), (1669, "1,669 scenes")])
def test_scenes_in_words(count, text):
    assert intervals.units(count, "scene") == text
