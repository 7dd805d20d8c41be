"""Datasets on disk for the tests: generated ones, and the real samples laid out as the downloads are."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.data.cards import Card, load_card
from bench.data.samples import SampleSet
from bench.data.schema import Tiling

SHARED = Path(__file__).resolve().parents[2] / "shared"
needs_samples = pytest.mark.beside("samples")

_ISAID_MASKS = "iSAID/val/Semantic_masks/images"

# sample file -> where the dataset has such a file; names are ones of the evaluated split
_PLACES = {
    "loveda/image/0.png": "LoveDA/Val/Rural/images_png/2522.png",
    "loveda/label/0.png": "LoveDA/Val/Rural/masks_png/2522.png",
    "loveda/image/1.png": "LoveDA/Val/Rural/images_png/2523.png",
    "loveda/label/1.png": "LoveDA/Val/Rural/masks_png/2523.png",
    "isaid/image/P0003.png": "iSAID/val/images/images/P0003.png",
    "isaid/label/P0003_instance_color_RGB.png": f"{_ISAID_MASKS}/P0003_instance_color_RGB.png",
    "isaid/image/P0005.png": "iSAID/val/images/images/P0005.png",
    "isaid/label/P0005_instance_color_RGB.png": f"{_ISAID_MASKS}/P0005_instance_color_RGB.png",
    "potsdam/image/2_10_0_0_512_512.png": "potsdam/img_dir/val/2_13_0_0_512_512.png",
    "potsdam/label/2_10_0_0_512_512.png": "potsdam/ann_dir/val/2_13_0_0_512_512.png",
    "vaihingen/image/area1_0_0_512_512.png": "vaihingen/img_dir/val/area2_0_0_512_512.png",
    "vaihingen/label/area1_0_0_512_512.png": "vaihingen/ann_dir/val/area2_0_0_512_512.png",
    "whu_aerial/image/2_102.tif": "WHU-BD/val/image/2_102.tif",
    "whu_aerial/label/2_102.tif": "WHU-BD/val/label/2_102.tif",
    "whu_aerial/image/2_1133.tif": "WHU-BD/val/image/2_1133.tif",
    "whu_aerial/label/2_1133.tif": "WHU-BD/val/label/2_1133.tif",
    "massachusetts_road/image/11278720_15.jpg": "GlobalRoadSet_Val/Massachusetts_test_49/img/11278720_15.jpg",
    "massachusetts_road/label/11278720_15.png": "GlobalRoadSet_Val/Massachusetts_test_49/gt/11278720_15.png",
    "wbs_si/image/out0.png": "WBS-SI/Images/water_body_2396.jpg",
    "wbs_si/label/out0.png": "WBS-SI/Masks/water_body_2396.jpg",
    "wbs_si/image/out1.png": "WBS-SI/Images/water_body_1074.jpg",
    "wbs_si/label/out1.png": "WBS-SI/Masks/water_body_1074.jpg",
    "wbs_si/image/out2.png": "WBS-SI/Images/water_body_2182.jpg",
    "wbs_si/label/out2.png": "WBS-SI/Masks/water_body_2182.jpg",
} | {
    f"deepglobe_road/{kind}/{name}": f"GlobalRoadSet_Val/DeepGlobe_test_1530/{folder}/{name}"
    for kind, folder, suffix in (("image", "img", "sat.jpg"), ("label", "gt", "mask.png"))
    for name in (f"{n}_{suffix}" for n in (104, 343, 1945))
}


def lay_out_samples(root: Path) -> None:
    """Put the real samples below a data root: loveda, isaid, potsdam and vaihingen (converted), whu_aerial,
    deepglobe_road, massachusetts_road and wbs_si."""
    for sample, place in _PLACES.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(SHARED / "samples" / sample, root / place)


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
