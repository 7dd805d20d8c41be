"""Things that people build and plant: roads, buildings, parking lots, crowns, vehicles, people."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.demo.content import MASTER_INDEX
from bench.demo.render.canvas import Points, SceneCanvas, blob, ellipse, rectangle, to_frame, unit
from bench.demo.render.textures import pick_colour

_ROOFS = {
    "tiles": [(168, 92, 70), (140, 74, 58), (186, 116, 86)],
    "slate": [(92, 92, 100), (118, 112, 110), (74, 74, 80)],
    "concrete": [(178, 174, 168), (204, 200, 194), (158, 154, 150)],
    "metal": [(92, 124, 164), (212, 216, 220), (120, 148, 150)],
}
_PAINT = [
    (235, 235, 235),
    (180, 182, 186),
    (40, 42, 46),
    (150, 30, 34),
    (34, 60, 120),
    (110, 112, 116),
    (196, 180, 60),
]


def road(canvas: SceneCanvas, path: Points, width: float, pavements: bool) -> None:
    """Draw a road along a path (pixels), `width` metres; where it crosses water it is a bridge."""
    carriage = _stroke(canvas, path, width)
    wet = carriage & (canvas.label == MASTER_INDEX["water"])
    if pavements:
        kerb = _stroke(canvas, path, width + 4) & (canvas.label != MASTER_INDEX["water"])
        kerb &= canvas.label != MASTER_INDEX["road"]
        canvas.cover(kerb, "pavement")
        canvas.taken |= kerb
    canvas.cover(carriage & ~wet, "road")
    if wet.any():
        _bridge(canvas, path, width, wet)
    canvas.taken |= carriage
    if width * canvas.metre >= 9:
        _lane_marks(canvas, path)


def _bridge(canvas: SceneCanvas, path: Points, width: float, wet: NDArray[np.bool_]) -> None:
    shadow = np.roll(wet, np.round(canvas.sun[::-1] * 2.5 * canvas.metre).astype(int), (0, 1)) & ~wet
    shadow &= canvas.label == MASTER_INDEX["water"]
    canvas.image[shadow] *= np.float32(canvas.shadow)
    canvas.cover(wet, "bridge", "road")
    canvas.image[wet] += np.float32(30)
    rim = wet & ~_stroke(canvas, path, width - 2.5)
    canvas.image[rim] = np.float32(222)


def _stroke(canvas: SceneCanvas, path: Points, width: float) -> NDArray[np.bool_]:
    mask = np.zeros(canvas.shape, np.uint8)
    cv2.polylines(mask, [np.round(path).astype(np.int32)], False, 1, max(1, round(width * canvas.metre)))
    return mask.astype(bool)


def _lane_marks(canvas: SceneCanvas, path: Points) -> None:
    colour = canvas.rng.uniform(200, 240)
    for point, heading in along(path, 6 * canvas.metre):
        half = unit(heading) * 1.4 * canvas.metre
        canvas.line(np.stack([point - half, point + half]), 0.25 * canvas.metre, colour)


def along(path: Points, step: float) -> list[tuple[NDArray[np.float64], float]]:
    """Points every `step` pixels of a path, with the heading there (radians)."""
    legs = np.diff(path, axis=0)
    lengths = np.hypot(*legs.T)
    reach = np.concatenate([[0], np.cumsum(lengths)])
    places = []
    for distance in np.arange(step / 2, reach[-1], step):
        leg = min(int(np.searchsorted(reach, distance, "right")) - 1, len(legs) - 1)
        share = (distance - reach[leg]) / max(lengths[leg], 1e-6)
        places.append((path[leg] + legs[leg] * share, float(np.arctan2(legs[leg][1], legs[leg][0]))))
    return places


def building(canvas: SceneCanvas, centre: Points, angle: float, length: float, width: float, lean: float = 0.0) -> None:
    """Draw a building of `length` x `width` metres.

    lean: pixels that a metre of height shifts the roof up (oblique view)
    """
    rng = canvas.rng
    large = length * width > 320
    height = rng.uniform(6, 16) if large else rng.uniform(4, 7)
    footprint = rectangle(centre, length * canvas.metre, width * canvas.metre, angle)
    canvas.cast_shadow(footprint, height * 0.8)
    rise = np.array([0.0, -lean * height])
    if lean:
        _facades(canvas, footprint, rise)
    style = str(
        rng.choice(["concrete", "metal", "slate"] if large else ["tiles", "tiles", "slate", "concrete", "metal"])
    )
    colour = pick_colour(rng, _ROOFS[style], 10)
    if large or style == "concrete":
        _flat_roof(canvas, footprint + rise, centre + rise, (length, width), angle, colour)
    else:
        _pitched_roof(canvas, footprint + rise, angle, length, width, colour)


def _facades(canvas: SceneCanvas, footprint: Points, rise: NDArray[np.float64]) -> None:
    """Draw the walls that face the camera, with rows of windows."""
    wall = pick_colour(canvas.rng, [(206, 196, 180), (188, 170, 150), (170, 170, 174), (196, 150, 120)], 10)
    for corner, following in zip(footprint, np.roll(footprint, -1, 0), strict=True):
        if following[0] >= corner[0]:
            continue  # walls whose outside looks up the picture are hidden behind the roof
        facing = unit(np.arctan2(*(corner - following)[::-1]) + np.pi / 2) @ canvas.sun
        quad = np.stack([corner, following, following + rise, corner + rise])
        canvas.polygon(quad, wall * (0.82 - 0.15 * facing), "facade")
        for storey in np.arange(0.15, 0.9, 0.28):
            for bay in np.arange(0.1, 0.9, max(0.08, 9 / max(np.hypot(*(following - corner)), 1))):
                start = corner + (following - corner) * bay + rise * storey
                pane = np.stack([start, start + (following - corner) * 0.05])
                canvas.polygon(np.concatenate([pane, pane[::-1] + rise * 0.15]), (58, 66, 80))


def _flat_roof(
    canvas: SceneCanvas,
    outline: Points,
    centre: Points,
    size: tuple[float, float],
    angle: float,
    colour: NDArray[np.float32],
) -> None:
    """size: length and width in metres."""
    length, width = size
    canvas.polygon(outline, np.minimum(colour * 1.18, 248), "building")
    inner = rectangle(centre, (length - 1.6) * canvas.metre, (width - 1.6) * canvas.metre, angle)
    canvas.polygon(inner, colour)
    canvas.ribs(inner, angle, *_sheets(canvas))
    for _ in range(canvas.rng.integers(1, 5)):
        offset = canvas.rng.uniform(-0.35, 0.35, 2) * (length, width) * canvas.metre
        place = to_frame(centre, angle, offset[None])[0]
        long, wide = canvas.rng.uniform(1.2, 3, 2) * canvas.metre
        box = rectangle(place, long, wide, angle)
        canvas.cast_shadow(box, 1.2)
        canvas.polygon(box, colour * canvas.rng.uniform(0.7, 1.25))


def _pitched_roof(
    canvas: SceneCanvas, outline: Points, angle: float, length: float, width: float, colour: NDArray[np.float32]
) -> None:
    """Gable or hip: each slope is lit by the angle between its normal and the sun."""
    canvas.polygon(outline, colour, "building")
    inset = canvas.rng.choice([0.0, 0.5]) * width / length
    start, end = (outline[0] + outline[3]) / 2, (outline[1] + outline[2]) / 2
    ridge = np.stack([start + (end - start) * inset, end + (start - end) * inset])
    slopes = (
        (np.stack([outline[0], outline[1], ridge[1], ridge[0]]), angle - np.pi / 2),
        (np.stack([outline[3], outline[2], ridge[1], ridge[0]]), angle + np.pi / 2),
        (np.stack([outline[0], outline[3], ridge[0]]), angle + np.pi),
        (np.stack([outline[1], outline[2], ridge[1]]), angle),
    )
    sheets = _sheets(canvas)
    for slope, normal in slopes:
        canvas.polygon(slope, colour * (1 - 0.24 * float(unit(normal) @ canvas.sun)))
        canvas.ribs(slope, normal, *sheets)
    canvas.line(ridge, 1, np.minimum(colour * 1.25, 250).tolist())


def _sheets(canvas: SceneCanvas) -> tuple[float, float]:
    """Period (pixels) and depth (grey levels) of a roof's courses of tiles or sheets."""
    return float(canvas.rng.uniform(2.4, 3.2)), float(canvas.rng.uniform(8, 20))


def parking(canvas: SceneCanvas, centre: Points, angle: float, length: float, width: float) -> None:
    """Draw a paved lot with rows of stalls, about half of them taken."""
    metre = canvas.metre
    canvas.polygon(rectangle(centre, length * metre, width * metre, angle), "pavement", "pavement")
    for row in np.arange(-width / 2 + 3, width / 2 - 2, 8.5):
        for stall in np.arange(-length / 2 + 1.5, length / 2 - 1, 2.8):
            place = to_frame(centre, angle, np.array([[stall, row]]) * metre)[0]
            edge = place + unit(angle) * 1.4 * metre
            half = unit(angle + np.pi / 2) * 2.4 * metre
            canvas.line(np.stack([edge - half, edge + half]), 0.2 * metre, 226)
            if canvas.rng.random() < 0.5:
                car(canvas, place, angle + np.pi / 2)


def crown(canvas: SceneCanvas, centre: Points, diameter: float) -> None:
    """Draw a single tree, `diameter` metres."""
    outline = blob(canvas.rng, centre, diameter * canvas.metre)
    canvas.cast_shadow(outline, diameter * 0.6)
    canvas.polygon(outline, "tree", "tree")
    canvas.shade(
        blob(canvas.rng, centre + canvas.sun * diameter * canvas.metre * 0.2, diameter * canvas.metre * 0.6),
        0.82,
    )


def car(canvas: SceneCanvas, centre: Points, angle: float) -> None:
    """Draw a small vehicle with windscreens."""
    metre = canvas.metre
    body = rectangle(centre, canvas.rng.uniform(4.2, 5) * metre, 2 * metre, angle)
    canvas.cast_shadow(body, 1.0)
    colour = pick_colour(canvas.rng, _PAINT, 8)
    canvas.polygon(body, colour, "car")
    for offset in (0.8, -1.5):
        canvas.polygon(rectangle(centre + unit(angle) * offset * metre, 0.8 * metre, 1.7 * metre, angle), (28, 34, 42))


def truck(canvas: SceneCanvas, centre: Points, angle: float) -> None:
    """Draw a large vehicle: cab and box."""
    metre, length = canvas.metre, canvas.rng.uniform(9, 14)
    body = rectangle(centre, length * metre, 2.9 * metre, angle)
    canvas.cast_shadow(body, 2.5)
    colour = pick_colour(
        canvas.rng, [(238, 238, 236), (200, 204, 210), (60, 90, 150), (176, 60, 50), (214, 190, 90)], 8
    )
    canvas.polygon(body, (52, 54, 58), "truck")
    box = rectangle(centre - unit(angle) * 0.12 * length * metre, length * 0.72 * metre, 2.7 * metre, angle)
    canvas.polygon(box, colour)
    cab = rectangle(centre + unit(angle) * 0.39 * length * metre, length * 0.16 * metre, 2.5 * metre, angle)
    canvas.polygon(cab, pick_colour(canvas.rng, _PAINT, 8))


def human(canvas: SceneCanvas, feet: Points) -> None:
    """Draw a person seen from a low-flying camera: shadow, clothes, head."""
    metre, rng = canvas.metre, canvas.rng
    waist, neck = feet - np.array([0, 0.9 * metre]), feet - np.array([0, 1.8 * metre])
    canvas.shade(
        ellipse(feet + canvas.sun * metre, 2.2 * metre, 0.7 * metre, np.arctan2(*canvas.sun[::-1])),
        canvas.shadow,
    )
    canvas.polygon(rectangle((feet + waist) / 2, 1.0 * metre, 0.7 * metre, np.pi / 2), rng.uniform(20, 110, 3), "human")
    canvas.polygon(rectangle((waist + neck) / 2, 0.9 * metre, 1.0 * metre, np.pi / 2), rng.uniform(30, 235, 3), "human")
    canvas.polygon(ellipse(neck, 0.8 * metre, 0.8 * metre, 0.0, 10), (176, 130, 104), "human")
