"""Aerial scenes with exact label maps, deterministic from a seed."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.demo.content import CONTENT, MASTER_INDEX, Kind
from bench.demo.render.canvas import Points, SceneCanvas, rectangle, unit
from bench.demo.render.structures import along, car, road, truck
from bench.demo.render.textures import fractal_noise, smooth_noise
from bench.demo.render.things import THINGS, Thing
from bench.errors import check_known

Image = NDArray[np.uint8]  # (H, W, 3) RGB
Label = NDArray[np.uint8]  # (H, W)

KINDS: Final = tuple(CONTENT.scenes)
TRAIN_SEEDS: Final = range(0, 1_000_000)
HELD_OUT_SEEDS: Final = range(1_000_000, 2_000_000)  # the probe's scenes
DEMO_SEEDS: Final = range(2_000_000, 2_000_000_000)  # the demo datasets' scenes
_TRIES = 8
_GREEN: Final = ("grass", "tree", "cropland", "soccer field")


def scene(seed: int, size: int | tuple[int, int], kind: str, false_colour: bool = False) -> tuple[Image, Label]:
    """Render a scene.

    size: side in pixels or (height, width)
    kind: one of KINDS
    false_colour: the channels are near infrared, red and green

    Returns the RGB image (H, W, 3) and the label map (H, W) of indices into `bench.demo.content.MASTER`.
    """
    check_known(kind, CONTENT.scenes, f"unknown kind of scene {kind!r}")
    shape = (size, size) if isinstance(size, int) else size
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    recipe = CONTENT.scenes[kind]
    canvas = SceneCanvas(rng, shape, float(rng.uniform(*recipe.metre)))
    _lay_ground(canvas, recipe)
    heading = float(rng.uniform(0, np.pi))
    paths = _lay_roads(canvas, recipe, heading)
    for name, density in recipe.things.items():
        _scatter(canvas, THINGS[name], density, heading)
    _drive(canvas, paths, recipe.traffic)
    return _photograph(canvas, false_colour), canvas.label


def _lay_ground(canvas: SceneCanvas, recipe: Kind) -> None:
    """Split the ground among the recipe's classes where one of several smooth fields is the highest."""
    cell = recipe.patch * canvas.metre
    names = list(recipe.ground)
    fields = [
        fractal_noise(canvas.rng, canvas.shape, cell, 4) + np.float32(0.8 * np.log(recipe.ground[name]))
        for name in names
    ]
    winner = np.argmax(np.stack(fields), 0)
    for index, name in enumerate(names):
        mask = winner == index
        if mask.any():
            canvas.cover(mask, name)


def _lay_roads(canvas: SceneCanvas, recipe: Kind, heading: float) -> list[Points]:
    rng, (height, width) = canvas.rng, canvas.shape
    paths: list[tuple[Points, float, bool]] = []
    middle, reach = np.array([width, height]) / 2, float(np.hypot(width, height))
    if recipe.block:
        for angle, stretch in ((heading, 1.0), (heading + np.pi / 2, 1.5)):
            step = recipe.block * canvas.metre * stretch * rng.uniform(0.8, 1.2)
            for offset in np.arange(-reach / 2 + rng.uniform(0, step), reach / 2, step):
                start = middle + unit(angle + np.pi / 2) * offset
                ends = np.stack([start - unit(angle) * reach, start + unit(angle) * reach])
                paths.append((ends, rng.uniform(6, 10), rng.random() < 0.7))
    area = height * width / (256 * 256)
    for _ in range(rng.poisson(recipe.winding * max(area, 1) ** 0.5)):
        paths.append((_winding(rng, canvas.shape), rng.uniform(6, 11), rng.random() < 0.25))
    for path, breadth, pavements in paths:
        road(canvas, path, breadth, pavements)
    return [path for path, _, _ in paths]


def _winding(rng: np.random.Generator, shape: tuple[int, int]) -> Points:
    """Draw a bent path from one border to another, (n, 2) pixels."""
    height, width = shape
    angle = rng.uniform(0, 2 * np.pi)
    reach = np.hypot(height, width) / 1.2
    middle = rng.uniform(0.25, 0.75, 2) * (width, height)
    bend = rng.normal(0, 0.25, 2) * reach
    start, end = middle - unit(angle) * reach + bend, middle + unit(angle + rng.normal(0, 0.3)) * reach + bend
    t = np.linspace(0, 1, 24)[:, None]
    control = 2 * middle - (start + end) / 2
    path: Points = (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end
    return path


def _scatter(canvas: SceneCanvas, thing: Thing, density: float, heading: float) -> None:
    """Place about `density` things a hectare, aligned with the streets, where there is room."""
    rng, (height, width) = canvas.rng, canvas.shape
    hectares = height * width / canvas.metre**2 / 1e4
    ground = np.zeros(256, bool)
    ground[[MASTER_INDEX[name] for name in thing.ground]] = True
    for _ in range(rng.poisson(density * hectares)):
        for _ in range(_TRIES):
            centre = rng.uniform(0, 1, 2) * (width, height)
            angle = heading + rng.integers(4) * np.pi / 2 + rng.normal(0, 0.04)
            room = rectangle(centre, thing.length * canvas.metre, thing.width * canvas.metre, angle)
            if canvas.claim(room, ground):
                thing.draw(canvas, centre, angle)
                break


def _drive(canvas: SceneCanvas, paths: list[Points], traffic: float) -> None:
    """Put cars and trucks on the roads, keeping to one side."""
    on_road = np.isin(canvas.label, [MASTER_INDEX["road"], MASTER_INDEX["bridge"]])
    for path in paths:
        for point, heading in along(path, 16 * canvas.metre):
            side = canvas.rng.choice((-1, 1))
            place = point + unit(heading + np.pi / 2) * side * 2.2 * canvas.metre
            x, y = np.round(place).astype(int)
            inside = 0 <= x < canvas.shape[1] and 0 <= y < canvas.shape[0]
            if inside and on_road[y, x] and canvas.rng.random() < 1.6 * traffic:
                vehicle = truck if canvas.rng.random() < 0.2 else car
                vehicle(canvas, place, heading + (np.pi if side < 0 else 0))


def _photograph(canvas: SceneCanvas, false_colour: bool) -> Image:
    """Photograph the scene: haze, light, gain, blur, noise, 8 bits."""
    rng, image = canvas.rng, canvas.image
    if false_colour:
        image = _infrared(canvas)
    light = 1 + smooth_noise(rng, canvas.shape, max(canvas.shape)) * np.float32(rng.uniform(0, 0.15))
    gain = (rng.uniform(0.78, 1.2) * rng.uniform(0.93, 1.07, 3)).astype(np.float32)
    haze = rng.uniform(0, 0.2)
    contrast = np.float32((1 - haze) * rng.uniform(0.85, 1.15))
    image = (image * light[..., None] * gain - 118) * contrast + 118 + 40 * haze
    image = cv2.GaussianBlur(image.astype(np.float32), (0, 0), rng.uniform(0.35, 0.8))
    image += rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(1, 5))
    photograph: Image = np.clip(image, 0, 255).astype(np.uint8)
    return photograph


def _infrared(canvas: SceneCanvas) -> NDArray[np.float32]:
    """Near infrared, red, green: plants are bright in the first channel, water is dark."""
    brightness = canvas.image.mean(-1)
    infrared = brightness * 0.95
    green = np.isin(canvas.label, [MASTER_INDEX[name] for name in _GREEN])
    infrared[green] = brightness[green] * 1.25 + 55
    infrared[canvas.label == MASTER_INDEX["water"]] *= 0.5
    return np.stack([infrared, canvas.image[..., 0], canvas.image[..., 1]], -1).astype(np.float32)
