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

from bench.data.images import read_image
from bench.errors import BenchError
from bench.inference.visualize import Colour, overlay_png, palette_png
from bench.inference.windows import Box

OVERLAY_SIDE = 4096  # pixels; an overlay is a picture to look at, so a larger one is thinned out
TIFF = (".tif", ".tiff")


class Raster(Protocol):
    """An image, RGB, 8 bits a channel."""

    height: int
    width: int

    def read(self, box: Box) -> NDArray[np.uint8]:
        """RGB uint8 (h, w, 3) of a part."""


class DecodedImage:
    """A raster that is in memory as a whole."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self._pixels = pixels
        self.height, self.width = pixels.shape[:2]

    def read(self, box: Box) -> NDArray[np.uint8]:
        return self._pixels[box.top : box.bottom, box.left : box.right]


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


@contextlib.contextmanager
def open_raster(path: Path) -> Iterator[Raster]:
    """The image for reading in parts: a TIFF from the disk where rasterio is installed, anything else decoded as a
    whole.

    Raises BenchError as `read_image` does.
    """
    with contextlib.ExitStack() as stack:
        file = _open_tiff(path) if path.suffix.lower() in TIFF and importlib.util.find_spec("rasterio") else None
        if file is None:
            yield DecodedImage(read_image(path))
        else:
            yield _TiffFile(stack.enter_context(file))


def _open_tiff(path: Path) -> Any:
    """The open file, or None if it is none or holds something else than plain 8-bit bands, which OpenCV may know."""
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
    n-th pixel so that its sides are at most 4096.

    Raises BenchError when something cannot be written, or a .tif is asked for without rasterio.
    """

    def __init__(self, target: Path, source: Path, raster: Raster, names: Sequence[str], colours: Sequence[Colour]):
        self.target = target
        self._raster, self._names, self._colours = raster, names, colours
        self._step = -(-max(raster.height, raster.width) // OVERLAY_SIDE)
        self._row = 0
        self._strips: list[NDArray[np.uint8]] = []
        self._thin_labels: list[NDArray[np.uint8]] = []
        self._thin_pixels: list[NDArray[np.uint8]] = []
        self._tiff = self._create(source) if target.suffix.lower() in TIFF else None

    def add(self, labels: NDArray[np.uint8]) -> None:
        """The next rows (h, width)."""
        top, self._row = self._row, self._row + len(labels)
        if self._tiff is None:
            self._strips.append(labels)
        else:
            with _naming(self.target):
                self._tiff.write(labels, 1, window=((top, self._row), (0, self._raster.width)))
        pixels = self._raster.read(Box(top, 0, self._row, self._raster.width))
        first = -top % self._step  # of the rows that the overlay shows
        self._thin_labels.append(labels[first :: self._step, :: self._step])
        self._thin_pixels.append(pixels[first :: self._step, :: self._step].copy())

    def finish(self) -> None:
        """Puts everything on the disk."""
        overlay = overlay_png(
            np.concatenate(self._thin_pixels), np.concatenate(self._thin_labels), self._colours, self._names
        )
        with _naming(self.target):
            if self._tiff is None:
                self.target.write_bytes(palette_png(np.concatenate(self._strips), self._colours))
            else:
                self._tiff.close()
            self.target.with_name(f"{self.target.stem}_overlay.png").write_bytes(overlay)

    def _create(self, source: Path) -> Any:
        try:
            import rasterio
        except ImportError:
            raise BenchError(
                f"{self.target}: writing a GeoTIFF needs rasterio; pip install 'ovss-bench[geo]' or write a .png"
            ) from None
        profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "compress": "deflate", "bigtiff": "if_safer"}
        with contextlib.suppress(rasterio.errors.RasterioIOError), _quietly(rasterio.open, source) as reference:
            profile |= {"crs": reference.crs, "transform": reference.transform}
        with _naming(self.target):
            tiff = _quietly(
                rasterio.open, self.target, "w", height=self._raster.height, width=self._raster.width, **profile
            )
        tiff.write_colormap(1, dict(enumerate(self._colours)))
        return tiff


def _quietly(function: Any, *arguments: Any, **named: Any) -> Any:
    """Without rasterio's warning that an image has no georeference."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments, **named)


@contextlib.contextmanager
def _naming(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise BenchError(f"-o {target}: cannot be written ({reason}); give another place") from None
