"""The files of one map: GeoTIFF, PNG, polygons, probabilities and an overlay, each there whole or not at all."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.errors import BenchError, writing
from bench.inference.visualize import Style, overlay_png, palette_png
from bench.maps.legend import Legend, auxiliary_file, polygon_style, raster_style
from bench.maps.polygons import outlined, write_polygons
from bench.maps.scene import Place, Scene, quietly
from bench.maps.spec import FORMATS, POLYGONS, Depth, Outlines
from bench.models.collector import Box
from bench.runtime.atomic import replacing, write_asked, write_atomic
from bench.settings import IGNORED

OVERLAY_SIDE: Final = 4096  # pixels; an overlay is a picture to look at, so a larger one is thinned out
WORLD: Final = ".pgw"  # beside a PNG that lies somewhere
CONTINUES: Final = "correct that and run the same command, which continues from there"
ABOUT: Final = "OVSS_BENCH"
"""Name of the metadata that say how a map was made."""
_STEPS: Final = 254  # of 8-bit probabilities; 255 is no data


class MapStrip(NamedTuple):
    """Rows of a map.

    labels: numbers of classes, 255 where there are no data (h, W)
    bins: probability of the class before the threshold, in hundredths (h, W)
    probabilities: of every class (K, h, W), see `packed`; None where they are not asked for
    scores: (Q, h', w') float32 at the network's size; None likewise
    """

    labels: NDArray[np.uint8]
    bins: NDArray[np.uint8]
    probabilities: NDArray[Any] | None = None
    scores: NDArray[np.float32] | None = None


def packed(probabilities: NDArray[np.float32], empty: NDArray[np.bool_] | None, depth: Depth) -> NDArray[Any]:
    """Probabilities (K, h, W) as they are kept: uint8 or float16."""
    if depth == "8bit":
        found: NDArray[Any] = (probabilities * _STEPS + 0.5).astype(np.uint8)
        nothing: Any = np.uint8(255)
    else:
        found, nothing = probabilities.astype(np.float16), np.float16(np.nan)
    return found if empty is None else np.where(empty, nothing, found)


@dataclass(frozen=True)
class MapFiles:
    """Where a map goes, and how it looks.

    base: path without an ending. formats: keys of FORMATS; the first is the map's file. about: how it was made, put
    into the map's metadata; its entry `key` tells whether a map is the one that is asked for. date: of the scene.
    """

    base: Path
    formats: Sequence[str]
    legend: Legend
    style: Style
    about: Mapping[str, Any]
    date: str
    outlines: Outlines
    depth: Depth | None = None
    scores: Path | None = None

    def file(self, ending: str) -> Path:
        """Path of one of the files."""
        return self.base.with_name(self.base.name + ending)

    @property
    def main(self) -> Path:
        """The file in the first format."""
        return self.file(FORMATS[self.formats[0]])

    def all(self) -> list[Path]:
        """List the files of every format, the overlay and the probabilities."""
        endings = [*(FORMATS[one] for one in self.formats), "_overlay.png"]
        endings += ["_probabilities.tif"] if self.depth else []
        return [*map(self.file, endings), *([self.scores] if self.scores else [])]

    def is_there(self) -> bool:
        """Return whether a map that was made in the same way of the same scene is complete."""
        return all(file.is_file() for file in self.all()) and _key(self.main) == self.about["key"]

    def write(self, strips: Iterator[MapStrip], scene: Scene, work: Path) -> None:
        """Write all files.

        strips: from top to bottom. work: a folder for what is needed on the way. BenchError for what cannot be written.
        """
        writer = _Writer(self, scene, work)
        with writing(f"-o {self.main}", CONTINUES), contextlib.closing(writer):
            for strip in strips:
                writer.add(strip)
            writer.finish()


class _Writer:
    """The files of one map while they grow."""

    def __init__(self, files: MapFiles, scene: Scene, work: Path) -> None:
        self._files, self._scene, self._work = files, scene, work
        self._text = json.dumps(files.about, sort_keys=True)
        self._row = 0
        self._step = -(-max(scene.height, scene.width) // OVERLAY_SIDE)
        self._thin: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]] = []
        self._kept: list[MapStrip] = []  # for formats that need all of a map in memory
        self._in_memory = files.scores is not None or any(one != "tif" for one in files.formats)
        labels: dict[str, Any] = {"dtype": "uint8", "count": 1, "nodata": IGNORED}
        self._tif = self._create("labels", **labels) if "tif" in files.formats else None
        self._probabilities = self._create("probabilities", **self._kept_as()) if files.depth else None

    def add(self, strip: MapStrip) -> None:
        """Add the next rows."""
        top, self._row = self._row, self._row + len(strip.labels)
        window = ((top, self._row), (0, self._scene.width))
        if self._tif is not None:
            self._tif.write(strip.labels, 1, window=window)
        if self._probabilities is not None:
            assert strip.probabilities is not None
            wide = strip.probabilities if self._files.depth == "8bit" else strip.probabilities.astype(np.float32)
            self._probabilities.write(wide, window=window)
        if self._in_memory:
            self._kept.append(strip)
        first = -top % self._step  # of the rows that the overlay shows
        pixels = self._scene.read(Box(top, 0, self._row, self._scene.width))
        thinned = slice(first, None, self._step), slice(None, None, self._step)
        self._thin.append((pixels[thinned].copy(), strip.labels[thinned].copy()))  # the whole is not kept

    def finish(self) -> None:
        """Put everything in its place, the map itself last."""
        files, legend, place = self._files, self._files.legend, self._scene.place
        pixels, thin = (np.concatenate(some) for some in zip(*self._thin, strict=True))
        write_atomic(files.file("_overlay.png"), overlay_png(pixels, thin, legend.names, files.style))
        if self._probabilities is not None:
            self._probabilities.descriptions = tuple(legend.names)
            if files.depth == "8bit":
                self._probabilities.scales = (1 / _STEPS,) * len(legend.names)
            self._cog("probabilities", self._probabilities, files.file("_probabilities.tif"), "average")
        if files.scores is not None:
            buffer = io.BytesIO()
            scores = np.concatenate([strip.scores for strip in self._kept if strip.scores is not None], axis=1)
            np.savez(buffer, scores=scores, labels=self._whole("labels"))
            write_asked(files.scores, buffer.getvalue(), f"--scores {files.scores}")
        for one in reversed(files.formats):
            if one == "tif":
                assert self._tif is not None
                self._tif.write_colormap(1, dict(enumerate(legend.colours)))
                write_atomic(files.file(".tif.aux.xml"), auxiliary_file(legend))
                write_atomic(files.file(".qml"), raster_style(legend))
                self._cog("labels", self._tif, files.file(".tif"), "mode")
            elif one == "png":
                if place is not None:
                    write_atomic(files.file(".png.aux.xml"), auxiliary_file(legend, place))
                    write_atomic(files.file(WORLD), _world_file(place))
                text = {ABOUT: self._text}
                write_atomic(files.file(".png"), palette_png(self._whole("labels"), legend.colours, text))
            else:
                assert place is not None
                found = outlined(self._whole("labels"), self._whole("bins"), place, files.outlines)
                if one == "geojson" and "tif" not in files.formats:
                    write_atomic(files.file(".qml"), polygon_style(legend, "class"))
                with replacing(files.file(FORMATS[one])) as temporary:
                    write_polygons(temporary, POLYGONS[one], found, legend, place, self._text, files.date)

    def close(self) -> None:
        """Close what is open, and remove what was needed on the way."""
        for file in (self._tif, self._probabilities):
            if file is not None:
                file.close()
                Path(file.name).unlink(missing_ok=True)

    def _whole(self, what: str) -> NDArray[np.uint8]:
        return np.concatenate([getattr(strip, what) for strip in self._kept])

    def _kept_as(self) -> dict[str, Any]:
        """Return how GDAL keeps probabilities; it has no half precision of its own before 3.11, but stores its bits."""
        if self._files.depth == "8bit":
            return {"dtype": "uint8", "count": len(self._files.legend.names), "nodata": 255, "interleave": "band"}
        count = len(self._files.legend.names)
        return {"dtype": "float32", "nbits": 16, "count": count, "nodata": float("nan"), "interleave": "band"}

    def _create(self, name: str, **profile: Any) -> Any:
        try:
            import rasterio
        except ImportError:
            raise BenchError(
                f"{self._files.main}: writing a GeoTIFF needs rasterio; pip install 'ovss-bench[geo]' or write a .png"
            ) from None
        place = self._scene.place
        if place is not None:
            profile |= {"crs": place.crs, "transform": place.transform}
        profile |= {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", "bigtiff": "if_safer"}
        size = {"height": self._scene.height, "width": self._scene.width}
        file = quietly(
            rasterio.open, self._work / f"{self._files.base.name}.{name}.tif", "w", "GTiff", **size, **profile
        )
        file.update_tags(**{ABOUT: self._text, "AREA_OR_POINT": "Area"})
        return file

    def _cog(self, name: str, file: Any, target: Path, overviews: str) -> None:
        """Turn a plain file into a cloud-optimised one, with overviews, at its place."""
        import rasterio.shutil

        file.close()
        options: dict[str, Any] = {"compress": "DEFLATE", "blocksize": 512, "bigtiff": "IF_SAFER"}
        if name == "probabilities" and self._files.depth == "float16":
            options["nbits"] = 16
        # what GDAL needs on the way is in the work folder too, where a killed process leaves it for the next one
        with replacing(target) as temporary, rasterio.Env(CPL_TMPDIR=str(self._work)):
            rasterio.shutil.copy(file.name, temporary, driver="COG", overview_resampling=overviews, **options)


def _world_file(place: Place) -> bytes:
    """Write the six lines that tie the centre of a picture's first pixel to a place."""
    one = place.transform
    return "".join(f"{value:.17g}\n" for value in (one.a, one.d, one.b, one.e, *place.at(0.5, 0.5))).encode()


def _key(file: Path) -> str | None:
    """Return the key of how a map was made; None for any other file."""
    with contextlib.suppress(Exception):  # a file of somebody else: whatever is wrong with it, it is not this map
        if file.suffix == ".png":
            with Image.open(file) as picture:
                text = picture.info[ABOUT]
        elif file.suffix == ".tif":
            import rasterio

            with quietly(rasterio.open, file) as opened:
                text = opened.tags()[ABOUT]
        elif file.suffix == ".geojson":
            with file.open(encoding="utf-8") as lines:
                text = json.loads(
                    next(line for line in lines if '"description"' in line).rstrip(",\n").partition(":")[2]
                )
        else:
            import pyogrio

            text = pyogrio.read_info(file, layer="map")["layer_metadata"][ABOUT]
        return str(json.loads(text)["key"])
    return None
