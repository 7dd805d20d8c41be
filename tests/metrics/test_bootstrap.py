"""bench.metrics.bootstrap: closed forms where there are any, scipy, simulated coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scene_helpers import scenes_of
from scipy import stats

from bench import metrics
from bench.metrics import bootstrap
from bench.metrics.bootstrap import Draws

AREA = 1000  # labelled pixels of an image in `two_classes`


def two_classes(correct: np.ndarray) -> np.ndarray:
    """(N, 3, 2): images of AREA pixels, half of each class, with (N,) hits; aAcc is their plain mean."""
    hits = np.stack([correct // 2, correct - correct // 2], axis=-1)
    confusions = np.zeros((len(correct), 3, 2), np.int64)
    confusions[:, [0, 1], [0, 1]] = hits
    confusions[:, [0, 1], [1, 0]] = AREA // 2 - hits
    return confusions


def some_images(images: int, seed: int = 0) -> np.ndarray:
    return two_classes(np.random.default_rng(seed).integers(300, 1000, size=images))


@pytest.mark.parametrize("draws", [2_000, 20_000])
def test_standard_error_of_a_plain_mean_is_the_closed_form_for_any_number_of_draws(draws):
    images = some_images(50)
    accuracies = metrics.overall_accuracy(images)
    closed_form = accuracies.std(ddof=1) / np.sqrt(50)
    interval = bootstrap.bootstrap(scenes_of(images, "image"), "aacc", draws).interval()
    assert interval.standard_error == pytest.approx(closed_form, rel=0.05)
    assert interval.estimate == pytest.approx(accuracies.mean())
    low, high = stats.norm.interval(0.95, accuracies.mean(), closed_form)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.2 * closed_form)
    assert (interval.draws, interval.level, interval.unit, interval.clusters) == (draws, 0.95, "image", 50)


@pytest.mark.parametrize("method", ["percentile", "BCa"])
def test_scipy_agrees_on_miou(method):
    images = some_images(60)
    images[:, 2] = 7  # some labels out of range

    def statistic(index: np.ndarray, axis: int) -> np.ndarray:
        return metrics.mean_iou(images[index].sum(-3))

    theirs = stats.bootstrap(
        (np.arange(60),), statistic, method=method, n_resamples=4000, random_state=np.random.default_rng(1)
    )
    ours = bootstrap.bootstrap(scenes_of(images, "image"), "miou").interval()
    assert ours.standard_error == pytest.approx(theirs.standard_error, rel=0.06)
    expected = theirs.confidence_interval.low, theirs.confidence_interval.high
    assert (ours.low, ours.high) == pytest.approx(expected, abs=0.25 * ours.standard_error)


def test_the_same_arguments_give_the_same_draws():
    scenes = scenes_of(some_images(20), "image")
    first, again = (bootstrap.bootstrap(scenes, "miou", 500) for _ in range(2))
    np.testing.assert_array_equal(first.values, again.values)
    assert not np.array_equal(first.values, bootstrap.bootstrap(scenes, "miou", 500, seed=1).values)


def test_chunks_are_an_implementation_detail(monkeypatch):
    scenes = scenes_of(some_images(20), "image")
    whole = bootstrap.bootstrap(scenes, "miou", 500).values
    monkeypatch.setattr(bootstrap, "_CHUNK", 33 * 20)
    np.testing.assert_array_equal(bootstrap.bootstrap(scenes, "miou", 500).values, whole)


def test_images_of_a_scene_are_added_up():
    images = some_images(4)
    scenes = bootstrap.by_scene(metrics.areas(images), ["b", "a", "b", "a"])
    expected = metrics.areas(np.stack([images[0] + images[2], images[1] + images[3]]))
    np.testing.assert_array_equal(scenes.areas.stack, expected.stack)
    assert scenes.unit == "scene"
    assert scenes.areas.stack.dtype == np.int64


def test_images_without_a_scene_stand_alone_and_it_is_said():
    images = some_images(4)
    apart = bootstrap.by_scene(metrics.areas(images), [None] * 4)
    np.testing.assert_array_equal(apart.areas.stack, metrics.areas(images).stack)
    mixed = bootstrap.by_scene(metrics.areas(images), ["a", None, "a", None])
    assert len(mixed) == 3
    assert mixed.unit == "image"
    with pytest.raises(ValueError, match="4 images, 1 scene names"):
        bootstrap.by_scene(metrics.areas(images), ["a"])


def test_one_scene_gives_no_interval():
    interval = bootstrap.bootstrap(bootstrap.by_scene(metrics.areas(some_images(5)), ["a"] * 5), "miou", 100).interval()
    assert np.isnan([interval.low, interval.high, interval.standard_error]).all()
    assert interval.estimate == pytest.approx(metrics.mean_iou(some_images(5).sum(0)))
    assert (interval.draws, interval.clusters) == (0, 1)


def test_draws_in_which_the_metric_is_undefined_are_left_out():
    background, both = np.array([[9, 0], [0, 0], [0, 0]]), np.array([[5, 1], [1, 3], [0, 0]])
    scenes = scenes_of(np.stack([background, background, both]), "scene")
    draws = bootstrap.bootstrap(scenes, "foreground_iou", 3000)
    assert np.isnan(draws.values).mean() == pytest.approx((2 / 3) ** 3, abs=0.03)
    interval = draws.interval()
    assert (interval.low, interval.high) == (3 / 5, 3 / 5)
    assert interval.draws == np.count_nonzero(~np.isnan(draws.values))


def test_scenes_cover_the_truth_and_their_tiles_do_not():
    """12 tiles of each of 25 scenes are alike, and an interval that forgets it is far too narrow."""
    rng = np.random.default_rng(0)
    truth, trials = 0.6, 150
    covered = {"scene": 0, "image": 0}
    names = np.repeat(np.arange(25), 12).astype(str).tolist()
    for _ in range(trials):
        quality = np.repeat(rng.beta(6, 4, size=25), 12)  # mean 0.6
        images = two_classes(rng.binomial(AREA, quality))
        for scenes in (
            bootstrap.by_scene(metrics.areas(images), names),
            bootstrap.by_scene(metrics.areas(images), [None] * 300),
        ):
            interval = bootstrap.bootstrap(scenes, "aacc", 200).interval()
            covered[scenes.unit] += interval.low <= truth <= interval.high
    assert 0.86 < covered["scene"] / trials < 0.97  # 91 %, a little less than 95 %: 25 scenes are few
    assert 0.2 < covered["image"] / trials < 0.42  # 31 %


def test_two_rows_on_the_same_images_are_paired():
    hits = np.random.default_rng(0).integers(300, 900, size=40)
    first, second = (
        bootstrap.bootstrap(scenes_of(two_classes(correct), "image"), "aacc") for correct in (hits + 50, hits)
    )
    gain = bootstrap.difference(first, second).interval()
    assert gain.estimate == pytest.approx(0.05)
    # the second is 5 points worse on every image: no resampling changes that, however uncertain each row is
    assert (gain.low, gain.high) == pytest.approx((0.05, 0.05))
    assert first.interval().standard_error > 0.01


@pytest.mark.parametrize("change", ["images", "order", "seed", "draws"])
def test_rows_that_were_not_drawn_together_are_not_subtracted(change):
    images = some_images(10)
    images[3:, 2] = 5  # label counts differ between images
    other = {"images": images[:9], "order": images[::-1]}.get(change, images)
    first = bootstrap.bootstrap(scenes_of(images, "image"), "aacc", 100)
    second = bootstrap.bootstrap(
        scenes_of(other, "image"), "aacc", 90 if change == "draws" else 100, seed=int(change == "seed")
    )
    with pytest.raises(ValueError, match="not paired"):
        bootstrap.difference(first, second)


def test_the_average_over_datasets_has_the_error_of_independent_datasets():
    parts = [bootstrap.bootstrap(scenes_of(some_images(size, seed=size), "scene"), "aacc") for size in (30, 31, 45)]
    together = bootstrap.average(parts).interval()
    errors = [part.interval().standard_error for part in parts]
    assert together.standard_error == pytest.approx(np.sqrt(np.sum(np.square(errors))) / 3, rel=0.05)
    assert together.estimate == pytest.approx(np.mean([part.estimate for part in parts]))
    assert (together.unit, together.clusters) == ("scene", 106)


def test_datasets_of_equal_size_are_resampled_independently():
    images = some_images(30)
    other = images.copy()
    other[:, 2] = 1  # same predictions, other labels: another dataset
    first, second = (bootstrap.bootstrap(scenes_of(counts, "scene"), "aacc", 5000) for counts in (images, other))
    assert abs(np.corrcoef(first.values, second.values)[0, 1]) < 0.06


def test_an_average_is_as_optimistic_as_its_worst_part_and_needs_parts():
    images = some_images(10)
    parts = [bootstrap.bootstrap(scenes_of(images, unit), "aacc", 50) for unit in ("scene", "image")]
    assert bootstrap.average(parts).unit == "image"
    with pytest.raises(ValueError, match="average of nothing"):
        bootstrap.average([])


def test_averages_of_two_rows_can_be_subtracted():
    hits = {size: np.random.default_rng(size).integers(300, 900, size=size) for size in (20, 30)}
    rows = [
        bootstrap.average(
            [bootstrap.bootstrap(scenes_of(two_classes(h + gain), "image"), "aacc", 300) for h in hits.values()]
        )
        for gain in (20, 0)
    ]
    gain = bootstrap.difference(*rows).interval()
    assert (gain.low, gain.high) == pytest.approx((0.02, 0.02))


def drawn(estimate: float, values: list[float]) -> Draws:
    return Draws(estimate, np.array(values), "scene", 4, (0, 1))


def test_ranks_by_hand():
    rows = {
        "first": drawn(0.9, [0.9, 0.8, 0.9, np.nan]),
        "second": drawn(0.5, [0.5, 0.5, 0.1, 0.5]),
        "third": drawn(0.5, [0.4, 0.4, 0.4, 0.9]),
    }
    ranks = bootstrap.rank_intervals(rows)
    assert [(r.rank, r.low, r.high) for r in ranks.values()] == [(1, 1, 1), (2, 2, 3), (2, 2, 3)]
    assert list(ranks) == list(rows)


def test_ranks_need_paired_rows_that_are_defined():
    row = drawn(0.5, [0.5, 0.5])
    with pytest.raises(ValueError, match="not paired"):
        bootstrap.rank_intervals({"a": row, "b": drawn(0.5, [0.5])})
    with pytest.raises(ValueError, match="undefined in every draw"):
        bootstrap.rank_intervals({"a": row, "b": drawn(np.nan, [np.nan, np.nan])})
