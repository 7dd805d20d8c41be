"""Generated datasets on disk for the tests."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.data.cards import Card, load_card
from bench.data.samples import SampleSet
from bench.data.schema import Tiling


def scene(card: Card, height: int, width: int, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A smooth image and a label of blocks in all classes; blocks do not fit JPEG's grid of 8 pixels."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([(rows * 3 + seed) % 256, (columns * 2) % 256, (rows + columns) % 256], axis=-1)
    blocks = generator.integers(0, len(card.classes), (height // 11 + 1, width // 13 + 1))
    label = blocks.repeat(11, axis=0).repeat(13, axis=1)[:height, :width]
    return image.astype(np.uint8), label.astype(np.uint8)


def pack(folder: Path, archive: Path) -> None:
    """Replace the contents of a folder by one archive that holds them; its suffix decides on the kind."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    archive.parent.mkdir(parents=True, exist_ok=True)
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for path in files:
                packed.write(path, path.relative_to(folder).as_posix())
    else:
        with tarfile.open(archive, "w:gz" if archive.suffix == ".gz" else "w") as packed_tar:
            for path in files:
                packed_tar.add(path, path.relative_to(folder).as_posix())
    for path in files:
        path.unlink()


def small(name: str) -> Card:
    """The card with tiles of some ten pixels, so that scenes can be small."""
    card = load_card(name)
    if card.tiling is None:
        return card
    tiling = Tiling(width=56, height=48, overlap=card.tiling.overlap // 16, pad=card.tiling.pad)
    return card.model_copy(update={"tiling": tiling})


def scenes(card: Card, count: int = 2):
    return [scene(card, 60 + 8 * seed, 70 + 9 * seed, seed) for seed in range(count)]


def everything(samples: SampleSet):
    return [sample for source in range(len(samples.sources)) for sample in samples.read_source(source)]
