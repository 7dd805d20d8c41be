"""Label maps as polygons, in a GeoPackage or as GeoJSON."""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.maps.legend import Legend, polygon_style
from bench.maps.scene import Place, quietly
from bench.maps.spec import Outlines
from bench.settings import IGNORED

_ROWS: Final = 4096  # of a map whose confidences are added up at once
CLASS: Final = "class"
"""Column with the name of a polygon's class."""


@dataclass(frozen=True)
class Polygons:
    """Regions of a map, one entry each: shape, number of its class, area in m², mean probability of its class."""

    shapes: NDArray[Any]
    classes: NDArray[np.int32]
    areas: NDArray[np.float64]
    confidences: NDArray[np.float64]


def check_polygons(place: Place | None, size: tuple[int, int], formats: Sequence[str]) -> None:
    """Raise ValueError where the map of a scene (height, width) cannot become polygons."""
    if place is None:
        raise ValueError("lies nowhere on Earth, so it has no polygons; leave --format gpkg and geojson out")
    place.pixel(*size)
    if "geojson" in formats:
        from rasterio.warp import transform

        x, y = place.at(size[1] / 2, size[0] / 2)
        try:
            transform(place.crs, "EPSG:4326", [x], [y])
        except Exception:  # rasterio raises what GDAL says by classes of its own
            raise ValueError("has no longitude and latitude, which GeoJSON wants; take --format gpkg") from None


def outlined(labels: NDArray[np.uint8], bins: NDArray[np.uint8], place: Place, outlines: Outlines) -> Polygons:
    """Find the regions of a label map (H, W).

    bins: probability of each pixel's class in hundredths (H, W).
    """
    import shapely
    from rasterio.features import shapes, sieve

    across, down = place.pixel(*labels.shape)
    held = labels != IGNORED
    smallest = min(
        math.ceil(outlines.min_area / (across * down) - 1e-6), labels.size - 1
    )  # pixels; sieve takes no more
    if smallest > 1:
        labels = np.where(held, sieve(labels, smallest, mask=held), labels)
    found = [(shapely.geometry.shape(one), int(value)) for one, value in shapes(labels, held, 4)]
    regions = np.array([one for one, _ in found], dtype=object)  # in pixels
    pixels, confidences = _measured(regions, bins)
    if outlines.simplify and len(regions):
        # neighbours share a border when both have all corners on it: one at each pixel
        cornered = shapely.transform(shapely.segmentize(regions, 1.0), np.rint)
        regions = shapely.coverage_simplify(cornered, outlines.simplify / math.sqrt(across * down))
    placed = shapely.transform(regions, lambda points: np.stack(place.at(points[:, 0], points[:, 1]), axis=1))
    return Polygons(placed, np.array([value for _, value in found], np.int32), pixels * across * down, confidences)


def _measured(regions: NDArray[Any], bins: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the number of pixels and mean probability of each region, whose borders are those of pixels."""
    import shapely
    from rasterio.features import rasterize
    from rasterio.transform import Affine

    count, total = np.zeros(len(regions) + 1), np.zeros(len(regions) + 1)
    bounds = shapely.bounds(regions) if len(regions) else np.empty((0, 4))
    for top in range(0, len(bins), _ROWS):
        part = bins[top : top + _ROWS]
        here = np.flatnonzero((bounds[:, 3] > top) & (bounds[:, 1] < top + len(part)))
        if len(here):
            numbered = ((regions[number], number + 1) for number in here)
            numbers = rasterize(numbered, part.shape, transform=Affine.translation(0, top), dtype="int32").ravel()
            count += np.bincount(numbers, minlength=len(count))
            total += np.bincount(numbers, part.ravel() / 100 + 0.005, minlength=len(count))
    return count[1:], total[1:] / np.maximum(count[1:], 1)


def write_polygons(  # noqa: PLR0913 (all that a file holds)
    file: Path, driver: str, polygons: Polygons, legend: Legend, place: Place, about: str, date: str
) -> None:
    """Write polygons with class, number, area and confidence; a GeoPackage brings its QGIS style.

    driver: "GPKG" or "GeoJSON", which is in longitude and latitude, as its standard wants.
    about: metadata of the layer.
    date: of the file, such as "2026-01-31T00:00:00.000Z", so that equal maps make equal files.
    """
    import pyogrio
    import shapely

    names = np.array(legend.names, dtype=object)
    with _dated(date), _failing_as_files_do():
        quietly(  # of the name of a file that is not whole yet
            pyogrio.raw.write,
            file,
            np.array(shapely.to_wkb(polygons.shapes), dtype=object),
            [names[polygons.classes], polygons.classes, polygons.areas.round(3), polygons.confidences.round(4)],
            [CLASS, "number", "area_m2", "confidence"],
            layer="map",
            driver=driver,
            geometry_type="Unknown",  # simplified ones may come apart
            crs=None if place.crs is None else place.crs.to_wkt(),
            layer_metadata={"OVSS_BENCH": about} if driver == "GPKG" else None,
            layer_options={} if driver == "GPKG" else {"RFC7946": "YES", "DESCRIPTION": about},
        )
        if driver == "GPKG":
            _add_style(file, polygon_style(legend, CLASS).decode(), date)


@contextlib.contextmanager
def _failing_as_files_do() -> Iterator[None]:
    """Turn what GDAL and SQLite raise where a disk is full or a folder gone into an OSError."""
    try:
        yield
    except (RuntimeError, sqlite3.Error) as error:
        raise OSError(str(error)) from None


@contextlib.contextmanager
def _dated(date: str) -> Iterator[None]:
    import pyogrio

    before = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": date})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": before})


def _add_style(file: Path, style: str, date: str) -> None:
    """Put a style where QGIS looks for the default one of a layer of a GeoPackage."""
    columns = {
        "f_table_catalog": "", "f_table_schema": "", "f_table_name": "map", "f_geometry_column": "geom",
        "styleName": "map", "styleQML": style, "styleSLD": "", "useAsDefault": 1, "description": "",
        "owner": "", "ui": None, "update_time": date,
    }  # fmt: skip
    with contextlib.closing(sqlite3.connect(file)) as database, database:
        database.execute(
            "CREATE TABLE layer_styles (id INTEGER PRIMARY KEY AUTOINCREMENT, f_table_catalog TEXT, "
            "f_table_schema TEXT, f_table_name TEXT, f_geometry_column TEXT, styleName TEXT, styleQML TEXT, "
            "styleSLD TEXT, useAsDefault BOOLEAN, description TEXT, owner TEXT, ui TEXT, update_time DATETIME)"
        )
        database.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, last_change) VALUES (?, ?, ?, ?)",
            ("layer_styles", "attributes", "layer_styles", date),
        )
        marks = ", ".join("?" * len(columns))
        database.execute(f"INSERT INTO layer_styles ({', '.join(columns)}) VALUES ({marks})", [*columns.values()])
