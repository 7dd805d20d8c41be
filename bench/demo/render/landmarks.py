"""The objects of aerial object datasets: courts, fields, planes, ships, tanks, pools and the like."""

from __future__ import annotations

import numpy as np

from bench.demo.render.canvas import Points, SceneCanvas, ellipse, rectangle, to_frame, unit
from bench.demo.render.textures import pick_colour

_WHITE = 236.0


def _court_lines(canvas: SceneCanvas, centre: Points, angle: float, *boxes: tuple[float, float, float, float]) -> None:
    """White outlines; a box is (offset along, offset across, length, width) in metres."""
    for x, y, length, width in boxes:
        place = to_frame(centre, angle, np.array([[x, y]]) * canvas.metre)[0]
        corners = rectangle(place, length * canvas.metre, width * canvas.metre, angle)
        canvas.line(np.concatenate([corners, corners[:1]]), 0.3 * canvas.metre, _WHITE)


def tennis_court(canvas: SceneCanvas, centre: Points, angle: float) -> None:
    """Two colours, side lines, service boxes, net."""
    colour = pick_colour(canvas.rng, [(60, 120, 84), (62, 92, 150), (176, 100, 72)], 8)
    canvas.polygon(rectangle(centre, 36 * canvas.metre, 18 * canvas.metre, angle), colour * 0.8, "tennis court")
    canvas.polygon(rectangle(centre, 24 * canvas.metre, 11 * canvas.metre, angle), colour)
    _court_lines(canvas, centre, angle, (0, 0, 24, 11), (0, 0, 24, 8), (3.2, 0, 6.4, 8), (-3.2, 0, 6.4, 8))
    net = unit(angle + np.pi / 2) * 6.4 * canvas.metre
    canvas.line(np.stack([centre - net, centre + net]), 0.4 * canvas.metre, 40)


def basketball_court(canvas: SceneCanvas, centre: Points, angle: float) -> None:
    """Centre circle and a coloured key at each end."""
    floor = pick_colour(canvas.rng, [(196, 150, 104), (150, 146, 142), (166, 90, 80), (90, 130, 110)], 8)
    key = pick_colour(canvas.rng, [(170, 60, 50), (60, 80, 140), (210, 130, 60)], 8)
    canvas.polygon(rectangle(centre, 30 * canvas.metre, 17 * canvas.metre, angle), floor, "basketball court")
    for side in (-1, 1):
        place = centre + unit(angle) * side * 11 * canvas.metre
        canvas.polygon(rectangle(place, 6 * canvas.metre, 5 * canvas.metre, angle), key)
        arc = ellipse(centre + unit(angle) * side * 13 * canvas.metre, 13 * canvas.metre, 13 * canvas.metre, angle)
        inside = (arc - centre) @ unit(angle) * side < 14 * canvas.metre
        canvas.line(np.roll(arc, -int(np.argmin(inside)), 0)[np.roll(inside, -int(np.argmin(inside)))], 1, _WHITE)
    circle = ellipse(centre, 4 * canvas.metre, 4 * canvas.metre, 0.0)
    canvas.line(np.concatenate([circle, circle[:1]]), 0.3 * canvas.metre, _WHITE)
    _court_lines(canvas, centre, angle, (0, 0, 28, 15), (7, 0, 14, 15))


def soccer_field(canvas: SceneCanvas, centre: Points, angle: float) -> None:
    """Mown stripes, penalty areas, centre circle."""
    metre, length, width = canvas.metre, 66.0, 42.0
    colour = pick_colour(canvas.rng, [(84, 138, 66), (104, 150, 76), (70, 120, 64)], 8)
    canvas.polygon(rectangle(centre, length * metre, width * metre, angle), colour, "soccer field")
    for stripe in np.arange(-length / 2 + 3, length / 2, 12):
        band = rectangle(centre + unit(angle) * stripe * metre, 6 * metre, width * metre, angle)
        canvas.shade(band, 1.13)
    edge = length / 2 - 2
    _court_lines(canvas, centre, angle, (0, 0, 2 * edge, width - 4), (edge / 2, 0, edge, width - 4))
    _court_lines(canvas, centre, angle, (edge - 5, 0, 10, 22), (5 - edge, 0, 10, 22))
    circle = ellipse(centre, 12 * metre, 12 * metre, 0.0)
    canvas.line(np.concatenate([circle, circle[:1]]), 0.3 * metre, _WHITE)


def ground_track_field(canvas: SceneCanvas, centre: Points, angle: float) -> None:
    """Draw running lanes around a lawn."""
    metre = canvas.metre
    track = pick_colour(canvas.rng, [(176, 84, 66), (160, 96, 80), (66, 96, 150)], 8)
    for lane, colour in enumerate((track, track * 1.1, track, track * 1.1)):
        canvas.polygon(
            _stadium(centre, angle, (86 - 4 * lane) * metre, (50 - 4 * lane) * metre),
            colour,
            "ground track field",
        )
        ring = _stadium(centre, angle, (86 - 4 * lane) * metre, (50 - 4 * lane) * metre)
        canvas.line(np.concatenate([ring, ring[:1]]), 1, _WHITE)
    canvas.polygon(_stadium(centre, angle, 70 * metre, 34 * metre), "grass")


def _stadium(centre: Points, angle: float, length: float, width: float) -> Points:
    turn = np.linspace(-np.pi / 2, np.pi / 2, 10)
    cap = np.stack([np.cos(turn), np.sin(turn)], 1) * width / 2 + ((length - width) / 2, 0)
    return to_frame(centre, angle, np.concatenate([cap, -cap]))


def baseball_diamond(canvas: SceneCanvas, centre: Points, angle: float) -> None:
    """Draw a fan of earth with a square of grass, bases and a mound."""
    metre = canvas.metre
    turn = np.linspace(-np.pi / 4, np.pi / 4, 12)
    fan = np.concatenate([[[0.0, 0.0]], np.stack([np.cos(turn), np.sin(turn)], 1)]) * 36 * metre - (
        18 * metre,
        0,
    )
    earth = pick_colour(canvas.rng, [(178, 124, 84), (160, 108, 74), (196, 150, 110)], 8)
    canvas.polygon(to_frame(centre, angle, fan), earth, "baseball diamond")
    home = centre - unit(angle) * 15 * metre
    square = rectangle(home + unit(angle) * 13 * metre, 15 * metre, 15 * metre, angle + np.pi / 4)
    canvas.polygon(square, "grass")
    canvas.polygon(ellipse(home + unit(angle) * 13 * metre, 4 * metre, 4 * metre, 0.0), earth)
    for corner in square:
        canvas.polygon(rectangle(corner, 1.2 * metre, 1.2 * metre, angle), (240, 240, 240))


def plane(canvas: SceneCanvas, centre: Points, angle: float) -> None:
    """Fuselage, swept wings, tail."""
    size = canvas.rng.uniform(26, 40) * canvas.metre
    colour = pick_colour(canvas.rng, [(240, 240, 240), (212, 216, 220), (180, 190, 200)], 6)
    wings = np.array([[0.12, 0], [-0.12, 0.48], [-0.2, 0.48], [-0.08, 0], [-0.2, -0.48], [-0.12, -0.48]])
    tail = np.array([[-0.36, 0], [-0.46, 0.17], [-0.5, 0.17], [-0.46, 0], [-0.5, -0.17], [-0.46, -0.17]])
    outlines = [to_frame(centre, angle, part * size) for part in (wings, tail)]
    outlines.append(ellipse(centre, size, size * 0.12, angle))
    for outline in outlines:
        canvas.shade(outline + canvas.sun * 3 * canvas.metre, canvas.shadow)
    for outline, tone in zip(outlines, (0.92, 0.88, 1.0), strict=True):
        canvas.polygon(outline, colour * tone, "plane")
    canvas.polygon(ellipse(centre + unit(angle) * 0.42 * size, 0.05 * size, 0.07 * size, angle), (50, 56, 66))


def helicopter(canvas: SceneCanvas, centre: Points, angle: float) -> None:
    """Cabin, boom and rotor above a marked pad."""
    metre = canvas.metre
    size = canvas.rng.uniform(17, 22) * metre
    canvas.polygon(ellipse(centre, size * 1.3, size * 1.3, 0.0), "pavement", "pavement")
    pad = ellipse(centre, size * 1.15, size * 1.15, 0.0)
    canvas.line(np.concatenate([pad, pad[:1]]), 0.8 * metre, (230, 200, 60))
    colour = pick_colour(canvas.rng, [(70, 84, 60), (160, 40, 40), (40, 60, 110), (216, 214, 206)], 8)
    boom = rectangle(centre - unit(angle) * 0.32 * size, 0.55 * size, 0.09 * size, angle)
    canvas.cast_shadow(boom, 1.5)
    canvas.polygon(boom, colour * 0.85, "helicopter")
    canvas.polygon(ellipse(centre + unit(angle) * 0.12 * size, 0.5 * size, 0.26 * size, angle), colour, "helicopter")
    fin = rectangle(centre - unit(angle) * 0.56 * size, 0.07 * size, 0.26 * size, angle)
    canvas.polygon(fin, colour, "helicopter")
    turn = canvas.rng.uniform(0, np.pi)
    for blade in (turn, turn + np.pi / 2):
        canvas.polygon(
            rectangle(centre + unit(angle) * 0.1 * size, 0.9 * size, 0.05 * size, blade),
            (36, 38, 42),
            "helicopter",
        )


def ship(canvas: SceneCanvas, centre: Points, angle: float) -> None:
    """Pointed hull with deck and cabin."""
    length = canvas.rng.uniform(14, 36) * canvas.metre
    hull = np.array([[0.5, 0], [0.3, 0.13], [-0.45, 0.13], [-0.5, 0.09], [-0.5, -0.09], [-0.45, -0.13], [0.3, -0.13]])
    colour = pick_colour(canvas.rng, [(236, 236, 234), (150, 56, 48), (64, 74, 88), (190, 190, 184)], 8)
    outline = to_frame(centre, angle, hull * length)
    canvas.shade(outline + canvas.sun * 1.5 * canvas.metre, canvas.shadow)
    canvas.polygon(outline, colour * 0.85, "ship")
    canvas.polygon(
        to_frame(centre, angle, hull * length * 0.78),
        pick_colour(canvas.rng, [(176, 140, 104), (200, 200, 196)], 8),
    )
    cabin = rectangle(centre - unit(angle) * 0.2 * length, 0.2 * length, 0.16 * length, angle)
    canvas.polygon(cabin, (244, 244, 240))


def store_tank(canvas: SceneCanvas, centre: Points, angle: float) -> None:
    """Draw a round tank: rim, lid lit from one side, stairs."""
    diameter = canvas.rng.uniform(12, 22) * canvas.metre
    colour = pick_colour(canvas.rng, [(224, 222, 216), (196, 196, 192), (170, 140, 116)], 8)
    outline = ellipse(centre, diameter, diameter, 0.0)
    canvas.cast_shadow(outline, 5)
    canvas.polygon(outline, colour * 0.75, "store tank")
    canvas.polygon(ellipse(centre, diameter * 0.86, diameter * 0.86, 0.0), colour)
    canvas.shade(ellipse(centre + canvas.sun * diameter * 0.14, diameter * 0.55, diameter * 0.55, 0.0), 0.88)
    canvas.line(np.stack([centre, centre + unit(angle) * diameter / 2]), 0.6 * canvas.metre, (90, 90, 92))


def swimming_pool(canvas: SceneCanvas, centre: Points, angle: float) -> None:
    """Turquoise water in a pale rim."""
    length, width = canvas.rng.uniform(9, 16) * canvas.metre, canvas.rng.uniform(5, 8) * canvas.metre
    outline = rectangle if canvas.rng.random() < 0.6 else ellipse
    rim = 1.4 * canvas.metre
    canvas.polygon(outline(centre, length + 2 * rim, width + 2 * rim, angle), (214, 208, 198), "pavement")
    canvas.polygon(
        outline(centre, length, width, angle),
        pick_colour(canvas.rng, [(60, 170, 196), (96, 196, 208)], 10),
        "swimming pool",
    )
    canvas.line(rectangle(centre, length * 0.7, width * 0.4, angle)[:2], 1, (170, 224, 230))


def roundabout(canvas: SceneCanvas, centre: Points, angle: float) -> None:
    """Draw a ring of asphalt around a planted island."""
    metre = canvas.metre
    canvas.polygon(ellipse(centre, 40 * metre, 40 * metre, angle), "road", "roundabout")
    canvas.polygon(ellipse(centre, 21 * metre, 21 * metre, angle), (210, 206, 198))
    canvas.polygon(ellipse(centre, 19 * metre, 19 * metre, angle), "grass")
    canvas.polygon(ellipse(centre, 6 * metre, 6 * metre, angle), "tree")
    ring = ellipse(centre, 31 * metre, 31 * metre, angle)
    for start in range(0, len(ring), 2):
        canvas.line(ring[start : start + 2], 0.3 * metre, _WHITE)


def harbor(canvas: SceneCanvas, centre: Points, angle: float) -> None:
    """Draw a pier with fingers, boats between them."""
    metre, length = canvas.metre, canvas.rng.uniform(44, 64)
    canvas.polygon(rectangle(centre, length * metre, 6 * metre, angle), "pavement", "harbor")
    for place in np.arange(-length / 2 + 4, length / 2 - 3, 11):
        for side in (-1, 1):
            finger = to_frame(centre, angle, np.array([[place, side * 9.0]]) * metre)[0]
            canvas.polygon(rectangle(finger, 2.5 * metre, 13 * metre, angle), (186, 180, 168), "harbor")
            if canvas.rng.random() < 0.65:
                berth = to_frame(centre, angle, np.array([[place + 5.5, side * 10.0]]) * metre)[0]
                _moored_boat(canvas, berth, angle + side * np.pi / 2)


def _moored_boat(canvas: SceneCanvas, centre: Points, angle: float) -> None:
    hull = np.array([[0.5, 0], [0.15, 0.17], [-0.5, 0.15], [-0.5, -0.15], [0.15, -0.17]]) * 12 * canvas.metre
    canvas.polygon(
        to_frame(centre, angle, hull), pick_colour(canvas.rng, [(238, 238, 236), (190, 200, 210)], 8), "ship"
    )
    canvas.polygon(rectangle(centre, 4 * canvas.metre, 2 * canvas.metre, angle), (70, 80, 96))
