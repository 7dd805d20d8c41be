"""Masks drawn from lines in geographic coordinates: roads of SpaceNet's official release.

Needs neither GDAL nor a projection library: the tiles are north-up in WGS 84, and so are the lines.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.errors import BenchError

_PIXEL_SCALE, _TIE_POINT = 33550, 33922  # GeoTIFF tags
_METRES_A_DEGREE = 111_320.0  # of latitude


def draw_lines(geojson: bytes, geotiff: bytes, width_m: float, name: str) -> NDArray[np.uint8]:
    """Mask (H, W) uint8 on a GeoTIFF's grid: 1 where a pixel's centre is within half the width of a line.

    A pixel counts as square, with its north-south size: lines in masks like these are so many pixels wide in
    any direction.

    Raises BenchError for a file that is no GeoJSON, or an image without a georeference.
    """
    (height, width), (left, top), (dx, dy) = _grid(geotiff, name)
    radius = width_m / 2 / (dy * _METRES_A_DEGREE)  # pixels
    mask = np.zeros((height, width), np.uint8)
    for line in _lines(geojson, name):
        points = (np.array(line, np.float64)[:, :2] - (left, top)) / (dx, -dy)  # (points, 2): x, y in pixels
        for start, end in pairwise(points):
            _draw_segment(mask, start, end, radius)
    return mask


def _draw_segment(mask: NDArray[np.uint8], start: NDArray[np.float64], end: NDArray[np.float64], radius: float) -> None:
    size = mask.shape[::-1]
    x0, y0 = np.clip(np.floor(np.minimum(start, end) - radius), 0, size).astype(int)
    x1, y1 = np.clip(np.ceil(np.maximum(start, end) + radius), 0, size).astype(int)
    centres = np.stack(np.meshgrid(np.arange(x0, x1), np.arange(y0, y1)), axis=-1) + 0.5  # (h, w, 2)
    away, along = centres - start, end - start
    share = np.clip(away @ along / max(float(along @ along), 1e-12), 0, 1)
    near = np.square(away - share[..., None] * along).sum(axis=-1) <= radius**2
    mask[y0:y1, x0:x1][near] = 1


def _grid(geotiff: bytes, name: str) -> tuple[tuple[int, int], tuple[float, float], tuple[float, float]]:
    """(height, width), longitude and latitude of the upper left corner, degrees a pixel in x and y."""
    with Image.open(io.BytesIO(geotiff)) as image:
        tags: Any = getattr(image, "tag_v2", {})
        if _PIXEL_SCALE not in tags or _TIE_POINT not in tags:
            raise BenchError(f"{name}: its image has no georeference, so no lines can be drawn; get the GeoTIFF")
        dx, dy, *_ = tags[_PIXEL_SCALE]
        column, row, _, longitude, latitude, *_ = tags[_TIE_POINT]
        corner = (longitude - column * dx, latitude + row * dy)
        if not (math.isfinite(dx * dy) and abs(corner[0]) <= 180 and abs(corner[1]) <= 90):
            raise BenchError(f"{name}: its image is not in degrees (WGS 84); get the tile of the official release")
        return (image.height, image.width), corner, (dx, dy)


def _lines(geojson: bytes, name: str) -> Iterator[Sequence[Sequence[float]]]:
    try:
        geometries = [feature["geometry"] for feature in json.loads(geojson)["features"]]
    except (ValueError, KeyError, TypeError):
        raise BenchError(f"{name}: not a GeoJSON collection of features; get the file again") from None
    for geometry in geometries:
        if geometry and geometry["type"] == "LineString" and geometry["coordinates"]:
            yield geometry["coordinates"]
        elif geometry and geometry["type"] == "MultiLineString":
            yield from filter(None, geometry["coordinates"])
