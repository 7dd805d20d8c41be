"""Materials of the ground: each a colour field known by its structure, not by its mean colour."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]  # (H, W, 3), 0..255
Plane = NDArray[np.float32]  # (H, W)
Shape = tuple[int, int]
Texture = Callable[[np.random.Generator, Shape, float], Field]


def smooth_noise(rng: np.random.Generator, shape: Shape, cell: float) -> Plane:
    """Noise (H, W) in about -1..1 whose features are `cell` pixels wide."""
    if cell <= 1:
        return rng.uniform(-1, 1, shape).astype(np.float32)
    if cell >= 8:  # smooth enough to be made small and enlarged
        small = smooth_noise(rng, ((shape[0] + 3) // 4, (shape[1] + 3) // 4), cell / 4)
        enlarged: Plane = cv2.resize(small, shape[::-1], interpolation=cv2.INTER_LINEAR)
        return enlarged
    rows, columns = (int(np.ceil(side / cell)) + 3 for side in shape)
    coarse = rng.uniform(-1, 1, (rows, columns)).astype(np.float32)
    fine: Plane = cv2.resize(coarse, (round(columns * cell), round(rows * cell)), interpolation=cv2.INTER_CUBIC)
    y, x = rng.integers(0, int(cell) + 1, 2)
    return fine[y : y + shape[0], x : x + shape[1]]


def fractal_noise(rng: np.random.Generator, shape: Shape, cell: float, octaves: int = 3) -> Plane:
    """Sum of octaves of smooth noise, each half as wide and half as strong as the one before."""
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        total += smooth_noise(rng, shape, cell / 2**octave) * np.float32(0.5**octave)
    return total


def pick_colour(rng: np.random.Generator, palette: list[tuple[int, int, int]], spread: float = 14) -> Field:
    """Mix a colour (3,) float32 between two entries of a palette, jittered."""
    first, second = (np.array(palette[index], float) for index in rng.integers(len(palette), size=2))
    mixed = first + (second - first) * rng.uniform()
    jittered = mixed + rng.normal(0, spread / 2) + rng.normal(0, spread / 2, 3)
    colour: Field = np.clip(jittered, 5, 250).astype(np.float32)
    return colour


def _tint(rng: np.random.Generator, colour: Field, light: Plane, hue: Plane | None = None) -> Field:
    """Modulate a colour by a field of light (additive, grey levels), and gently by a second one towards another hue."""
    field = colour + light[..., None]
    if hue is not None:
        field = field + hue[..., None] * rng.normal(0, 12, 3).astype(np.float32)
    return field.astype(np.float32)


def _bareland(rng: np.random.Generator, shape: Shape, metre: float) -> Field:
    colour = pick_colour(rng, [(176, 148, 112), (150, 118, 90), (196, 182, 156), (134, 118, 104), (164, 120, 84)])
    blotches = fractal_noise(rng, shape, 14 * metre, 4) * rng.uniform(10, 20)
    pebbles = np.where(smooth_noise(rng, shape, 1) > 0.93, rng.uniform(-40, 40), 0)
    return _tint(rng, colour, blotches + pebbles, smooth_noise(rng, shape, 20 * metre))


def _grass(rng: np.random.Generator, shape: Shape, metre: float) -> Field:
    colour = pick_colour(rng, [(104, 132, 66), (126, 150, 86), (84, 112, 58), (148, 146, 92), (96, 124, 88)])
    tufts = smooth_noise(rng, shape, 1.3) * rng.uniform(6, 12) + smooth_noise(rng, shape, 6 * metre) * 6
    return _tint(rng, colour, tufts, fractal_noise(rng, shape, 18 * metre, 2))


def _tree(rng: np.random.Generator, shape: Shape, metre: float) -> Field:
    """Canopy: round crowns lit from one side, with dark gaps."""
    colour = pick_colour(rng, [(64, 92, 48), (82, 108, 52), (48, 74, 44), (96, 104, 54), (110, 92, 50), (58, 84, 62)])
    relief = smooth_noise(rng, shape, max(2.6 * metre, 3.0)) + 0.4 * smooth_noise(rng, shape, 1.5)
    lit = np.roll(relief, 1, 0) - relief if rng.uniform() < 0.5 else np.roll(relief, 1, 1) - relief
    light = lit * rng.uniform(30, 50) + np.minimum(relief + 0.2, 0) * rng.uniform(40, 70)
    return _tint(rng, colour, light.astype(np.float32), smooth_noise(rng, shape, 6 * metre))


def _water(rng: np.random.Generator, shape: Shape, metre: float) -> Field:
    palette = [
        (38, 66, 96),
        (52, 84, 90),
        (70, 92, 78),
        (30, 48, 66),
        (88, 108, 118),
        (104, 104, 84),
        (60, 110, 130),
    ]
    colour = pick_colour(rng, palette)
    angle, period = rng.uniform(0, np.pi), rng.uniform(3, 7)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    bend = smooth_noise(rng, shape, 14) * 3
    waves = np.sin((x * np.cos(angle) + y * np.sin(angle) + bend) * (2 * np.pi / period)) * rng.uniform(0, 4.5)
    return _tint(rng, colour, (waves + smooth_noise(rng, shape, 40 * metre) * 8).astype(np.float32))


def _cropland(rng: np.random.Generator, shape: Shape, metre: float) -> Field:
    """Parcels, each with its own crop and its own direction of rows."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    angle = rng.uniform(0, np.pi)
    u, v = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
    parcel = np.zeros(shape, np.int64)
    for axis, mean in ((u, rng.uniform(25, 60)), (v, rng.uniform(30, 90))):
        step = mean * metre
        cuts = np.cumsum(rng.uniform(0.5, 1.5, 2 * int(sum(shape) / step) + 4)) * step - sum(shape)
        parcel = parcel * 400 + np.searchsorted(cuts, axis)
    names, index = np.unique(parcel, return_inverse=True)
    index = index.reshape(shape)
    palette = [(124, 140, 72), (168, 160, 92), (96, 118, 60), (186, 168, 112), (142, 116, 84), (110, 134, 92)]
    colours = np.stack([pick_colour(rng, palette) for _ in names])
    turn = angle + np.where(rng.random(len(names)) < 0.7, 0, np.pi / 2) + rng.normal(0, 0.05, len(names))
    period = rng.uniform(3.5, 6.5, len(names))
    depth = rng.uniform(9, 22, len(names)).astype(np.float32)
    phase = (x * np.cos(turn)[index] + y * np.sin(turn)[index]) * (2 * np.pi / period)[index]
    rows = np.sin(phase) * depth[index]
    light = rows + smooth_noise(rng, shape, 1) * 4
    field: Field = (colours[index] + light[..., None]).astype(np.float32)
    return field


def _pavement(rng: np.random.Generator, shape: Shape, metre: float) -> Field:
    """Slabs with joints, stained."""
    colour = pick_colour(rng, [(168, 164, 158), (190, 186, 180), (150, 144, 138), (176, 160, 146), (136, 138, 142)])
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    angle, pitch = rng.uniform(0, np.pi), max(rng.uniform(2.5, 5) * metre, 5)
    u, v = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
    joints = ((u % pitch < 1) | (v % pitch < 1)) * rng.uniform(-34, -16)
    slabs = np.sin(np.floor(u / pitch) * 12.9 + np.floor(v / pitch) * 78.2) * rng.uniform(2, 7)
    return _tint(rng, colour, (joints + slabs + smooth_noise(rng, shape, 12 * metre) * 6).astype(np.float32))


def _road(rng: np.random.Generator, shape: Shape, metre: float) -> Field:
    colour = pick_colour(rng, [(104, 104, 108), (124, 122, 120), (82, 84, 88), (142, 138, 132)])
    grain = smooth_noise(rng, shape, 1) * rng.uniform(2, 5) + smooth_noise(rng, shape, 25 * metre) * 7
    return _tint(rng, colour, grain)


def _clutter(rng: np.random.Generator, shape: Shape, metre: float) -> Field:
    """Draw a building site: planks, containers and rubble of every colour, repeated by mirroring."""
    patch = (min(shape[0], 128), min(shape[1], 128))
    field = _bareland(rng, patch, metre)
    rubble = [(180, 170, 160), (90, 84, 80), (200, 190, 90), (110, 130, 170), (170, 90, 70), (230, 228, 220)]
    for _ in range(patch[0] * patch[1] // 60):
        x, y, length, width, turn = rng.uniform((0, 0, 2, 2, 0), (patch[1], patch[0], 8, 8, 180)).tolist()
        box = cv2.boxPoints(((x, y), (length, width), turn))
        cv2.fillConvexPoly(field, box.astype(np.int32), pick_colour(rng, rubble, 40).tolist())
    return np.pad(field, ((0, shape[0] - patch[0]), (0, shape[1] - patch[1]), (0, 0)), "symmetric")


TEXTURES: Final[dict[str, Texture]] = {
    "clutter": _clutter,
    "bareland": _bareland,
    "grass": _grass,
    "pavement": _pavement,
    "road": _road,
    "tree": _tree,
    "water": _water,
    "cropland": _cropland,
}
