"""What `predict` does with images as they come: georeferenced, transparent, with nodata, of several bands, and with
commands that would lose something.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from bench.cli import main

CLASSES = "background; road; water"
NOISE = np.random.default_rng(0).integers(1, 256, (90, 120, 3), dtype=np.uint8)


def predict(*arguments: object, classes: str = CLASSES, method: str = "clip") -> int:
    flags = ["--backbone", "demo", "--device", "cpu", "--method", method, "--classes", classes]
    return main(["predict", *map(str, arguments), *flags])


def geotiff(file: Path, bands: np.ndarray, **profile: object) -> Path:
    """A GeoTIFF (count, H, W) somewhere, at half a metre."""
    count, height, width = bands.shape
    options = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": "uint8", **profile}
    with rasterio.open(
        file, "w", crs="EPSG:25832", transform=rasterio.transform.from_origin(5e5, 5e6, 0.5, 0.5), **options
    ) as written:
        written.write(bands)
    return file


def read(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file))


def test_pixels_without_data_are_never_labelled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bands = NOISE.transpose(2, 0, 1).copy()
    bands[:, :30] = 0
    scene = geotiff(tmp_path / "scene.tif", bands, nodata=0)
    for ending in ("png", "tif"):
        assert predict(scene, "-o", tmp_path / f"map.{ending}") == 0
        labels = read(tmp_path / f"map.{ending}")
        assert (labels[:30] == 255).all() and (labels[30:] < 3).all()
    with rasterio.open(tmp_path / "map.tif") as written:
        assert (written.nodata, written.crs.to_epsg()) == (255, 25832)
    overlay = read(tmp_path / "map_overlay.png")
    assert (overlay[:30] == 0).all()  # left as it is
    assert "120x90 pixels, at its own resolution" in capsys.readouterr().err


def test_transparent_pixels_are_never_labelled(tmp_path: Path) -> None:
    alpha = np.full((90, 120, 1), 255, np.uint8)
    alpha[:, :20] = 0
    Image.fromarray(np.concatenate([NOISE, alpha], axis=2)).save(tmp_path / "scene.png")
    assert predict(tmp_path / "scene.png", "-o", tmp_path / "map.png") == 0
    labels = read(tmp_path / "map.png")
    assert (labels[:, :20] == 255).all() and (labels[:, 20:] < 3).all()


def test_what_is_dropped_and_what_is_shrunk_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bands = np.concatenate([NOISE, NOISE[..., :1]], axis=2).transpose(2, 0, 1)
    scene = geotiff(tmp_path / "scene.tif", bands, photometric="RGB")
    with rasterio.open(scene, "r+") as written:
        written.colorinterp = [*written.colorinterp[:3], rasterio.enums.ColorInterp.undefined]
    assert predict(scene, "-o", tmp_path / "map.png") == 0
    assert "4 bands, of which the first three are taken as red, green and blue" in capsys.readouterr().err
    Image.fromarray(np.zeros((1000, 1400, 3), np.uint8)).save(tmp_path / "large.png")
    assert predict(tmp_path / "large.png", "-o", tmp_path / "map.png") == 0
    assert "1400x1000 pixels, resized to 448x320, 3.1 times smaller: small things are lost" in capsys.readouterr().err


def test_a_map_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    plugin = tmp_path / "late.py"
    plugin.write_text(
        "from bench.api import method, last_block\n"
        "calls = []\n"
        "@method('late')\n"
        "def late(trunk):\n"
        "    calls.append(1)\n"
        "    if len(calls) > 2: raise ValueError('late')\n"
        "    return last_block(trunk, lambda q, k, v: v, residual=False, ffn=False)\n"
    )
    tall = geotiff(tmp_path / "tall.tif", np.tile(NOISE, (8, 2, 1)).transpose(2, 0, 1))
    for ending in ("png", "tif"):
        flags = ("--plugin", plugin, "--batch", "1")
        assert predict(tall, "-o", tmp_path / f"map.{ending}", *flags, method="late") == 2
    assert sorted(file.name for file in tmp_path.glob("[!.]*")) == ["late.py", "tall.tif"]


def images(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(NOISE).save(folder / name)
    return [folder / name for name in names]


MISTAKES: dict[str, tuple[Sequence[str], Sequence[str], str]] = {
    "two images of one name": (["a/1.png", "b/1.png"], ["-o", "out"], "would both be written to"),
    "an overlay over a map": (["a/1.png", "a/1_overlay.png"], ["-o", "out"], "would both be written to"),
    "an image would be overwritten": (["a/1.png"], ["-o", "a"], "would overwrite the image"),
    "polygons of nowhere": (["a/1.png"], ["-o", "map.geojson"], "lies nowhere on Earth, so it has no polygons"),
    "a folder without images": (["a/1.png"], [".", "-o", "out"], ".: no images in this folder"),
    "a pattern of nothing": (["a/1.png"], ["b/*.tif", "-o", "out"], "b/*.tif: matches no file"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_nothing_is_lost(
    mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names, flags, message = MISTAKES[mistake]
    images(tmp_path, *names)
    before = sorted(tmp_path.rglob("*"))
    assert predict(*names, *flags) == 2
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_what_a_virtual_file_is_made_of_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tile = geotiff(tmp_path / "tile.tif", NOISE.transpose(2, 0, 1))
    with rasterio.open(tile) as opened, rasterio.vrt.WarpedVRT(opened) as virtual:
        rasterio.shutil.copy(virtual, tmp_path / "mosaic.vrt", driver="VRT")
    before = tile.read_bytes()
    assert predict(tmp_path / "mosaic.vrt", "-o", tile) == 2
    assert "would overwrite the image" in capsys.readouterr().err and tile.read_bytes() == before


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("road,water", "one class, which every pixel would get; separate classes by semicolons"),
        ("words.txt", "cannot be read (No such file or directory)"),
        ("one.txt", "one class"),
        ("road; water; road, street", "two classes are called 'road'"),
    ],
)
def test_classes_that_cannot_be_meant(
    classes: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("one.txt").write_text("road, street\n# water\n")
    (image,) = images(tmp_path, "a/1.png")
    assert predict(image, "-o", "out.png", classes=classes) == 2
    assert message in capsys.readouterr().err


def test_classes_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("background\nroad, street  # grey\n\nwater\n")
    (image,) = images(tmp_path, "a/1.png")
    assert predict(image, "-o", tmp_path / "one.png", classes=str(tmp_path / "words.txt")) == 0
    assert predict(image, "-o", tmp_path / "two.png", classes="background; road, street; water") == 0
    assert np.array_equal(read(tmp_path / "one.png"), read(tmp_path / "two.png"))


def test_what_needs_the_whole_image_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = geotiff(tmp_path / "scene.tif", NOISE.transpose(2, 0, 1))
    assert predict(scene, "-o", tmp_path / "map.png", "--resize", "none", method="naclip+tlp") == 2
    assert "its refinement needs the whole image at once; give --resize N" in capsys.readouterr().err
    assert predict(scene, "-o", tmp_path / "map.png", "--resize", "none", method="lposs") == 2
    assert "its method needs the whole image at once; give --resize N" in capsys.readouterr().err
    for method, said in (("naclip+tlp", "resized to 448x336"), ("naclip+pamr-original", "at its own resolution")):
        assert predict(scene, "-o", tmp_path / "map.png", method=method) == 0
        assert f"120x90 pixels, {said}" in capsys.readouterr().err
