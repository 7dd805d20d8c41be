"""Encoded images, georeferenced ones, and GeoJSON lines on them."""

from __future__ import annotations

import io
import json

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2


def encoded(pixels, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels))).save(buffer, kind, **options)
    return buffer.getvalue()


def georeferenced(
    height: int, width: int, scale: float = 3e-6, longitude: float = 10.0, latitude: float = 50.0
) -> bytes:
    info = ImageFileDirectory_v2()
    info[33550] = (scale, scale, 0.0)
    info[33922] = (0.0, 0.0, 0.0, longitude, latitude, 0.0)
    return encoded(np.zeros((height, width, 3), np.uint8), "TIFF", tiffinfo=info)


def features(*geometries) -> bytes:
    return json.dumps({"features": [{"geometry": geometry} for geometry in geometries]}).encode()


def line(*points, scale: float = 3e-6) -> dict:
    """A line through points in pixels of `georeferenced`."""
    return {"type": "LineString", "coordinates": [[10 + x * scale, 50 - y * scale] for x, y in points]}
