"""Scenes: images of any size that are read window by window, with where they hold data and where on Earth they lie."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from bench.data.images import read_image
from bench.errors import BenchError
from bench.maps.view import AS_IT_IS, PHOTOGRAPHS, Area, View, chosen_bands

if TYPE_CHECKING:
    from bench.models.collector import Box

_PIXEL_SCALE, _TRANSFORMATION, _NODATA, _SAMPLES_PER_PIXEL = 33550, 34264, 42113, 277  # tags of (Geo)TIFF
_METRES_PER_RADIAN: Final = math.degrees(111_320.0)  # along a meridian, and along the equator
_UNREADABLE = (OSError, ValueError, Image.DecompressionBombError)  # `read_image` says what is wrong


class Place(NamedTuple):
    """Where a scene lies. crs: rasterio's, None where unknown. transform: from (column, row) to its coordinates."""

    crs: Any
    transform: Any

    def at(self, column: Any, row: Any) -> tuple[Any, Any]:
        """Coordinates of points of the scene, numbers or arrays, from the upper left corner of its first pixel."""
        one = self.transform
        return one.a * column + one.b * row + one.c, one.d * column + one.e * row + one.f

    def below(self, column: int, row: int) -> Any:
        """Return the transform of the part whose first pixel is this one."""
        one = self.transform
        x, y = self.at(column, row)
        return type(one)(one.a, one.b, x, one.d, one.e, y)

    def pixel(self, height: int, width: int) -> tuple[float, float]:
        """Width and height of a pixel in metres, at the middle of the scene. ValueError where nothing tells it."""
        across = math.hypot(self.transform.a, self.transform.d)
        down = math.hypot(self.transform.b, self.transform.e)
        if self.crs is None:
            raise ValueError(
                "has no coordinate system, so its pixels have no size in metres; set one by gdal_edit.py -a_srs"
            )
        factor = float(self.crs.units_factor[1])  # metres or radians
        if not self.crs.is_geographic:
            return across * factor, down * factor
        latitude = self.at(width / 2, height / 2)[1] * factor
        if abs(latitude) >= math.pi / 2:
            raise ValueError("has its middle beyond a pole; gdal_edit.py -a_ullr and -a_srs correct that")
        factor *= _METRES_PER_RADIAN
        return across * factor * math.cos(latitude), down * factor


class Scene(Protocol):
    """An image, RGB, 8 bits a channel, for several threads. name: how messages call it. place: None for none."""

    name: str
    height: int
    width: int
    place: Place | None

    def read(self, box: Box) -> NDArray[np.uint8]:
        """RGB uint8 (h, w, 3) of a part."""

    def empty(self, box: Box) -> NDArray[np.bool_] | None:
        """Where a part (h, w) holds no data: nodata, transparent or masked. None where all of it does hold some."""


class DecodedImage:
    """A scene that is in memory as a whole. empty: where it holds no data, (H, W)."""

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        empty: NDArray[np.bool_] | None = None,
        place: Place | None = None,
        name: str = "image",
    ) -> None:
        self._pixels, self._empty, self.place, self.name = pixels, empty, place, name
        self.height, self.width = pixels.shape[:2]

    def read(self, box: Box) -> NDArray[np.uint8]:
        return self._pixels[box.top : box.bottom, box.left : box.right]

    def empty(self, box: Box) -> NDArray[np.bool_] | None:
        return None if self._empty is None else self._empty[box.top : box.bottom, box.left : box.right]


class _RasterFile:
    """A scene on the disk; GDAL decodes the blocks that a part touches and keeps some of them."""

    def __init__(self, name: str, file: Any, view: View) -> None:
        self.name, self._file, self._levels = name, file, view.levels
        self._alone = threading.Lock()  # GDAL reads a file for one thread at a time
        self.height, self.width = file.height, file.width
        self.place = place_of(file)
        self._bands = list(chosen_bands(file.count, view.bands))
        self._shapes = _shapes_in(view.area, name, file)

    def read(self, box: Box) -> NDArray[np.uint8]:
        bands = self._values(box)
        pixels = bands if self._levels is None else self._levels.apply(bands)
        return np.ascontiguousarray(pixels.transpose(1, 2, 0))

    def empty(self, box: Box) -> NDArray[np.bool_] | None:
        with decoding(self.name), self._alone:
            held = self._file.read_masks(sorted(set(self._bands)), window=_window(box)).any(axis=0)
        if np.dtype(self._file.dtypes[0]).kind == "f":
            held &= np.isfinite(self._values(box)).all(axis=0)
        if self._shapes is not None:
            held &= self._inside(box)
        return None if held.all() else ~held

    def _values(self, box: Box) -> NDArray[Any]:
        with decoding(self.name), self._alone:
            found: NDArray[Any] = self._file.read(self._bands, window=_window(box))
        return found

    def _inside(self, box: Box) -> NDArray[np.bool_]:
        from rasterio.features import geometry_mask

        assert self.place is not None
        size = box.size
        found: NDArray[np.bool_] = geometry_mask(self._shapes, size, self.place.below(box.left, box.top), invert=True)
        return found


@contextlib.contextmanager
def decoding(name: str) -> Iterator[None]:
    """Answer what goes wrong when pixels are read in one line, a BenchError."""
    try:
        yield
    except OSError as error:
        reason = " ".join(str(error.__cause__ or error).split())  # rasterio's own words name none
        raise BenchError(f"{name}: cannot be decoded ({reason}); get the file again, or leave it out") from None


def _window(box: Box) -> tuple[tuple[int, int], tuple[int, int]]:
    return (box.top, box.bottom), (box.left, box.right)


class Outside(BenchError):
    """Nothing of a scene lies in the part of the Earth that is asked for."""


def _shapes_in(area: Area | None, name: str, file: Any) -> list[Any] | None:
    """Return the shapes of an area in the coordinates of an open scene."""
    if area is None:
        return None
    from rasterio.errors import WindowError
    from rasterio.features import geometry_window, is_valid_geom
    from rasterio.warp import transform_geom

    place = place_of(file)
    if place is None or place.crs is None:
        raise BenchError(f"{name}: --mask needs a georeferenced scene with a coordinate system; leave it out")
    try:
        if not all(map(is_valid_geom, area.shapes)):
            raise ValueError("a polygon has at least three corners and ends where it begins")
        shapes = [transform_geom(area.crs, place.crs, dict(shape)) for shape in area.shapes]
        geometry_window(file, shapes)
    except WindowError:
        raise Outside(f"{name}: nothing of it lies in --mask") from None
    except Exception as error:  # rasterio raises what GDAL says by classes of its own
        raise BenchError(f"--mask: its polygons cannot be put into the coordinates of {name} ({error})") from None
    return shapes


def place_of(file: Any) -> Place | None:
    """Return where an open file of rasterio lies; None for one without georeference."""
    if file.crs is None and file.transform.is_identity:
        return None
    return Place(file.crs, file.transform)


def has_place(path: Path) -> bool:
    """Return whether the file lies somewhere, which without rasterio only the tags of a GeoTIFF tell."""
    if has_rasterio():
        with contextlib.suppress(BenchError), opened(path) as file:
            return place_of(file) is not None
    with contextlib.suppress(*_UNREADABLE), _header(path) as image:
        return bool({_PIXEL_SCALE, _TRANSFORMATION} & set(getattr(image, "tag_v2", ())))
    return False


def has_rasterio() -> bool:
    """Return whether rasterio is installed, without importing it."""
    return importlib.util.find_spec("rasterio") is not None


def files_of(path: Path) -> list[Path]:
    """List the files that an image is read from: the file, and those that a VRT refers to, as far as they are here."""
    if path.suffix.lower() == ".vrt":
        with contextlib.suppress(BenchError), opened(path) as file:
            return [path, *(other for other in map(Path, file.files[1:]) if other.is_file())]
    return [path]


def is_8_bit(file: Any) -> bool:
    """Return whether an open file of rasterio has 8 bits a channel."""
    return set(file.dtypes) == {"uint8"}


def has_loose_place(path: Path) -> bool:
    """Return whether only control points or RPCs tell where the file lies."""
    with contextlib.suppress(BenchError), opened(path) as file:
        return place_of(file) is None and bool(file.gcps[0] or file.rpcs)
    return False


def dropped_bands(path: Path, bands: tuple[int, int, int] | None = None) -> str | None:
    """Say in one line which of the file's bands are taken for which colour, where it has others; None where not."""
    with contextlib.suppress(*_UNREADABLE, BenchError):
        if has_rasterio():
            with opened(path) as file:
                count, alpha = file.count, "alpha" in [interpretation.name for interpretation in file.colorinterp]
        else:
            with _header(path) as image:
                count = image.tag_v2.get(_SAMPLES_PER_PIXEL, 3) if hasattr(image, "tag_v2") else len(image.getbands())
                alpha = "A" in image.getbands()
        if bands is not None and count > 1:
            return f"bands {', '.join(map(str, bands))} of {count} are red, green and blue"
        if count > 3 + alpha:
            return f"{count} bands, of which the first three are taken as red, green and blue"
    return None


def bounded_cache() -> contextlib.AbstractContextManager[Any]:
    """Inside, GDAL keeps at most half a gigabyte of decoded blocks: enough for the windows across a wide scene."""
    if not has_rasterio():
        return contextlib.nullcontext()
    import rasterio

    env: contextlib.AbstractContextManager[Any] = rasterio.Env(GDAL_CACHEMAX=512)
    return env


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a file with rasterio. BenchError for one that GDAL does not know."""
    try:
        import rasterio
    except ImportError:
        raise BenchError(f"{path}: is read with rasterio; pip install 'ovss-bench[geo]'") from None
    try:
        file = quietly(rasterio.open, path)
    except (rasterio.errors.RasterioError, OSError) as error:
        raise BenchError(f"{path}: GDAL cannot open it ({' '.join(str(error).split())}); check the file") from None
    with file:
        yield file


@contextlib.contextmanager
def open_scene(path: Path, view: View = AS_IT_IS) -> Iterator[Scene]:
    """Open an image for reading in parts.

    With rasterio, whatever GDAL reads and lies somewhere, every TIFF, and every view but the plain one is read from the
    disk; anything else is decoded as a whole. Raises BenchError for no image, a part of it that is not there, and
    values of more than 8 bits without levels.
    """
    with contextlib.ExitStack() as stack:
        file = None
        if has_rasterio() or view.needs_gdal or path.suffix.lower() in (".vrt", ".jp2", ".j2k"):
            known = path.suffix.lower() in PHOTOGRAPHS and not view.needs_gdal
            with contextlib.suppress(*((BenchError,) if known or path.suffix.lower() in (".tif", ".tiff") else ())):
                file = stack.enter_context(opened(path))
        if file is None or not _is_read_by_gdal(path, file, view):
            yield decoded(path, None if file is None else place_of(file))
            return
        try:
            if view.gsd is not None or view.bounds is not None:
                file = stack.enter_context(_regridded(path, file, view))
            scene = _RasterFile(str(path), file, view)
        except ValueError as error:
            raise BenchError(f"{path}: {error}") from None
        if np.dtype(file.dtypes[0]).kind == "c":
            raise BenchError(f"{path}: complex pixels; write their magnitudes first, such as with gdal_calc.py")
        if view.levels is None and not is_8_bit(file):
            raise BenchError(f"{path}: {file.dtypes[0]} pixels; give --stretch, such as --stretch 2,98")
        yield scene


def _is_read_by_gdal(path: Path, file: Any, view: View) -> bool:
    """Whether a file is read in parts: not a plain photograph, nor colours of a palette, which `read_image` knows."""
    from rasterio.enums import ColorInterp

    if ColorInterp.palette in file.colorinterp:
        if view.needs_gdal:
            raise BenchError(f"{path}: colours of a palette; make it RGB first (gdal_translate -expand rgb)")
        return False
    return view.needs_gdal or path.suffix.lower() not in PHOTOGRAPHS or place_of(file) is not None


def _regridded(path: Path, file: Any, view: View) -> Any:
    """Return the part of a file that a view asks for, at its resolution, as a virtual file."""
    from rasterio.enums import MaskFlags, Resampling
    from rasterio.transform import Affine
    from rasterio.vrt import WarpedVRT

    place, before = place_of(file), file.transform
    if place is None or before.b or before.d or before.a < 0 or before.e > 0:
        raise BenchError(f"{path}: --gsd and --bounds need a georeferenced scene with north up; gdalwarp makes one")
    across, down = before.a, before.e
    if view.gsd is not None:
        x, y = place.pixel(file.height, file.width)
        across, down = before.a * view.gsd / x, before.e * view.gsd / y
    left, bottom, right, top = view.bounds or file.bounds
    left, right = max(left, file.bounds.left), min(right, file.bounds.right)
    bottom, top = max(bottom, file.bounds.bottom), min(top, file.bounds.top)
    if left >= right or bottom >= top:
        raise Outside(
            f"{path}: nothing of it lies in --bounds; it reaches from {file.bounds.left:g},{file.bounds.bottom:g} to "
            f"{file.bounds.right:g},{file.bounds.top:g} in {file.crs}"
        )
    columns, rows = (left - before.c) / across, (top - before.f) / down
    first = math.floor(columns + 1e-6), math.floor(rows + 1e-6)
    width = max(1, math.ceil((right - before.c) / across - 1e-6) - first[0])
    height = max(1, math.ceil((bottom - before.f) / down - 1e-6) - first[1])
    transform = Affine(across, 0, before.c + first[0] * across, 0, down, before.f + first[1] * down)
    if max(width, height) >= 2**31:
        raise ValueError(f"would have {width}x{height} pixels; give a larger --gsd")
    way = Resampling.nearest
    if view.gsd is not None:
        way = Resampling.average if abs(across) > abs(before.a) else Resampling.cubic
    masked = MaskFlags.per_dataset in file.mask_flag_enums[0] and MaskFlags.alpha not in file.mask_flag_enums[0]
    return quietly(
        WarpedVRT, file, crs=file.crs, transform=transform, width=width, height=height, resampling=way, add_alpha=masked
    )


def decoded(path: Path, place: Place | None = None) -> DecodedImage:
    """Decode an image, with its alpha channel or nodata value. Raises BenchError as `read_image` does."""
    pixels = read_image(path)
    return DecodedImage(pixels, _empty(path, pixels), place, str(path))


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


@contextlib.contextmanager
def _header(path: Path) -> Iterator[Any]:
    """Open an image whose pixels are not asked for, without Pillow's warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as image:
            yield image


def quietly(function: Any, *arguments: Any, **named: Any) -> Any:
    """Call what warns needlessly, such as rasterio of an image that lies nowhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments, **named)
