"""The renderer: deterministic, exact labels, and a scene for every class of every dataset."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bench.config import load_config
from bench.data.cards import load_card
from bench.demo import datasets
from bench.demo.content import CARDS, MASTER, MASTER_INDEX, PLANS, Shot, class_table
from bench.demo.datasets import dataset_scenes
from bench.demo.render.canvas import SceneCanvas, ellipse, rectangle
from bench.demo.render.scenes import DEMO_SEEDS, HELD_OUT_SEEDS, KINDS, TRAIN_SEEDS, scene
from bench.demo.render.textures import TEXTURES, smooth_noise
from bench.errors import BenchError


def _canvas(metre: float = 1.0) -> SceneCanvas:
    return SceneCanvas(np.random.default_rng(3), (40, 60), metre)


@pytest.mark.parametrize("kind", KINDS)
def test_a_scene_is_determined_by_its_seed(kind: str) -> None:
    image, label = scene(5, (48, 64), kind)
    assert image.shape == (48, 64, 3) and image.dtype == np.uint8
    assert label.shape == (48, 64) and label.dtype == np.uint8 and label.max() < len(MASTER)
    again, label_again = scene(5, (48, 64), kind)
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(label, label_again)
    assert (scene(6, (48, 64), kind)[0] != image).mean() > 0.5


def test_false_colour_changes_the_image_only() -> None:
    image, label = scene(1, 96, "rural")
    infrared, same = scene(1, 96, "rural", false_colour=True)
    np.testing.assert_array_equal(label, same)
    tree = label == MASTER_INDEX["tree"]
    assert tree.any()
    first, second = (picture[tree].astype(float).mean(0) for picture in (image, infrared))
    assert first[0] < first[1]  # green is the brightest of the plant's colours
    assert second[0] > second[1] + 30  # near infrared is


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(BenchError, match=r"'towns'.*did you mean town"):
        scene(0, 32, "towns")


def test_seeds_of_training_probe_and_demo_are_disjoint() -> None:
    ranges = sorted((TRAIN_SEEDS, HELD_OUT_SEEDS, DEMO_SEEDS), key=lambda seeds: seeds.start)
    assert all(left.stop <= right.start for left, right in itertools.pairwise(ranges))


def test_the_demo_draws_its_seeds_from_its_own_range(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def watched(seed: int, *arguments: object) -> tuple[np.ndarray, np.ndarray]:
        drawn.append(seed)
        return np.zeros((8, 8, 3), np.uint8), np.arange(64, dtype=np.uint8).reshape(8, 8) % len(MASTER)

    monkeypatch.setattr(datasets, "scene", watched)
    for name in CARDS:
        assert len(list(dataset_scenes(name, len(PLANS[name].shots), 0))) == len(PLANS[name].shots)
    assert drawn and all(seed in DEMO_SEEDS for seed in drawn)
    assert len(set(drawn)) == len(drawn)


def test_a_polygon_labels_the_pixels_that_it_paints() -> None:
    canvas = _canvas()
    canvas.polygon(ellipse(np.array([20.0, 18.0]), 30.0, 14.0, 0.7), (200, 120, 60), "water")
    painted = canvas.image.any(-1)
    assert painted.sum() == pytest.approx(np.pi * 15 * 7, rel=0.15)
    np.testing.assert_array_equal(painted, canvas.label == MASTER_INDEX["water"])
    label = canvas.label.copy()
    canvas.polygon(rectangle(np.array([30.0, 20.0]), 20.0, 8.0, 0.0), (9, 9, 9))
    canvas.cast_shadow(rectangle(np.array([30.0, 20.0]), 20.0, 8.0, 0.0), 5.0)
    np.testing.assert_array_equal(canvas.label, label)


def test_a_polygon_off_the_canvas_changes_nothing() -> None:
    canvas = _canvas()
    canvas.polygon(rectangle(np.array([-30.0, 20.0]), 20.0, 8.0, 0.0), (9, 9, 9), "road")
    assert not canvas.image.any() and not canvas.label.any()


def test_ground_is_claimed_once_and_only_where_it_fits() -> None:
    canvas = _canvas()
    ground = np.zeros(256, bool)
    ground[0] = True
    canvas.label[:, 40:] = MASTER_INDEX["water"]
    place = rectangle(np.array([15.0, 15.0]), 10.0, 10.0, 0.3)
    assert canvas.claim(place, ground)
    assert not canvas.claim(place, ground)
    assert not canvas.claim(rectangle(np.array([38.0, 15.0]), 10.0, 10.0, 0.0), ground)  # partly on water
    assert not canvas.claim(rectangle(np.array([-9.0, 15.0]), 10.0, 10.0, 0.0), ground)


@pytest.mark.parametrize("name", TEXTURES)
def test_textures_are_deterministic_fields(name: str) -> None:
    field = TEXTURES[name](np.random.default_rng(1), (33, 47), 2.0)
    assert field.shape == (33, 47, 3) and field.dtype == np.float32
    assert field.std((0, 1)).min() > 0.5
    np.testing.assert_array_equal(field, TEXTURES[name](np.random.default_rng(1), (33, 47), 2.0))


@pytest.mark.parametrize("cell", [0.5, 1.0, 3.3, 20.0, 200.0])
def test_noise_fills_its_shape(cell: float) -> None:
    noise = smooth_noise(np.random.default_rng(0), (37, 61), cell)
    assert noise.shape == (37, 61) and np.isfinite(noise).all() and np.abs(noise).max() < 2


@pytest.mark.parametrize("name", load_config().default_datasets)
def test_every_class_of_every_dataset_is_asked_for(name: str) -> None:
    """`dataset_scenes` holds to what the plan asks for (next test), so no class is missing from the demo."""
    card = load_card(name)
    table = class_table(card)
    assert set(table.tolist()) == set(range(len(card.classes)))
    rest = card.classes[card.background]
    assert {shown for shot in PLANS[name].shots for shown in shot.shows} | {rest} == set(card.classes)


def test_what_a_dataset_of_natural_images_has_no_class_for_is_not_labelled() -> None:
    card = load_card("cityscapes")
    table = class_table(card)
    assert table[MASTER_INDEX["water"]] == table[MASTER_INDEX["clutter"]] == 255
    assert table[MASTER_INDEX["human"]] == card.classes.index("person")


def test_a_scene_shows_what_its_plan_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    wild = Shot(kind="wild", size=(64, 80), shows=("road", "water"))
    shots = (wild, Shot(kind="rural", size=(48, 48), shows=("agricultural",)))
    monkeypatch.setitem(PLANS, "loveda", PLANS["loveda"].model_copy(update={"shots": shots, "enlarged": 2.0}))
    card = load_card("loveda")
    (first, first_label), (second, second_label), (third, _) = dataset_scenes("loveda", 3, seed=4)
    assert first.shape == (128, 160, 3) and second.shape == (96, 96, 3) and third.shape == first.shape
    shown = set(np.unique(first_label).tolist())
    assert {card.classes.index("road"), card.classes.index("water")} <= shown <= set(range(len(card.classes)))
    assert card.classes.index("agricultural") in second_label
    np.testing.assert_array_equal(first_label[::2, ::2].repeat(2, 0).repeat(2, 1), first_label)
    assert (third != first).any()


def test_binary_sets_show_one_thing() -> None:
    table = class_table(load_card("wbs_si"))
    assert set(np.flatnonzero(table)) == {MASTER_INDEX["water"], MASTER_INDEX["swimming pool"]}


def test_a_card_without_a_demo_is_named() -> None:
    other = load_card("cityscapes").model_copy(update={"name": "cityscope"})
    with pytest.raises(BenchError, match="no dataset 'cityscope'; did you mean cityscapes"):
        class_table(other)
