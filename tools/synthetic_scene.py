"""A rendered town as a satellite delivers one, to try `predict` with: ``python -m tools.synthetic_scene town.tif``.

A GeoTIFF of 1000 × 1400 pixels of half a metre, 16 bits, four bands (blue, green, red, near infrared), with a corner
without data. ``--picture FILE`` draws the picture of docs/maps.md: the scene, and its map by the demo's CLIP.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import rasterio
from PIL import Image
from rasterio.transform import from_origin

from bench.cli import main as bench
from bench.demo.render.scenes import scene
from bench.maps.scene import open_scene
from bench.maps.stretch import levels_of
from bench.maps.view import View
from bench.models.collector import Box

SIZE: Final = (1000, 1400)
WORDS: Final = "grass; road; building; tree; water; bareland"
COLOURS: Final = ("#8fbf5f", "#6b6b6b", "#d0503c", "#2f6f3a", "#3a6fd0", "#d8c48a")


def write_town(file: Path, size: tuple[int, int] = SIZE, seed: int = 3) -> None:
    """Render a town and write it as a GeoTIFF."""
    rgb, labels = scene(seed, size, "town")
    red, green, blue = (rgb[..., band].astype(np.uint16) * 11 + 180 for band in range(3))
    green_things = np.isin(labels, np.unique(labels[(rgb[..., 1] > rgb[..., 0]) & (rgb[..., 1] > rgb[..., 2])]))
    infrared = np.where(green_things, 3 * green, green).astype(np.uint16)
    bands = np.stack([blue, green, red, infrared])
    down, across = np.mgrid[: size[0], : size[1]]
    bands[:, down + across < size[0] // 3] = 0  # where the satellite did not look
    place = {"crs": "EPSG:25832", "transform": from_origin(565_000, 5_930_000, 0.5, 0.5), "nodata": 0}
    with rasterio.open(file, "w", "GTiff", size[1], size[0], 4, dtype="uint16", compress="deflate", **place) as written:
        written.write(bands)


def draw(file: Path) -> None:
    """Draw the scene beside its map."""
    with tempfile.TemporaryDirectory() as folder:
        town, classes = Path(folder, "town.tif"), Path(folder, "classes.yaml")
        write_town(town)
        words = zip(WORDS.split("; "), COLOURS, strict=True)
        classes.write_text("\n".join(f"- {{words: {word}, colour: '{colour}'}}" for word, colour in words))
        flags = ["--demo", "--method", "segearth-ov", "--classes", str(classes), "--bands", "3,2,1", "--alpha", "1"]
        if code := bench(["predict", str(town), *flags, "-o", f"{folder}/map.tif"]):
            sys.exit(code)
        (levels,) = levels_of([town], (3, 2, 1), None)
        with open_scene(town, View((3, 2, 1), levels)) as opened:
            seen = Image.fromarray(opened.read(Box(0, 0, *SIZE)))
        drawn = Image.open(Path(folder, "map_overlay.png")).convert("RGB")
    both = Image.new("RGB", (2 * SIZE[1] + 20, drawn.height), "white")
    both.paste(seen, (0, 0))
    both.paste(drawn, (SIZE[1] + 20, 0))
    both.resize((both.width // 2, both.height // 2), Image.Resampling.LANCZOS).quantize(128).save(file, optimize=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a scene, or the picture of the docs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", help="of the scene")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the picture of docs/maps.md")
    args = parser.parse_args(arguments)
    if args.file:
        write_town(args.file)
    if args.picture:
        draw(args.picture)


if __name__ == "__main__":
    main()
