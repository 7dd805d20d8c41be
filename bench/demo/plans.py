"""Plans of the scenes that stand in for each dataset."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from bench.data.cards import load_card
from bench.demo.render.scenes import DEMO_SEEDS, Image, Label, scene
from bench.demo.render.taxonomy import CARDS, class_table


@dataclass(frozen=True)
class Shot:
    """One image of a dataset.

    kind: of scene
    size: (height, width) in rendered pixels
    shows: classes of the dataset it must show
    """

    kind: str
    size: tuple[int, int]
    shows: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """The images of a dataset.

    enlarged: pixels of the dataset for one rendered pixel, so that tiles have their real size.
    """

    shots: tuple[Shot, ...]
    enlarged: float = 1.0
    false_colour: bool = False


def _shots(kinds: tuple[str, ...], *sizes: tuple[int, int], shows: tuple[str, ...] = ()) -> tuple[Shot, ...]:
    return tuple(Shot(kind, sizes[index % len(sizes)], shows) for index, kind in enumerate(kinds))


_BUILDING: Final = ("building",)
_ROAD: Final = ("road",)
_ISPRS: Final = ("impervious_surface", "building", "low_vegetation", "tree", "car")
_SQUARE: Final = (512, 512)
# Sizes of the tiled sets give two tiles an axis here and there, the last one shifted back; iSAID's also each
# case of padding.
_PLANS: Final[dict[str, Plan]] = {
    "openearthmap": Plan(
        (
            Shot("rural", _SQUARE, ("bareland", "grass", "road", "tree", "cropland", "building")),
            Shot("town", _SQUARE, ("grass", "pavement", "road", "building")),
            Shot("city", _SQUARE, ("background", "pavement", "road", "building")),
            Shot("wild", _SQUARE, ("water", "tree", "grass")),
        )
    ),
    "loveda": Plan(
        (
            Shot("town", _SQUARE, ("building", "road", "forest")),
            Shot("rural", _SQUARE, ("agricultural", "barren", "forest", "road")),
            Shot("wild", _SQUARE, ("water", "forest", "barren")),
            Shot("city", _SQUARE, ("background", "building", "road")),
        )
    ),
    "isaid": Plan(
        (
            Shot(
                "sport",
                (352, 512),
                ("baseball_diamond", "tennis_court", "ground_track_field", "soccer_ball_field"),
            ),
            Shot("sport", (320, 320), ("basketball_court", "swimming_pool")),
            Shot("coast", (352, 512), ("ship", "bridge", "harbor", "large_vehicle")),
            Shot("airport", (352, 352), ("plane", "helicopter", "small_vehicle")),
            Shot("town", (480, 400), ("roundabout", "small_vehicle")),
            Shot("industry", (320, 320), ("store_tank", "large_vehicle")),
        ),
        enlarged=2.0,
    ),
    "potsdam": Plan(_shots(("close", "close"), (512, 900), (700, 512), shows=(*_ISPRS, "clutter"))),
    "vaihingen": Plan(
        _shots(("close", "close"), (512, 900), (700, 512), shows=(*_ISPRS, "clutter")), false_colour=True
    ),
    "uavid": Plan(
        _shots(
            ("uav", "uav"),
            (432, 800),
            (432, 512),
            shows=("building", "road", "car", "tree", "vegetation", "human"),
        ),
        enlarged=2.5,
    ),
    "udd5": Plan(_shots(("uav",) * 4, (384, 512), shows=("vegetation", "building", "road", "vehicle", "other"))),
    "vdd": Plan(
        (
            *_shots(("uav",) * 3, (384, 512), shows=("wall", "road", "vegetation", "vehicle", "roof")),
            Shot("uav", (384, 512), ("other", "water", "roof")),
        )
    ),
    "whu_aerial": Plan(_shots(("town", "city"), _SQUARE, shows=_BUILDING)),
    "whu_sat_ii": Plan(_shots(("city", "rural"), _SQUARE, shows=_BUILDING)),
    "inria": Plan(_shots(("town", "city"), (500, 650), (500, 500), shows=_BUILDING), enlarged=2.0),
    "xbd_pre": Plan(_shots(("town", "coast"), _SQUARE, shows=_BUILDING)),
    "chn6_cug": Plan(_shots(("city", "town"), _SQUARE, shows=_ROAD)),
    "deepglobe_road": Plan(_shots(("rural", "town"), _SQUARE, shows=_ROAD)),
    "massachusetts_road": Plan(_shots(("town", "rural"), _SQUARE, shows=_ROAD)),
    "spacenet_road": Plan(_shots(("city", "town"), _SQUARE, shows=_ROAD)),
    "wbs_si": Plan(_shots(("wild", "coast", "rural"), (300, 400), (384, 384), (448, 336), shows=("water",))),
    # The natural images of Table 6: their file formats, classes and words, but scenes from the air
    "pascal_context59": Plan(_shots(("uav", "uav"), (375, 500), (500, 375), shows=("building", "road", "person"))),
    "coco_stuff164k": Plan(_shots(("uav", "uav"), (427, 640), (480, 640), shows=("roof", "road", "person"))),
    "cityscapes": Plan(_shots(("uav",), (512, 1024), shows=("road", "building", "person")), enlarged=2.0),
}


def default_count(card_name: str) -> int:
    """Return the number of images that the demo has of a dataset, before tiling."""
    return len(_PLANS[card_name].shots)


def dataset_scenes(card_name: str, count: int, seed: int) -> Iterator[tuple[Image, Label]]:
    """Images (H, W, 3) and label maps (H, W) in the class indices of a dataset; endless plans start over.

    Where a scene lacks a class that its place in the plan asks for, the next seed is tried.
    """
    card = load_card(card_name)
    table = class_table(card)
    plan = _PLANS[card_name]
    rng = np.random.default_rng([seed, CARDS.index(card_name)])
    for index in range(count):
        shot = plan.shots[index % len(plan.shots)]
        wanted = {card.classes.index(name) for name in shot.shows}
        while True:
            drawn = int(rng.integers(DEMO_SEEDS.start, DEMO_SEEDS.stop))
            image, master = scene(drawn, shot.size, shot.kind, plan.false_colour)
            label = table[master]
            if wanted <= set(np.unique(label).tolist()):
                break
        yield _enlarge(image, label, plan.enlarged)


def _enlarge(image: Image, label: Label, factor: float) -> tuple[Image, Label]:
    if factor == 1:
        return image, label
    size = (round(label.shape[1] * factor), round(label.shape[0] * factor))
    larger = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
    return larger.astype(np.uint8), cv2.resize(label, size, interpolation=cv2.INTER_NEAREST_EXACT).astype(np.uint8)
