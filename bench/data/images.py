"""Decoding and resizing images, to the byte as the reference pipeline (OpenCV) does it."""

from __future__ import annotations

import importlib.util
import io
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from bench.errors import BenchError, reading
from bench.settings import AntialiasedResize, ResizeRule

# Pillow refuses more than twice this, OpenCV more than 1 << 30 pixels: large scenes are what tiling is for.
Image.MAX_IMAGE_PIXELS = 1 << 29
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how they begin; + is BigTIFF
_PHOTOMETRIC, _SAMPLES = 262, 277  # tags
_LOGGING: Any = getattr(cv2.utils, "logging", cv2)  # OpenCV 4 has these functions at its top


def resize(image: NDArray[np.uint8], rule: ResizeRule) -> NDArray[np.uint8]:
    """Resize an image: 8-bit bilinear. Any other than OpenCV's, without antialias, moves 0.7 % of the labels."""
    height, width = rule.size(*image.shape[:2])
    if isinstance(rule, AntialiasedResize):
        tall, wide = rule.stretched(*image.shape[:2])
        if image.shape[:2] != (tall, wide):
            image = np.asarray(cv2.resize(image, (wide, tall), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
        return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def at_sizes(image: NDArray[np.uint8], rules: Iterable[ResizeRule]) -> dict[ResizeRule, NDArray[np.uint8]]:
    """Return the image by each of the rules."""
    return {rule: resize(image, rule) for rule in rules}


class Depth(NamedTuple):
    """How values of more than 8 bits become 8.

    stretch: percentiles of each channel that become 0 and 255
    bits: the values' own, of which the largest becomes 255
    """

    stretch: tuple[float, float] | None = None
    bits: int | None = None


AS_IT_IS: Final = Depth()


def read_image(source: bytes | Path, name: str | None = None, depth: Depth = AS_IT_IS) -> NDArray[np.uint8]:
    """RGB uint8 (H, W, 3) of an image file or its bytes; `name` is what errors call it.

    The content decides on the format, not the suffix. Grey images become RGB, an alpha channel is dropped,
    and EXIF orientation is applied, as mmcv's reader does (to images; labels are read as stored).

    Raises BenchError for a file that is no image, is cut off, or has more than 8 bits where no depth is given.
    """
    name = name or (str(source) if isinstance(source, Path) else "image")
    with reading(name):
        if isinstance(source, Path) and source.exists() and not source.is_file():
            raise BenchError(f"{name}: not a file; give an image")
        data = source.read_bytes() if isinstance(source, Path) else source
    check_complete(data, name)
    pixels = _decode(data)
    if pixels is None:
        advice = (
            "OpenCV cannot read this TIFF; get the file again if it is cut off, else install 'ovss-bench[geo]' or "
            "convert it (gdal_translate -ot Byte -b 1 -b 2 -b 3 -co COMPRESS=DEFLATE)"
            if data[:4] in _TIFF
            else "not an image that OpenCV can read; get the file again"
        )
        raise BenchError(f"{name}: {advice}")
    pixels = _eight_bits(pixels, name, depth)
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels), dtype=np.uint8)


def read_bands(
    data: bytes, name: str, bands: tuple[int, int, int] | None = None, depth: Depth = AS_IT_IS
) -> NDArray[np.uint8]:
    """RGB uint8 (H, W, 3) of an image of a dataset; bands: which ones of a TIFF are red, green and blue, from 1.

    Files with chosen bands, and those that OpenCV reads wrongly or not at all, are read through GDAL (rasterio).

    Raises BenchError as `read_image`, for more than three bands where none are chosen, and without rasterio.
    """
    count, grey = tiff_bands(data)
    if bands is None and count > 3:
        raise BenchError(
            f"{name}: {count} bands; say in the layout of the card which are red, green and blue, "
            "such as `bands: [1, 2, 3]`"
        )
    if bands is None and not (count == 3 and grey):
        try:
            return read_image(data, name, depth)
        except BenchError:
            if not count or importlib.util.find_spec("rasterio") is None or _decode(data) is not None:
                raise
    if count and max(bands or (1,)) > count:
        raise BenchError(f"{name}: {count} bands, but the card says `bands: {[*(bands or ())]}`; correct the card")
    return _eight_bits(_through_gdal(data, name, bands or ((1, 2, 3) if count == 3 else (1, 1, 1))), name, depth)


def tiff_bands(data: bytes) -> tuple[int, bool]:
    """Return how many bands a TIFF has (0: it is none), and whether they are tagged as shades of grey."""
    if data[:4] not in _TIFF:
        return 0, False
    try:
        tags = ImageFileDirectory_v2(data[: 16 if b"+" in data[2:4] else 8])
        stream = io.BytesIO(data)
        stream.seek(tags.next)
        tags.load(stream)
        return int(tags.get(_SAMPLES, 1)), tags.get(_PHOTOMETRIC) == 1
    except Exception:  # whatever Pillow makes of a damaged header; decoding says what is wrong
        return 1, False


def _through_gdal(data: bytes, name: str, bands: tuple[int, int, int]) -> NDArray[Any]:
    """Bands (H, W, 3) of whatever depth."""
    try:
        from rasterio.errors import RasterioError
        from rasterio.io import MemoryFile
    except ImportError:
        raise BenchError(f"{name}: its bands are read with rasterio; pip install 'ovss-bench[geo]'") from None
    try:
        with warnings.catch_warnings(), MemoryFile(data) as memory:
            warnings.simplefilter("ignore")  # that it has no georeference
            with memory.open() as file:
                return np.ascontiguousarray(file.read(bands).transpose(1, 2, 0))
    except (RasterioError, OSError, IndexError) as error:
        raise BenchError(f"{name}: GDAL cannot read it ({error}); get the file again") from None


def _eight_bits(pixels: NDArray[Any], name: str, depth: Depth) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels
    if depth.bits and pixels.dtype == np.uint16:
        top = (1 << depth.bits) - 1
        if (most := int(pixels.max(initial=0))) > top:
            raise BenchError(
                f"{name}: holds the value {most}, but the card says `bits: {depth.bits}`; correct the card"
            )
        return np.asarray(pixels * (255 / top) + 0.5, dtype=np.uint8)
    if depth.stretch is None:
        raise BenchError(
            f"{name}: {pixels.dtype} pixels; convert the image to 8 bits a channel, or give `bits` or `stretch` in the "
            "layout of its card"
        )
    return _stretched(pixels, *depth.stretch)


@contextmanager
def pillow_errors(name: str) -> Iterator[None]:
    """Turn whatever Pillow raises over a file into a BenchError that names the file."""
    try:
        yield
    except UnidentifiedImageError:
        raise BenchError(f"{name}: not an image that Pillow can read; get the file again") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BenchError(f"{name}: cannot be decoded ({error}); get the file again") from None


def check_complete(data: bytes, name: str) -> None:
    """Raise BenchError for a PNG or JPEG that is cut off or damaged; other decoders fill the rest with grey, silently.

    A JPEG is decoded for that, in grey and at an eighth of its size. Data after its end do no harm.
    """
    if data.startswith(b"\x89PNG"):
        _check_chunks(data, name)
    if data.startswith(b"\xff\xd8"):
        try:
            simplejpeg.decode_jpeg(
                data, "GRAY", fastdct=True, fastupsample=True, min_height=1, min_width=1, min_factor=1, strict=True
            )
        except ValueError as error:
            reason = str(error)
            if "extraneous" not in reason:  # bytes between two markers, which some cameras write
                raise BenchError(f"{name}: the file is cut off or damaged ({reason}); get it again") from None


def _check_chunks(png: bytes, name: str) -> None:
    view, at = memoryview(png), 8
    while (end := at + 12 + int.from_bytes(view[at : at + 4], "big")) <= len(png):
        kind = png[at + 4 : at + 8]
        needed = kind[:1].isupper()  # libpng passes over what is wrong in other chunks
        if needed and zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise BenchError(f"{name}: the file is damaged, its checksum is wrong; get it again")
        if kind == b"IEND":
            return
        at = end
    raise BenchError(f"{name}: the file is cut off; get it again")


def _decode(data: bytes) -> NDArray[np.uint8 | np.uint16] | None:
    """Blue-green-red pixels (H, W, 3) of whatever depth, or None."""
    level = _LOGGING.getLogLevel()
    _LOGGING.setLogLevel(0)  # silent: it names no file, and warns of GeoTIFF tags
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error:
        return None
    finally:
        _LOGGING.setLogLevel(level)


def _stretched(pixels: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    floor, ceiling = np.percentile(pixels, (low, high), axis=(0, 1))  # (3,) each
    scaled = (pixels - floor) / np.maximum(ceiling - floor, 1) * 255
    stretched: NDArray[np.uint8] = np.clip(scaled + 0.5, 0, 255).astype(np.uint8)
    return stretched
