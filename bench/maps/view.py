"""Which scenes are asked for, and how they are looked at: bands, levels, resolution and part."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError, reading

PHOTOGRAPHS: Final = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
"""Endings of images that are decoded as a whole unless they are georeferenced."""
_ENDINGS: Final = (".tif", ".tiff", ".vrt", ".jp2", ".j2k", *PHOTOGRAPHS)


class Levels(NamedTuple):
    """Values of each of the three bands that become 0 and 255."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    def apply(self, bands: NDArray[Any]) -> NDArray[np.uint8]:
        """(3, h, w) of any number type -> uint8."""
        low, high = (np.asarray(values, np.float32)[:, None, None] for values in self)
        scaled = (bands.astype(np.float32) - low) * (255 / np.maximum(high - low, np.finfo(np.float32).tiny))
        found: NDArray[np.uint8] = np.clip(np.nan_to_num(scaled) + 0.5, 0, 255).astype(np.uint8)
        return found


class Area(NamedTuple):
    """The part of the Earth that is asked for. shapes: GeoJSON geometries. crs: of their coordinates."""

    shapes: tuple[Mapping[str, Any], ...]
    crs: str

    @classmethod
    def read(cls, file: Path) -> Area:
        """Read a GeoJSON file of polygons. BenchError for what is none."""
        advice = "give a GeoJSON file of polygons"
        with reading(f"--mask {file}", advice):
            text = file.read_text(encoding="utf-8-sig")
        try:
            content = json.loads(text)
            found = [content.get("geometry", content)] if content["type"] != "FeatureCollection" else []
            found += [feature["geometry"] for feature in content.get("features", ())]
            named = (content.get("crs") or {}).get("properties", {}).get("name", "EPSG:4326")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise BenchError(f"--mask {file}: no GeoJSON; {advice}") from None
        shapes = [shape for shape in found if shape]
        if not shapes or any(shape.get("type") not in ("Polygon", "MultiPolygon") for shape in shapes):
            raise BenchError(f"--mask {file}: holds no polygons, or other shapes as well; {advice}")
        return cls(tuple(shapes), "EPSG:4326" if "CRS84" in named else named)


@dataclass(frozen=True)
class View:
    """How scenes are looked at.

    bands: which are red, green and blue, from 1; None: the first three, or the one there is.
    levels: what becomes 0 and 255; None: 8-bit values as they are.
    gsd: metres a pixel to which scenes are resampled; None: their own.
    bounds: left, bottom, right, top in the scene's coordinates; None: all of it.
    area: outside of which nothing is computed.
    """

    bands: tuple[int, int, int] | None = None
    levels: Levels | None = None
    gsd: float | None = None
    bounds: tuple[float, float, float, float] | None = None
    area: Area | None = None

    @property
    def needs_gdal(self) -> bool:
        """Whether only rasterio can give it."""
        return self != View()


AS_IT_IS: Final = View()


def chosen_bands(count: int, bands: tuple[int, int, int] | None) -> tuple[int, int, int]:
    """Bands that are red, green and blue, of so many. ValueError for one that is not there."""
    if bands is None:
        return (1, 2, 3) if count >= 3 else (1, 1, 1)
    if max(bands) > count:
        raise ValueError(f"has {count} bands, so none is number {max(bands)}; correct --bands")
    return bands


def scene_files(inputs: Sequence[str]) -> list[Path]:
    """List the images that inputs name: files, folders of images, and patterns. BenchError for what names nothing."""
    found: dict[Path, None] = {}
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            some = [file for file in sorted(path.iterdir()) if _is_image(file)]
            if not some:
                raise BenchError(f"{given}: no images in this folder; give one of {', '.join(_ENDINGS)}")
        elif not path.is_file() and any(sign in given for sign in "*?["):
            some = sorted(file for file in Path(path.anchor).glob(str(path.relative_to(path.anchor))) if file.is_file())
            if not some:
                raise BenchError(f"{given}: matches no file; check the pattern")
        else:
            some = [path]
        for file in some:
            if not file.is_file():
                raise BenchError(f"{file}: no such image; check the path")
            if any("\ud800" <= sign <= "\udfff" for sign in str(file)):  # GDAL wants UTF-8
                raise BenchError(f"{str(file)!r}: its name is no UTF-8; rename it")
            found[file] = None
    return list(found)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in _ENDINGS and not file.name.startswith(".") and file.is_file()
