"""Images from folders of any kind, and random crops of them in a fixed order."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bench.data.images import read_image
from bench.errors import BenchError, reading
from bench.models.second import IMAGENET_MEAN, IMAGENET_STD
from bench.models.tower import PIXEL_MEAN, PIXEL_STD
from bench.training.seeds import Purpose, numpy_generator

SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".jp2", ".ppm"}

# Mean and deviation of the channels on the 0..255 scale. Released training has ImageNet's, inference CLIP's.
STATISTICS = {
    "imagenet": (
        tuple(255 * m for m in IMAGENET_MEAN),
        tuple(255 * s for s in IMAGENET_STD),
    ),
    "clip": (PIXEL_MEAN, PIXEL_STD),
}

Key = tuple[int, int]  # epoch, index of the image


class ImageList(NamedTuple):
    """Image files in a fixed order, and the number of other files among them."""

    paths: tuple[Path, ...]
    others: int


def find_images(folder: Path, names: Path | None = None) -> ImageList:
    """All images below `folder`, sorted; or those that the text file `names` lists, relative to it.

    Raises BenchError for a missing folder or list, and for listed files that do not exist.
    """
    if not folder.is_dir():
        raise BenchError(f"--images {folder}: no such folder; give the folder that holds the training images")
    if names is not None:
        return ImageList(_listed(folder, names), others=0)
    files = sorted(Path(root, name) for root, _, found in os.walk(folder, followlinks=True) for name in found)
    images = tuple(file for file in files if file.suffix.lower() in SUFFIXES and not file.name.startswith("."))
    return ImageList(images, len(files) - len(images))


def _listed(folder: Path, names: Path) -> tuple[Path, ...]:
    with reading(f"--images-list {names}", "give a text file, one path per line"):
        lines = names.read_text(encoding="utf-8").splitlines()
    paths = tuple(folder / line.strip() for line in lines if line.strip())
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise BenchError(
            f"--images-list {names}: {len(missing)} of {len(paths)} files do not exist below {folder}, the "
            f"first is {missing[0]}; correct the list or --images"
        )
    return paths


class Crop(NamedTuple):
    """pixels: uint8 RGB (S, S, 3), or (B, S, S, 3) of a batch. unreadable: why files were passed over."""

    pixels: Tensor
    unreadable: tuple[str, ...] = ()


class Crops(Dataset[Crop]):
    """Random crops, the same for the same seed, epoch and image.

    The released reader reseeds itself with one of 42 numbers at every item and so knows 42 places to cut;
    that is not repeated here.
    """

    def __init__(self, paths: Sequence[Path], size: int, seed: int) -> None:
        self.paths = paths
        self.size = size
        self.seed = seed

    def __getitem__(self, key: Key) -> Crop:
        """Return an image's crop in an epoch. For a file that cannot be read, the next in the list stands in."""
        epoch, index = key
        unreadable: list[str] = []
        for step in range(len(self.paths)):
            place = (index + step) % len(self.paths)
            try:
                image = read_image(self.paths[place])
            except BenchError as error:
                unreadable.append(str(error))
                continue
            crop = random_crop(image, self.size, numpy_generator(self.seed, Purpose.CROP, epoch, index))
            return Crop(torch.from_numpy(crop), tuple(unreadable))
        raise BenchError(f"none of the {len(self.paths)} training images can be read; the first: {unreadable[0]}")

    def batch(self, keys: Sequence[Key]) -> Crop:
        """Several crops, stacked."""
        return _collate([self[key] for key in keys])


def random_crop(image: NDArray[np.uint8], size: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    """(size, size, 3) from anywhere in the image; one too small is first reflected beyond its borders."""
    lacking = [(max(0, size - side),) * 2 for side in image.shape[:2]]
    padded = np.pad(image, [*lacking, (0, 0)], mode="reflect")
    top, left = (int(generator.integers(side - size + 1)) for side in padded.shape[:2])
    return np.ascontiguousarray(padded[top : top + size, left : left + size])


@dataclass(frozen=True)
class Schedule:
    """Order in which steps take images; each epoch shuffles them and leaves out what does not fill a step.

    images: how many there are
    batch: images of a process in a step
    processes: number of processes
    """

    images: int
    batch: int
    processes: int
    seed: int

    def __post_init__(self) -> None:
        if self.images < self.batch * self.processes:
            raise BenchError(
                f"{self.images} training images are fewer than a batch of {self.batch} x {self.processes} "
                "processes; give more images or a smaller --batch"
            )

    @property
    def steps_per_epoch(self) -> int:
        return self.images // (self.batch * self.processes)

    def batches(self, start: int, stop: int, rank: int) -> Iterator[list[Key]]:
        """Yield the images of process `rank` in steps start … stop - 1."""
        shuffled: dict[int, NDArray[np.int64]] = {}
        for step in range(start, stop):
            epoch, position = divmod(step, self.steps_per_epoch)
            if epoch not in shuffled:
                shuffled = {epoch: numpy_generator(self.seed, Purpose.ORDER, epoch).permutation(self.images)}
            first = (position * self.processes + rank) * self.batch
            yield [(epoch, int(index)) for index in shuffled[epoch][first : first + self.batch]]


def load_crops(crops: Crops, batches: Iterator[list[Key]], workers: int) -> Iterator[Crop]:
    """Yield a batch of crops per list of keys, in order, the same for any number of worker processes."""
    loader: Any = DataLoader(
        crops,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_collate,
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=_one_thread,
    )
    return iter(loader)


def normalise(pixels: Tensor, statistics: str, device: torch.device) -> Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in units of STATISTICS[statistics], on `device`."""
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in STATISTICS[statistics])
    return (pixels.to(device).permute(0, 3, 1, 2).float() - mean) / std


def _collate(items: Sequence[Crop]) -> Crop:
    return Crop(
        torch.stack([item.pixels for item in items]),
        tuple(line for item in items for line in item.unreadable),
    )


def _one_thread(_: int) -> None:
    cv2.setNumThreads(0)
