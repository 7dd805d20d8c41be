"""The things that scenes are made of, by the names that demo.yaml has for them."""

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


def _tower(canvas: SceneCanvas, centre: Points, angle: float) -> None:
    lean = canvas.metre * canvas.rng.uniform(0.55, 0.85)
    length, width = canvas.rng.uniform((13, 9), (20, 14))
    structures.building(canvas, centre, angle, length, width, lean)


_SEA: Final = ("water",)
THINGS: Final[dict[str, Thing]] = {
    "house": Thing(lambda c, at, turn: structures.building(c, at, turn, *c.rng.uniform((11, 8), (17, 12))), 18, 13),
    "hall": Thing(lambda c, at, turn: structures.building(c, at, turn, *c.rng.uniform((26, 15), (38, 24))), 40, 26),
    "tower": Thing(_tower, 22, 16),
    "lot": Thing(lambda c, at, turn: structures.parking(c, at, turn, 30, 20), 31, 21),
    "site": Thing(lambda c, at, _: c.polygon(blob(c.rng, at, 26 * c.metre), "clutter", "clutter"), 24, 24),
    "crown": Thing(lambda c, at, _: structures.crown(c, at, c.rng.uniform(4, 9)), 5, 5, _LAND),
    "person": Thing(lambda c, at, _: structures.human(c, at), 1.5, 1.5),
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
