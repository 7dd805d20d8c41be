"""Decoding and resizing."""

from __future__ import annotations

import io
import sys
import warnings

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench.data.images import Depth, read_bands, read_image, tiff_bands
from bench.errors import BenchError
from bench.settings import ResizeRule


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("rule", "size", "expected"),
    [
        (ResizeRule(long_side=448), (1080, 1280), (378, 448)),
        (ResizeRule(long_side=448), (100, 224), (200, 448)),
        (ResizeRule(short_side=448, long_max=2048), (1024, 2048), (448, 896)),
        (ResizeRule(short_side=448, long_max=2048), (100, 1000), (205, 2048)),
        (ResizeRule(long_side=16), (1, 1000), (1, 16)),
    ],
)
def test_sizes(rule, size, expected):
    assert rule.size(*size) == expected


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_the_long_side_is_met(height, width):
    assert max(ResizeRule(long_side=448).size(height, width)) == 448


@pytest.mark.parametrize("rule", [{}, {"long_side": 16, "short_side": 16}])
def test_a_resize_rule_is_one_of_two(rule):
    with pytest.raises(ValueError, match="either long_side or short_side"):
        ResizeRule(**rule)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_the_content_decides_on_the_format(pixels, kind, tmp_path):
    path = tmp_path / "tile.png"
    path.write_bytes(encoded(Image.fromarray(pixels), kind))
    np.testing.assert_array_equal(read_image(path), pixels)


def test_grey_becomes_rgb_and_alpha_is_dropped(pixels):
    grey = read_image(encoded(Image.fromarray(pixels[..., 0]), "PNG"))
    np.testing.assert_array_equal(grey, pixels[..., :1].repeat(3, axis=-1))
    rgba = np.concatenate([pixels, np.zeros_like(pixels[..., :1])], axis=-1)
    np.testing.assert_array_equal(read_image(encoded(Image.fromarray(rgba), "PNG")), pixels)


def test_the_orientation_tag_is_heeded(pixels):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    turned = read_image(encoded(Image.fromarray(pixels), "JPEG", exif=exif))
    upright = read_image(encoded(Image.fromarray(pixels), "JPEG"))
    np.testing.assert_array_equal(turned, np.rot90(upright, -1))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_a_file_that_is_cut_off_is_refused(pixels, kind):
    with pytest.raises(BenchError, match=r"a\.x: .*get (it|the file) again"):
        read_image(encoded(Image.fromarray(pixels), kind)[:-600], "a.x")


def test_cameras_append_to_their_files(pixels):
    photo = encoded(Image.fromarray(pixels), "JPEG")
    np.testing.assert_array_equal(read_image(photo + bytes(10_000)), read_image(photo))


def test_the_end_of_a_thumbnail_is_not_that_of_the_image(pixels):
    thumbnail = b"\xff\xe1\x00\x06Ex\xff\xd9"  # an application segment that holds an end of image
    photo = encoded(Image.fromarray(pixels), "JPEG")
    with pytest.raises(BenchError, match="cut off"):
        read_image((photo[:2] + thumbnail + photo[2:])[:-200])


def test_what_is_no_image_is_refused(tmp_path):
    (tmp_path / "page.jpg").write_text("<html>quota exceeded</html>")
    with pytest.raises(BenchError, match=r"page\.jpg: not an image"):
        read_image(tmp_path / "page.jpg")
    with pytest.raises(BenchError, match=r"gone\.jpg: cannot be read"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(BenchError, match="not an image"):
        read_image(b"", "empty.png")


def test_16_bits_need_a_stretch():
    deep = np.linspace(0, 1000, 300).reshape(10, 30, 1).repeat(3, axis=-1).astype(np.uint16)
    data = cv2.imencode(".tif", deep)[1].tobytes()
    with pytest.raises(
        BenchError, match=r"deep\.tif: uint16 pixels; convert the image to 8 bits .* or give `bits` or `stretch`"
    ):
        read_image(data, "deep.tif")
    image = read_image(data, "deep.tif", Depth((0, 100)))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, np.floor(deep / 1000 * 255 + 0.5))


def tiff(bands: np.ndarray, **options: str) -> bytes:
    """GeoTIFF of bands (n, h, w)."""
    rasterio = pytest.importorskip("rasterio")
    with rasterio.io.MemoryFile() as memory:
        shape = dict(zip(("count", "height", "width"), bands.shape, strict=True))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with memory.open(driver="GTiff", dtype=bands.dtype.name, **shape, **options) as file:
                file.write(bands)
        return memory.read()


@pytest.mark.parametrize("options", [{"photometric": "RGB"}, {"photometric": "RGB", "alpha": "yes"}, {}])
def test_four_bands_are_refused_until_the_card_says_which_are_which(options):
    bands = np.random.default_rng(0).integers(0, 256, (4, 20, 30), dtype=np.uint8)
    data = tiff(bands, **options)
    with pytest.raises(BenchError, match=r"nir\.tif: 4 bands; say in the layout .*`bands: \[1, 2, 3\]`"):
        read_bands(data, "nir.tif")
    np.testing.assert_array_equal(read_bands(data, "nir.tif", (2, 3, 4)), bands[1:].transpose(1, 2, 0))
    with pytest.raises(BenchError, match=r"nir\.tif: 4 bands, but the card says `bands: \[3, 4, 5\]`"):
        read_bands(data, "nir.tif", (3, 4, 5))


def test_what_opencv_cannot_read_or_reads_wrongly_gdal_reads():
    bands = np.random.default_rng(0).integers(0, 256, (5, 20, 30), dtype=np.uint8)
    np.testing.assert_array_equal(read_bands(tiff(bands), "five.tif", (3, 2, 1)), bands[2::-1].transpose(1, 2, 0))
    grey = tiff(bands[:3], photometric="MINISBLACK")
    assert tiff_bands(grey) == (3, True)
    np.testing.assert_array_equal(read_bands(grey, "grey.tif"), bands[:3].transpose(1, 2, 0))
    colours = tiff(bands[:3], photometric="RGB", bigtiff="yes")
    assert tiff_bands(colours) == (3, False)
    np.testing.assert_array_equal(read_bands(colours, "colours.tif"), read_image(colours))


def test_without_rasterio_chosen_bands_are_refused(monkeypatch):
    data = encoded(Image.fromarray(np.zeros((9, 9, 4), np.uint8)), "TIFF")
    assert tiff_bands(data)[0] == 4
    monkeypatch.setitem(sys.modules, "rasterio.errors", None)
    with pytest.raises(BenchError, match=r"a\.tif: its bands are read with rasterio; pip install 'ovss-bench\[geo\]'"):
        read_bands(data, "a.tif", (1, 2, 3))


def test_bits_that_are_used_become_eight():
    deep = np.arange(2048, dtype=np.uint16)[:1800].reshape(3, 20, 30)
    image = read_bands(tiff(deep), "deep.tif", (1, 2, 3), Depth(bits=11))
    np.testing.assert_array_equal(image, np.floor(deep / 2047 * 255 + 0.5).transpose(1, 2, 0))
    with pytest.raises(BenchError, match=r"holds the value 1799, but the card says `bits: 10`"):
        read_bands(tiff(deep), "deep.tif", (1, 2, 3), Depth(bits=10))
