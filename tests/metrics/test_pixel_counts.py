"""bench.metrics against mmsegmentation (golden file), torchmetrics, brute force and cases done by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.classification import MulticlassF1Score, MulticlassJaccardIndex

from bench import metrics
from bench.errors import BenchError
from bench.metrics import pixel_counts
from bench.settings import IGNORED
from bench.verify.goldens import stored

GOLDEN = {
    name.removeprefix("metric/"): value for name, value in stored("released").items() if name.startswith("metric/")
}


def random_maps(seed: int, shape: tuple[int, ...], classes: int):
    """label (with 255 and out-of-range values), prediction related to it, probability."""
    rng = np.random.default_rng(seed)
    predicted = rng.integers(classes, size=shape, dtype=np.uint8)
    label = np.where(rng.random(shape) < 0.6, predicted, rng.integers(classes + 2, size=shape)).astype(np.uint8)
    label[rng.random(shape) < 0.1] = 255
    # in steps of a thousandth: many probabilities lie exactly on the edge of a bin
    probability = (rng.integers(0, 1001, size=shape) / 1000).astype(np.float32)
    return label, predicted, probability


def by_hand():
    label = np.array([[0, 0, 1], [1, 255, 7]], np.uint8)
    predicted = np.array([[0, 1, 1], [0, 1, 1]], np.uint8)
    return metrics.confusion(label, predicted, 2)


def test_ignored_and_out_of_range_labels_by_hand():
    confusion = by_hand()
    assert confusion.dtype == np.int64
    assert confusion.tolist() == [[1, 1], [1, 1], [0, 1]]  # the last row: label 7
    assert metrics.iou(confusion).tolist() == [
        1 / 3,
        1 / 4,
    ]  # the pixel labelled 7 is in the union of class 1
    assert metrics.class_accuracy(confusion).tolist() == [1 / 2, 1 / 2]
    assert metrics.precision(confusion).tolist() == [1 / 2, 1 / 3]
    assert metrics.f1(confusion).tolist() == [1 / 2, 2 / 5]
    assert metrics.overall_accuracy(confusion) == 2 / 4  # over labels in range
    assert metrics.mean_iou(confusion) == pytest.approx(7 / 24)
    assert metrics.foreground_iou(confusion) == 1 / 4


def test_a_class_only_predicted_counts_and_a_class_nowhere_does_not():
    label = np.zeros((1, 4), np.uint8)
    predicted = np.array([[0, 0, 0, 1]], np.uint8)
    confusion = metrics.confusion(label, predicted, 3)
    np.testing.assert_equal(metrics.iou(confusion), [0.75, 0.0, np.nan])
    assert metrics.mean_iou(confusion) == 0.375
    np.testing.assert_equal(metrics.class_accuracy(confusion), [0.75, np.nan, np.nan])
    assert metrics.mean_accuracy(confusion) == 0.75
    np.testing.assert_equal(metrics.precision(confusion), [1.0, 0.0, np.nan])
    assert metrics.mean_f1(confusion) == pytest.approx((6 / 7 + 0) / 2)


def test_nothing_counted_is_nan_everywhere_without_warnings(recwarn):
    numbers = metrics.summary(np.zeros((3, 2), np.int64), "miou")
    assert np.isnan([numbers["score"], numbers["aacc"], *numbers["iou"], *numbers["f1"]]).all()
    assert not recwarn.list


@pytest.mark.parametrize("case", ["full", "absent_label", "absent_both", "binary", "out_of_range_label"])
def test_mmsegmentation(case):
    golden = GOLDEN
    images = range(int(golden[f"{case}/n_images"]))
    labels, predictions = ([golden[f"{case}/{kind}{image}"] for image in images] for kind in ("label", "pred"))
    classes = int(golden[f"{case}/num_classes"])
    # "binary" also predicts a class 2, which mmsegmentation drops: count it, then cut it off
    counted = max(classes, 1 + max(int(predicted.max()) for predicted in predictions))
    pairs = zip(labels, predictions, strict=True)
    confusions = np.stack([metrics.confusion(label, predicted, counted) for label, predicted in pairs])
    shared, labelled, predicted = (
        of(confusions)[..., :classes] for of in (metrics.intersection, metrics.label_area, metrics.predicted_area)
    )
    areas = np.stack([shared, labelled + predicted - shared, predicted, labelled], axis=1)
    np.testing.assert_array_equal(areas, golden[f"{case}/areas"])
    iou, accuracy = (of(confusions.sum(0))[:classes] for of in (metrics.iou, metrics.class_accuracy))
    np.testing.assert_allclose(iou, golden[f"{case}/IoU"], rtol=1e-6)  # nan where nan
    np.testing.assert_allclose(accuracy, golden[f"{case}/Acc"], rtol=1e-6)
    if counted == classes:
        numbers = metrics.summary(confusions, "miou")
        for ours, theirs in {"miou": "mIoU", "macc": "mAcc", "aacc": "aAcc"}.items():
            assert round(100 * numbers[ours], 2) == pytest.approx(golden[f"{case}/summary_{theirs}"], abs=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_torchmetrics(seed):
    label, predicted, _ = random_maps(seed, (40, 50), 6)
    label[label > 5] = 255  # torchmetrics refuses labels out of range
    label[(label == 4) | (predicted == 4)] = 255  # class 4: nowhere
    label[label == 2] = 3  # class 2: predicted only
    confusion = metrics.confusion(label, predicted, 6)
    target, prediction = (
        torch.from_numpy(label.astype(np.int64)),
        torch.from_numpy(predicted.astype(np.int64)),
    )
    jaccard = MulticlassJaccardIndex(6, average="macro", ignore_index=255)
    assert metrics.mean_iou(confusion) == pytest.approx(float(jaccard(prediction, target)), rel=1e-6)
    f1 = MulticlassF1Score(6, average="none", ignore_index=255)(prediction, target).numpy()
    np.testing.assert_allclose(np.nan_to_num(metrics.f1(confusion)), f1, rtol=1e-6)


def test_other_rules_on_the_same_predictions():
    """The numbers of docs/metrics.md: class 4 is nowhere, class 2 is only predicted."""
    rng = np.random.default_rng(0)
    predicted = rng.integers(6, size=(20, 64, 64), dtype=np.uint8)
    label = np.where(rng.random(predicted.shape) < 0.5, predicted, rng.integers(6, size=predicted.shape))
    label[rng.random(label.shape) < 0.1] = 255
    nowhere = (label == 4) | (predicted == 4)
    label[nowhere], predicted[nowhere] = 255, 0
    label[label == 2] = 3
    label = label.astype(np.uint8)
    images = np.stack([metrics.confusion(*pair, 6) for pair in zip(label, predicted, strict=True)])
    total = images.sum(0)
    iou, in_labels = metrics.iou(total), metrics.label_area(total) > 0
    target, prediction = (torch.from_numpy(array.astype(np.int64)) for array in (label, predicted))
    each = MulticlassJaccardIndex(6, average="none", ignore_index=255)(prediction, target)
    points = {
        "ours": metrics.mean_iou(total),
        "mean of torchmetrics' average='none'": each.mean(),
        "labelled classes only": iou[in_labels].mean(),
        "per image": metrics.mean_iou_per_image(images),
    }
    assert [round(100 * float(value), 1) for value in points.values()] == [34.5, 28.8, 43.2, 43.2]


def test_keys_follow_the_stored_layout():
    label, predicted = np.array([[1, 9, 255]], np.uint8), np.array([[2, 0, 1]], np.uint8)
    keys, counts = metrics.count(label, predicted, np.array([[37, 99, 5]], np.uint8), 3)
    assert keys.tolist() == [(1 * 3 + 2) * 100 + 37, (3 * 3 + 0) * 100 + 99]
    assert counts.tolist() == [1, 1]
    assert (keys.dtype, counts.dtype) == (np.int32, np.int64)


def test_an_image_of_many_strips_is_counted_whole():
    label, predicted, probability = random_maps(0, (700, 431), 5)
    bins = metrics.probability_bin(probability)
    keys, counts = metrics.count(label, predicted, bins, 5)
    inside = label != 255
    every = (np.minimum(label, 5).astype(int) * 5 + predicted) * 100 + bins
    expected_keys, expected_counts = np.unique(every[inside], return_counts=True)
    np.testing.assert_array_equal(keys, expected_keys)
    np.testing.assert_array_equal(counts, expected_counts)


def test_bins_begin_exactly_at_the_float32_hundredths():
    edges = np.array([k / 100 for k in range(1, 100)], np.float32)
    assert metrics.probability_bin(edges).tolist() == list(range(1, 100))
    assert metrics.probability_bin(np.nextafter(edges, np.float32(0))).tolist() == list(range(99))
    assert metrics.probability_bin(np.array([0, 1], np.float32)).tolist() == [0, 99]


@given(seed=st.integers(0, 2**32 - 1), hundredths=st.integers(0, 99), background=st.integers(0, 3))
def test_a_threshold_on_the_counts_is_a_threshold_on_the_pixels(seed, hundredths, background):
    label, predicted, probability = random_maps(seed, (9, 14), 4)
    threshold = hundredths / 100
    thresholded = np.where(probability < np.float32(threshold), background, predicted).astype(np.uint8)
    keys, counts = metrics.count(label, predicted, metrics.probability_bin(probability), 4)
    np.testing.assert_array_equal(
        metrics.confusion_at(keys, counts, 4, threshold, background),
        metrics.confusion(label, thresholded, 4),
    )


def some_images(images: int, classes: int):
    """Counts of images, apart and concatenated, and where each begins; image 1 is ignored throughout."""
    parts = []
    for image in range(images):
        label, predicted, probability = random_maps(image, (8 + image, 9), classes)
        if image == 1:
            label[:] = 255
        parts.append(metrics.count(label, predicted, metrics.probability_bin(probability), classes))
    keys, counts = (np.concatenate(column) for column in zip(*parts, strict=True))
    return parts, keys, counts, np.cumsum([0, *(len(part[0]) for part in parts)])


def test_many_images_at_once():
    parts, keys, counts, offsets = some_images(4, 3)
    together = metrics.confusions_at(metrics.SparseCounts(keys, counts, offsets, 3), 0.4, 2)
    apart = [metrics.confusion_at(part[0], part[1], 3, 0.4, 2) for part in parts]
    np.testing.assert_array_equal(together, apart)
    assert together.dtype == np.int64
    assert not together[1].any()
    assert metrics.confusions_at(metrics.SparseCounts(keys[:0], counts[:0], np.array([0]), 3), 0.0, 0).shape == (
        0,
        4,
        3,
    )


@pytest.mark.parametrize("threshold", [0.0, 0.4])
def test_areas_without_the_confusion_arrays(threshold):
    _, keys, counts, offsets = some_images(4, 3)  # some labels are out of range
    arrays = metrics.confusions_at(metrics.SparseCounts(keys, counts, offsets, 3), threshold, 2)
    found = metrics.areas_at(metrics.SparseCounts(keys, counts, offsets, 3), threshold, 2)
    np.testing.assert_array_equal(found.stack, metrics.areas(arrays).stack)
    assert found.stack.dtype == np.int64
    np.testing.assert_array_equal(found.total.stack, metrics.areas(arrays.sum(0)).stack)
    assert metrics.areas(found) is found
    assert metrics.areas_at(metrics.SparseCounts(keys[:0], counts[:0], np.array([0]), 3), 0.0, 0).stack.shape == (
        0,
        3,
        3,
    )
    with pytest.raises(ValueError, match="background 3 is none of the 3 classes"):
        metrics.areas_at(metrics.SparseCounts(keys, counts, offsets, 3), threshold, 3)


@pytest.mark.parametrize("metric", metrics.METRICS)
def test_every_metric_is_the_same_of_arrays_and_areas(metric):
    _, keys, counts, offsets = some_images(4, 3)
    arrays = metrics.confusions_at(metrics.SparseCounts(keys, counts, offsets, 3), 0.4, 2)
    np.testing.assert_array_equal(metrics.score(metrics.areas(arrays), metric), metrics.score(arrays, metric))
    np.testing.assert_equal(metrics.summary(metrics.areas(arrays), metric), metrics.summary(arrays, metric))


def test_sweep_holds_every_threshold():
    _, keys, counts, offsets = some_images(4, 3)
    histogram = metrics.probability_histogram(keys, counts, 3)
    swept = metrics.sweep(histogram, background=1)
    each = [
        metrics.confusions_at(metrics.SparseCounts(keys, counts, offsets, 3), k / 100, 1).sum(0) for k in range(100)
    ]
    np.testing.assert_array_equal(swept, each)


@pytest.mark.parametrize("threshold", [0.805, 1.0, -0.01])
def test_a_threshold_between_the_bins_is_refused(threshold):
    keys, counts = np.array([0], np.int32), np.array([1])
    with pytest.raises(BenchError, match=rf"threshold {threshold}: .*steps of 0.01"):
        metrics.confusion_at(keys, counts, 2, threshold, 0)


@pytest.mark.parametrize("background", [-1, 2])
def test_a_background_that_is_no_class_is_refused(background):
    with pytest.raises(ValueError, match=rf"background {background} is none of the 2 classes"):
        metrics.confusion_at(np.array([0], np.int32), np.array([1]), 2, 0.5, background)


def test_maps_that_do_not_fit_are_refused():
    zeros = np.zeros((2, 2), np.uint8)
    with pytest.raises(ValueError, match="shapes differ"):
        metrics.count(zeros, zeros[:1], zeros, 2)
    with pytest.raises(ValueError, match="not uint8"):
        metrics.count(zeros.astype(int), zeros, zeros, 2)
    with pytest.raises(ValueError, match=r"predicted 2 .*not below 2"):
        metrics.count(zeros, zeros + 2, zeros, 2)
    with pytest.raises(ValueError, match="bin 100: not below 2, 100"):
        metrics.count(zeros, zeros, zeros + 100, 2)


def test_mean_iou_per_image_takes_the_classes_of_the_label():
    images = np.array(
        [
            [[2, 2], [0, 0], [0, 0]],  # IoU of class 0: 2 / 4; class 1 is only predicted: left out
            [[1, 0], [1, 2], [0, 0]],  # 1 / 2 and 2 / 3
            [[0, 0], [0, 0], [3, 4]],  # no label in range: the image is left out
        ]
    )
    assert metrics.mean_iou_per_image(images) == pytest.approx((1 / 2 + (1 / 2 + 2 / 3) / 2) / 2)


def test_summary_names_every_number():
    images = np.stack([by_hand(), by_hand()])
    numbers = metrics.summary(images, "foreground_iou")
    assert numbers["score"] == numbers["foreground_iou"] == 1 / 4
    assert numbers["aacc"] == 1 / 2
    assert numbers["miou_per_image"] == pytest.approx(7 / 24)
    assert numbers["iou"] == [1 / 3, 1 / 4]
    assert list(numbers) == [
        *("score", "miou", "miou_labelled", "foreground_iou", "macc", "aacc", "mf1", "miou_per_image"),
        *("iou", "acc", "precision", "f1"),
    ]
    assert all(isinstance(value, float | list) for value in numbers.values())


def test_summary_leaves_out_what_does_not_exist():
    assert "miou_per_image" not in metrics.summary(by_hand(), "miou")
    assert "foreground_iou" not in metrics.summary(np.ones((4, 3), np.int64), "miou")


def test_an_unknown_metric_is_answered_with_the_closest():
    with pytest.raises(BenchError, match="unknown metric 'mIoU'; did you mean miou"):
        metrics.score(by_hand(), "mIoU")


@given(seed=st.integers(0, 2**32 - 1))
def test_identities_of_the_metrics(seed):
    confusion = np.random.default_rng(seed).integers(0, 4, size=(2, 5, 4))
    iou = metrics.iou(confusion)
    np.testing.assert_allclose(metrics.f1(confusion), 2 * iou / (1 + iou))
    with np.errstate(invalid="ignore"):
        recall, precision = metrics.class_accuracy(confusion), metrics.precision(confusion)
        harmonic = 2 * recall * precision / (recall + precision)
    defined = ~np.isnan(harmonic)
    np.testing.assert_allclose(metrics.f1(confusion)[defined], harmonic[defined])
    doubled = metrics.iou(2.0 * confusion)  # ratios do not know the scale, and weighted counts are floats
    np.testing.assert_array_equal(doubled, iou)


def test_predictions_that_never_look_at_the_image() -> None:
    labels = np.array([10, 30, 60])
    assert metrics.constant_score(labels, "miou") == pytest.approx((0 + 0 + 60 / 100) / 3)
    # Of class k a third of its pixels is hit; the union is its area plus a third of the others'.
    expected = np.mean([(a / 3) / (a + (100 - a) / 3) for a in (10, 30, 60)])
    assert metrics.chance_score(labels, "miou") == pytest.approx(expected)
    assert metrics.constant_score(np.array([75, 25]), "foreground_iou") == pytest.approx(0.25)
    assert metrics.chance_score(np.array([75, 25]), "foreground_iou") == pytest.approx(12.5 / 62.5)


def test_strips_change_no_count(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    maps = [random.integers(0, top, (37, 29)).astype(np.uint8) for top in (256, 5, 100)]
    label, winners, bins = maps
    keys, counts = metrics.count(label, winners, bins, classes=5)
    monkeypatch.setattr(pixel_counts, "_STRIP", 100)
    by_strips = metrics.count(label, winners, bins, classes=5)
    assert np.array_equal(by_strips[0], keys)
    assert np.array_equal(by_strips[1], counts)
    assert counts.sum() == (maps[0] != 255).sum()


def test_pixels_below_the_threshold_may_be_given_no_class() -> None:
    """By hand: they are misses of their class, and in no predicted area."""
    label = np.array([[0, 0, 1, 1, 2, 255]], np.uint8)  # 2 is out of range
    predicted, bins = np.array([[0, 0, 1, 0, 1, 1]], np.uint8), np.array([[90, 10, 90, 10, 10, 10]], np.uint8)
    keys, counts = metrics.count(label, predicted, bins, 2)
    sparse = metrics.SparseCounts(keys, counts, np.array([0, len(keys)]), 2)
    (confusion,) = metrics.confusions_at(sparse, 0.5, IGNORED)
    assert confusion.tolist() == [[1, 0, 1], [0, 1, 1], [0, 0, 1]]
    (areas,) = metrics.areas_at(sparse, 0.5, IGNORED).stack
    assert areas.tolist() == [[1, 1], [2, 2], [1, 1]]  # shared, labelled, predicted
    assert metrics.areas(confusion).stack.tolist() == areas.tolist()
    assert metrics.iou(confusion).tolist() == [0.5, 0.5] and metrics.overall_accuracy(confusion) == 0.5
    swept = metrics.sweep(metrics.probability_histogram(keys, counts, 2), IGNORED)
    assert swept[50].tolist() == confusion.tolist() and swept[0, :, 2].tolist() == [0, 0, 0]


def test_mf1_is_mmsegmentations_mdice() -> None:
    """Its mFscore leaves out a class that is never right, as precision + recall is 0/0 there."""
    confusion = np.array([[6, 2, 0], [2, 6, 0], [1, 3, 0], [0, 0, 0]])  # the third class is labelled and never found
    right, labelled, predicted = np.diagonal(confusion), confusion[:3].sum(1), confusion.sum(0)
    with np.errstate(invalid="ignore"):
        precision, recall = right / predicted, right / labelled
        fscore = 2 * precision * recall / (precision + recall)
    assert metrics.mean_f1(confusion) == pytest.approx(np.mean(2 * right / (labelled + predicted)))
    assert np.nanmean(fscore) == pytest.approx(1.5 * metrics.mean_f1(confusion))  # over two classes, not three
