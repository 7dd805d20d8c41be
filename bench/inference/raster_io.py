"""Images that are read window by window, and label maps that are written strip by strip."""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from bench.data.images import read_image
from bench.errors import BenchError, writing
from bench.inference.visualize import Style, overlay_png, palette_png
from bench.models.collector import Box
from bench.runtime.atomic import write_atomic
from bench.settings import IGNORED

_PIXEL_SCALE, _TRANSFORMATION, _NODATA, _SAMPLES_PER_PIXEL = 33550, 34264, 42113, 277  # tags of (Geo)TIFF
OVERLAY_SIDE = 4096  # pixels; an overlay is a picture to look at, so a larger one is thinned out
TIFF = (".tif", ".tiff")


class Raster(Protocol):
    """An image, RGB, 8 bits a channel."""

    height: int
    width: int

    def read(self, box: Box) -> NDArray[np.uint8]:
        """RGB uint8 (h, w, 3) of a part."""

    def empty(self, box: Box) -> NDArray[np.bool_] | None:
        """Where a part (h, w) holds no data: nodata or transparent. None where all of it does hold some."""


class DecodedImage:
    """A raster that is in memory as a whole. empty: where it holds no data, (H, W)."""

    def __init__(self, pixels: NDArray[np.uint8], empty: NDArray[np.bool_] | None = None) -> None:
        self._pixels, self._empty = pixels, empty
        self.height, self.width = pixels.shape[:2]

    def read(self, box: Box) -> NDArray[np.uint8]:
        return self._pixels[box.top : box.bottom, box.left : box.right]

    def empty(self, box: Box) -> NDArray[np.bool_] | None:
        return None if self._empty is None else self._empty[box.top : box.bottom, box.left : box.right]


class _TiffFile:
    """A raster on the disk; rasterio decodes the blocks that a part touches and keeps some of them."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self.height, self.width = dataset.height, dataset.width
        self._bands = [1, 2, 3] if dataset.count >= 3 else [1, 1, 1]

    def read(self, box: Box) -> NDArray[np.uint8]:
        try:
            bands = self._dataset.read(self._bands, window=((box.top, box.bottom), (box.left, box.right)))
        except OSError as error:
            raise BenchError(f"{self._dataset.name}: cannot be decoded ({error}); get the file again") from None
        return np.ascontiguousarray(bands.transpose(1, 2, 0))

    def empty(self, box: Box) -> NDArray[np.bool_] | None:
        mask = self._dataset.dataset_mask(window=((box.top, box.bottom), (box.left, box.right))) == 0
        return mask if mask.any() else None


@contextlib.contextmanager
def open_raster(path: Path) -> Iterator[Raster]:
    """Open an image for reading in parts.

    A TIFF is read from the disk where rasterio is installed, anything else is decoded as a whole.

    Raises BenchError as `read_image` does.
    """
    with contextlib.ExitStack() as stack:
        file = _open_tiff(path) if path.suffix.lower() in TIFF and importlib.util.find_spec("rasterio") else None
        if file is None:
            yield decoded(path)
        else:
            yield _TiffFile(stack.enter_context(file))


_UNREADABLE = (OSError, ValueError, Image.DecompressionBombError)  # `read_image` says what is wrong


def decoded(path: Path) -> DecodedImage:
    """Decode an image, with its alpha channel or nodata value. Raises BenchError as `read_image` does."""
    pixels = read_image(path)
    return DecodedImage(pixels, _empty(path, pixels))


def is_georeferenced(path: Path) -> bool:
    """Return whether the file is a GeoTIFF: has the tags that tie pixels to places."""
    with contextlib.suppress(*_UNREADABLE), _header(path) as image:
        return bool({_PIXEL_SCALE, _TRANSFORMATION} & set(getattr(image, "tag_v2", ())))
    return False


def dropped_bands(path: Path) -> str | None:
    """Say in one line which of the file's bands are not looked at; None for none."""
    with contextlib.suppress(*_UNREADABLE):
        with _header(path) as image:
            count = image.tag_v2.get(_SAMPLES_PER_PIXEL, 3) if hasattr(image, "tag_v2") else len(image.getbands())
            alpha = "A" in image.getbands()
        if count > 3 + alpha:
            return f"{count} bands, of which the first three are taken as red, green and blue"
    return None


@contextlib.contextmanager
def _header(path: Path) -> Iterator[Any]:
    """Open an image whose pixels are not asked for, without Pillow's warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as image:
            yield image


def _empty(path: Path, pixels: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    with contextlib.suppress(*_UNREADABLE), _header(path) as image:
        nodata = getattr(image, "tag_v2", {}).get(_NODATA)
        if image.getbands()[-1] == "A" or "transparency" in image.info:
            alpha = np.asarray(ImageOps.exif_transpose(image).convert("RGBA").getchannel("A"))
            return alpha == 0 if (alpha == 0).any() and alpha.shape == pixels.shape[:2] else None
        if nodata is not None:
            found = (pixels == float(str(nodata).strip("\0 "))).all(axis=2)
            return found if found.any() else None
    return None


def _open_tiff(path: Path) -> Any:
    """Return the open file, or None where it is not plain 8-bit bands, which OpenCV may know."""
    import rasterio
    from rasterio.enums import ColorInterp

    try:
        file = _quietly(rasterio.open, path)
    except rasterio.errors.RasterioIOError:
        return None
    plain = set(file.dtypes) == {"uint8"} and ColorInterp.palette not in file.colorinterp
    if plain and file.count in (1, 3, 4):
        return file
    file.close()
    return None


class LabelWriter:
    """Label map and overlay of one image, from strips that come from top to bottom.

    A .png is kept in memory (a byte a pixel) until the end; a .tif is written as it comes, with the coordinate
    system and transform of the image if that has any. Beside it goes NAME_overlay.png, with a legend, of every
    n-th pixel so that its sides are at most 4096. Either file has its name only when it is whole. 255: pixels without
    data.

    Raises BenchError when something cannot be written, or a .tif is asked for without rasterio.
    """

    def __init__(self, target: Path, source: Path, raster: Raster, names: Sequence[str], style: Style):
        self.target = target
        self._part = target.with_name(f".{target.stem}.part{target.suffix}")
        self._raster, self._names, self._style = raster, names, style
        self._step = -(-max(raster.height, raster.width) // OVERLAY_SIDE)
        self._row = 0
        self._strips: list[NDArray[np.uint8]] = []
        self._thin_labels: list[NDArray[np.uint8]] = []
        self._thin_pixels: list[NDArray[np.uint8]] = []
        self._tiff = self._create(source) if target.suffix.lower() in TIFF else None

    def add(self, labels: NDArray[np.uint8]) -> None:
        """Add the next rows (h, width)."""
        top, self._row = self._row, self._row + len(labels)
        if self._tiff is None:
            self._strips.append(labels)
        else:
            with writing(f"-o {self.target}"):
                self._tiff.write(labels, 1, window=((top, self._row), (0, self._raster.width)))
        pixels = self._raster.read(Box(top, 0, self._row, self._raster.width))
        first = -top % self._step  # of the rows that the overlay shows
        self._thin_labels.append(labels[first :: self._step, :: self._step])
        self._thin_pixels.append(pixels[first :: self._step, :: self._step].copy())

    def finish(self) -> None:
        """Put everything on the disk."""
        overlay = overlay_png(
            np.concatenate(self._thin_pixels), np.concatenate(self._thin_labels), self._names, self._style
        )
        with writing(f"-o {self.target}"):
            if self._tiff is None:
                self._part.write_bytes(palette_png(np.concatenate(self._strips), self._style.of(len(self._names))))
            else:
                self._tiff.close()
            write_atomic(self.target.with_name(f"{self.target.stem}_overlay.png"), overlay)
            self._part.replace(self.target)

    def abandon(self) -> None:
        """Remove what is left of a map that did not become whole."""
        if self._tiff is not None:
            self._tiff.close()
        self._part.unlink(missing_ok=True)

    def _create(self, source: Path) -> Any:
        try:
            import rasterio
        except ImportError:
            raise BenchError(
                f"{self.target}: writing a GeoTIFF needs rasterio; pip install 'ovss-bench[geo]' or write a .png"
            ) from None
        profile: dict[str, Any] = {"nodata": IGNORED, "tiled": True, "blockxsize": 256, "blockysize": 256}
        profile |= {"driver": "GTiff", "count": 1, "dtype": "uint8", "compress": "deflate", "bigtiff": "if_safer"}
        with contextlib.suppress(rasterio.errors.RasterioIOError), _quietly(rasterio.open, source) as reference:
            profile |= {"crs": reference.crs, "transform": reference.transform}
        with writing(f"-o {self.target}"):
            tiff = _quietly(
                rasterio.open, self._part, "w", height=self._raster.height, width=self._raster.width, **profile
            )
        tiff.write_colormap(1, dict(enumerate(self._style.of(len(self._names)))))
        return tiff


def _quietly(function: Any, *arguments: Any, **named: Any) -> Any:
    """Without rasterio's warning that an image has no georeference."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments, **named)
