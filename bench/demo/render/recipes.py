"""The ground and the things that each kind of scene is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench.demo.render import landmarks, structures
from bench.demo.render.canvas import Points, SceneCanvas, blob

Draw = Callable[[SceneCanvas, Points, float], None]
_LAND: Final = ("grass", "bareland", "pavement", "cropland", "clutter")
_OPEN: Final = ("grass", "bareland", "pavement", "cropland")


@dataclass(frozen=True)
class Thing:
    """Something that is placed on free ground: the room it needs (metres) and the ground it may stand on."""

    draw: Draw
    length: float
    width: float
    ground: tuple[str, ...] = _OPEN


def _house(canvas: SceneCanvas, centre: Points, angle: float) -> None:
    structures.building(canvas, centre, angle, *canvas.rng.uniform((11, 8), (17, 12)))


def _hall(canvas: SceneCanvas, centre: Points, angle: float) -> None:
    structures.building(canvas, centre, angle, *canvas.rng.uniform((26, 15), (38, 24)))


def _tower(canvas: SceneCanvas, centre: Points, angle: float) -> None:
    lean = canvas.metre * canvas.rng.uniform(0.55, 0.85)
    length, width = canvas.rng.uniform((13, 9), (20, 14))
    structures.building(canvas, centre, angle, length, width, lean)


def _lot(canvas: SceneCanvas, centre: Points, angle: float) -> None:
    structures.parking(canvas, centre, angle, 30, 20)


def _site(canvas: SceneCanvas, centre: Points, angle: float) -> None:
    canvas.polygon(blob(canvas.rng, centre, 26 * canvas.metre), "clutter", "clutter")


def _crown(canvas: SceneCanvas, centre: Points, angle: float) -> None:
    structures.crown(canvas, centre, canvas.rng.uniform(4, 9))


def _person(canvas: SceneCanvas, centre: Points, angle: float) -> None:
    structures.human(canvas, centre)


_SEA: Final = ("water",)
THINGS: Final[dict[str, Thing]] = {
    "house": Thing(_house, 18, 13),
    "hall": Thing(_hall, 40, 26),
    "tower": Thing(_tower, 22, 16),
    "lot": Thing(_lot, 31, 21),
    "site": Thing(_site, 24, 24),
    "crown": Thing(_crown, 5, 5, _LAND),
    "person": Thing(_person, 1.5, 1.5),
    "car": Thing(structures.car, 5, 2.4),
    "truck": Thing(structures.truck, 15, 4),
    "tennis court": Thing(landmarks.tennis_court, 37, 19),
    "basketball court": Thing(landmarks.basketball_court, 31, 18),
    "soccer field": Thing(landmarks.soccer_field, 68, 44),
    "ground track field": Thing(landmarks.ground_track_field, 88, 52),
    "baseball diamond": Thing(landmarks.baseball_diamond, 40, 44),
    "plane": Thing(landmarks.plane, 36, 36),
    "helicopter": Thing(landmarks.helicopter, 28, 28),
    "ship": Thing(landmarks.ship, 36, 11, _SEA),
    "harbor": Thing(landmarks.harbor, 60, 34, _SEA),
    "store tank": Thing(landmarks.store_tank, 24, 24),
    "swimming pool": Thing(landmarks.swimming_pool, 17, 11),
    "roundabout": Thing(landmarks.roundabout, 42, 42),
}


@dataclass(frozen=True)
class Recipe:
    """A kind of scene.

    metre: range of pixels a metre
    ground: class -> how much of it, relatively
    patch: metres that a patch of ground measures
    things: name -> how many a hectare, in the order in which they are placed
    winding: how many winding roads a scene of 256 x 256 pixels has
    block: metres between the streets of a grid, 0 for no grid
    traffic: how busy the roads are
    """

    metre: tuple[float, float]
    ground: dict[str, float]
    patch: float
    things: dict[str, float]
    winding: float = 0.0
    block: float = 0.0
    traffic: float = 0.0


RECIPES: Final[dict[str, Recipe]] = {
    "rural": Recipe(
        metre=(1.2, 2.4),
        ground={"cropland": 1.5, "grass": 0.6, "bareland": 0.6, "tree": 0.7, "water": 0.3},
        patch=60,
        things={"house": 2, "hall": 0.5, "crown": 8},
        winding=1.6,
        traffic=0.1,
    ),
    "town": Recipe(
        metre=(1.6, 3.0),
        ground={"grass": 1.2, "bareland": 0.5, "pavement": 0.5, "tree": 0.4},
        patch=35,
        things={"roundabout": 0.3, "lot": 0.8, "swimming pool": 1, "house": 40, "crown": 14, "site": 0.5},
        block=62,
        traffic=0.3,
    ),
    "city": Recipe(
        metre=(1.6, 3.0),
        ground={"pavement": 1.4, "grass": 0.5, "bareland": 0.3, "clutter": 0.2},
        patch=40,
        things={"lot": 1, "hall": 16, "house": 10, "crown": 8},
        block=80,
        traffic=0.6,
    ),
    "wild": Recipe(
        metre=(1.0, 2.2),
        ground={"water": 1.2, "tree": 1.0, "grass": 0.9, "bareland": 0.9, "cropland": 0.3},
        patch=70,
        things={"crown": 8, "house": 0.7},
        winding=0.7,
    ),
    "sport": Recipe(
        metre=(1.4, 2.2),
        ground={"grass": 1.2, "pavement": 0.5, "bareland": 0.3, "tree": 0.3},
        patch=60,
        things={
            "ground track field": 1.4,
            "soccer field": 1.4,
            "baseball diamond": 2,
            "tennis court": 3,
            "basketball court": 3,
            "swimming pool": 2,
            "lot": 1,
            "house": 3,
            "crown": 8,
        },
        winding=0.4,
        traffic=0.3,
    ),
    "coast": Recipe(
        metre=(1.4, 2.4),
        ground={"water": 2.6, "bareland": 0.3, "pavement": 0.4, "grass": 0.3},
        patch=90,
        things={"harbor": 3, "ship": 7, "store tank": 2, "hall": 2, "truck": 4, "crown": 4},
        winding=0.9,
        traffic=0.4,
    ),
    "airport": Recipe(
        metre=(1.4, 2.4),
        ground={"pavement": 1.6, "grass": 0.8},
        patch=90,
        things={"plane": 6, "helicopter": 3, "hall": 1, "truck": 6, "car": 8, "store tank": 1},
        winding=0.5,
        traffic=0.3,
    ),
    "industry": Recipe(
        metre=(1.6, 2.6),
        ground={"pavement": 0.9, "bareland": 0.9, "grass": 0.5, "clutter": 0.3},
        patch=45,
        things={"store tank": 7, "roundabout": 0.8, "hall": 5, "lot": 1, "truck": 10, "site": 2, "crown": 4},
        winding=0.8,
        traffic=0.5,
    ),
    "uav": Recipe(
        metre=(3.4, 5.5),
        ground={
            "grass": 1.0,
            "pavement": 1.0,
            "tree": 0.5,
            "clutter": 0.3,
            "bareland": 0.3,
            "cropland": 0.2,
            "water": 0.25,
        },
        patch=22,
        things={"tower": 50, "lot": 3, "car": 25, "crown": 35, "person": 80},
        block=42,
        traffic=0.6,
    ),
    "close": Recipe(
        metre=(2.8, 4.4),
        ground={
            "grass": 1.1,
            "pavement": 0.7,
            "tree": 0.5,
            "clutter": 0.35,
            "bareland": 0.2,
            "cropland": 0.15,
        },
        patch=26,
        things={"house": 45, "lot": 2, "car": 15, "crown": 30, "site": 2},
        block=50,
        traffic=0.6,
    ),
}
