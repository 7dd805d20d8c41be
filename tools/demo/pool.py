"""Rendered scenes to train on, and crops cut from them."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bench.demo.content import MASTER
from bench.demo.render.scenes import KINDS, TRAIN_SEEDS, Image, Label, scene
from bench.errors import BenchError

SIDE: Final = 256
_FALSE_COLOUR: Final = 12  # one scene in so many is near infrared, red, green
_ANCHORS: Final = 8  # pixels kept of each class of each scene, to centre crops on
# How much more often than the others a class is the centre of a crop.
_OFTEN: Final = ("tree", "grass", "bareland", "cropland", "pavement", "water", "car", "facade")
_EMPHASIS: Final = {"building": 5.0, "road": 4.0, **dict.fromkeys(_OFTEN, 2.0)}


class Pool:
    """Scenes and the places of each master class in them.

    images (N, SIDE, SIDE, 3) uint8, labels (N, SIDE, SIDE) uint8, anchors: class -> (n, 3) of scene, y, x.
    """

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.uint8], seed: int) -> None:
        self.images, self.labels = images, labels
        rng = np.random.default_rng(seed)
        found: list[list[NDArray[np.int64]]] = [[] for _ in MASTER]
        for index, label in enumerate(labels):
            for name in np.unique(label):
                flat = rng.choice(np.flatnonzero(label == name), _ANCHORS)
                found[name].append(np.stack([np.full(_ANCHORS, index), flat // SIDE, flat % SIDE], 1))
        self.anchors = {name: np.concatenate(places) for name, places in enumerate(found) if places}
        emphasis = np.array([_EMPHASIS.get(MASTER[name], 1.0) for name in self.anchors])
        self._classes, self._chances = np.array(list(self.anchors)), emphasis / emphasis.sum()

    def crops(self, rng: np.random.Generator, count: int, side: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Cut random crops (count, side, side, 3), turned and zoomed.

        Also returns the shares (count, len(MASTER)) of their classes.

        Two in three are centred near a pixel of a class drawn at random, so that rare classes are seen.
        """
        images = np.empty((count, side, side, 3), np.uint8)
        shares = np.empty((count, len(MASTER)), np.float32)
        for row in range(count):
            image, label = self._crop(rng, side)
            images[row] = cv2.resize(
                image, (side, side), interpolation=cv2.INTER_AREA if len(image) > side else cv2.INTER_LINEAR
            )
            shares[row] = np.bincount(label.ravel(), minlength=len(MASTER)) / label.size
        return images, shares

    def _crop(self, rng: np.random.Generator, side: int) -> tuple[Image, Label]:
        extent = min(int(side * np.exp(rng.uniform(-0.55, 0.3))), SIDE)
        if rng.random() < 0.66:
            places = self.anchors[int(rng.choice(self._classes, p=self._chances))]
            index, y, x = places[rng.integers(len(places))] - (0, extent // 2, extent // 2)
            y, x = (int(start + rng.normal(0, extent / 10)) for start in (y, x))
        else:
            index, y, x = rng.integers((len(self.labels), SIDE, SIDE))
        y, x = (min(max(start, 0), SIDE - extent) for start in (y, x))
        window = (int(index), slice(y, y + extent), slice(x, x + extent))
        turns, flip = int(rng.integers(4)), slice(None, None, int(rng.choice((-1, 1))))
        image, label = (np.rot90(whole[window], turns)[flip] for whole in (self.images, self.labels))
        return np.ascontiguousarray(image), label


def render_pool(folder: Path, count: int, processes: int) -> None:
    """Render `count` training scenes into images.npy and labels.npy of a folder."""
    if count > len(TRAIN_SEEDS):
        raise BenchError(f"--scenes {count}: there are {len(TRAIN_SEEDS)} training seeds")
    folder.mkdir(parents=True, exist_ok=True)
    images = np.lib.format.open_memmap(folder / "images.part.npy", "w+", np.uint8, (count, SIDE, SIDE, 3))
    labels = np.lib.format.open_memmap(folder / "labels.part.npy", "w+", np.uint8, (count, SIDE, SIDE))
    with multiprocessing.get_context("spawn").Pool(processes) as workers:
        drawn = workers.imap(_render, TRAIN_SEEDS[:count], chunksize=16)
        for index, (image, label) in enumerate(tqdm(drawn, "rendering", count, mininterval=10)):
            images[index], labels[index] = image, label
    for name in ("images", "labels"):
        (folder / f"{name}.part.npy").replace(folder / f"{name}.npy")


def load_pool(folder: Path, count: int, processes: int, seed: int) -> Pool:
    """Return the scenes of a folder, rendered first where they are not there."""
    if not (folder / "labels.npy").exists():
        render_pool(folder, count, processes)
    images, labels = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("images", "labels"))
    return Pool(images, labels, seed)


def _render(seed: int) -> tuple[Image, Label]:
    cv2.setNumThreads(1)
    return scene(seed, SIDE, KINDS[seed % len(KINDS)], false_colour=seed % _FALSE_COLOUR == 0)
