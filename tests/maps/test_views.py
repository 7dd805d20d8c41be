"""How scenes are looked at: bands, depth, resolution, parts and masks, in every format that GDAL reads."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from map_helpers import CRS, ORIGIN, noise, scene
from numpy.typing import NDArray
from PIL import Image

from bench.errors import BenchError
from bench.maps.scene import Place, files_of, open_scene
from bench.maps.spec import MapSpec
from bench.maps.stretch import Stretch, levels_of
from bench.maps.view import Area, Levels, View, scene_files
from bench.models.collector import Box

pytest.importorskip("rasterio")


def seen(file: Path, view: View = View(), box: Box | None = None) -> NDArray[np.uint8]:  # noqa: B008 (frozen)
    with open_scene(file, view) as opened:
        return opened.read(box or Box(0, 0, opened.height, opened.width))


def held(file: Path, view: View) -> NDArray[np.bool_]:
    with open_scene(file, view) as opened:
        empty = opened.empty(Box(0, 0, opened.height, opened.width))
        return np.ones((opened.height, opened.width), bool) if empty is None else ~empty


def deep(count: int = 4, kind: str = "uint16") -> NDArray[Any]:
    return (noise(count=count).astype(np.float64) * 30 + 100).astype(kind)


def test_bands_are_chosen(tmp_path: Path) -> None:
    bands = noise(count=5)
    file = scene(tmp_path / "five.tif", bands)
    assert np.array_equal(seen(file), bands[:3].transpose(1, 2, 0))
    assert np.array_equal(seen(file, View(bands=(4, 3, 2))), bands[[3, 2, 1]].transpose(1, 2, 0))
    assert np.array_equal(seen(scene(tmp_path / "one.tif", bands[:1])), bands[[0, 0, 0]].transpose(1, 2, 0))
    with pytest.raises(BenchError, match=r"five\.tif: has 5 bands, so none is number 6; correct --bands"):
        seen(file, View(bands=(6, 3, 2)))


@pytest.mark.parametrize("kind", ["uint16", "int16", "float32"])
def test_deep_values_are_stretched_by_percentiles_of_each_band(tmp_path: Path, kind: str) -> None:
    bands = deep(kind=kind)
    file = scene(tmp_path / "deep.tif", bands)
    (levels,) = levels_of([file], None, None)
    assert levels is not None
    low, high = np.percentile(bands[:3].reshape(3, -1), (2, 98), axis=1)
    assert levels.low == pytest.approx(low) and levels.high == pytest.approx(high)
    expected = np.clip((bands[:3] - low[:, None, None]) / (high - low)[:, None, None] * 255 + 0.5, 0, 255)
    assert np.abs(seen(file, View(levels=levels)).transpose(2, 0, 1) - expected.astype(int)).max() <= 1
    with pytest.raises(BenchError, match=f"deep.tif: {kind} pixels; give --stretch"):
        seen(file)


def test_scenes_of_one_command_share_their_levels(tmp_path: Path) -> None:
    files = [scene(tmp_path / f"{n}.tif", np.full((3, 30, 40), n, np.uint16)) for n in (100, 300)]
    files.append(scene(tmp_path / "plain.tif", noise()))
    shared = Levels((100.0,) * 3, (300.0,) * 3)
    assert levels_of(files[:2], None, Stretch.parse("minmax")) == [shared] * 2
    assert levels_of(files, None, None) == [shared, shared, None]  # the plain one needs none
    assert levels_of(files[2:], None, None) == [None]
    assert levels_of(files, None, Stretch.parse("0..3000")) == [Levels((0.0,) * 3, (3000.0,) * 3)] * 3
    assert levels_of(files, None, Stretch.parse("none")) == [Levels((0.0,) * 3, (255.0,) * 3)] * 3


def test_pixels_without_data_do_not_stretch(tmp_path: Path) -> None:
    bands = deep(kind="float32")
    bands[:, :50] = np.nan
    bands[:, 50:60] = -9999
    file = scene(tmp_path / "holes.tif", bands, nodata=-9999)
    (levels,) = levels_of([file], None, Stretch.parse("minmax"))
    assert levels is not None and min(levels.low) == bands[:3, 60:].min() and max(levels.high) == bands[:3, 60:].max()
    assert np.array_equal(held(file, View(levels=levels)).all(axis=1), np.arange(150) >= 60)
    with pytest.raises(BenchError, match="holds no data to take --stretch from"):
        levels_of([scene(tmp_path / "none.tif", np.zeros((3, 9, 9), np.uint16), nodata=0)], None, None)


def test_a_deep_scene_that_is_cut_off_is_named_before_anything_is_computed(tmp_path: Path) -> None:
    file = scene(tmp_path / "cut.tif", deep())
    file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(BenchError, match=r"cut\.tif: cannot be decoded .*leave it out"):
        levels_of([file], None, None)


def test_stretches_that_cannot_be_meant() -> None:
    for text in ("98,2", "2", "a,b", "0..0", "-1,98", "2,101", "nan,3", "0..inf", ""):
        with pytest.raises(ValueError, match="percentiles as in 2,98"):
            Stretch.parse(text)


def test_another_resolution(tmp_path: Path) -> None:
    bands = noise(120, 160)
    file = scene(tmp_path / "half.tif", bands)
    with open_scene(file, View(gsd=1.0)) as opened:
        assert (opened.height, opened.width) == (60, 80)
        assert opened.place is not None and (opened.place.transform.a, opened.place.transform.c) == (1.0, ORIGIN[0])
        found = opened.read(Box(0, 0, 60, 80))
    mean = bands.reshape(3, 60, 2, 80, 2).mean(axis=(2, 4)).transpose(1, 2, 0)
    assert np.abs(found - mean).max() <= 1
    assert seen(file, View(gsd=0.25)).shape == (240, 320, 3)
    with pytest.raises(BenchError, match="need a georeferenced scene with north up"):
        seen(scene(tmp_path / "nowhere.tif", bands, crs=None), View(gsd=1.0))
    with pytest.raises(BenchError, match="need a georeferenced scene with north up"):
        seen(scene(tmp_path / "south.tif", bands, metres=-0.5), View(gsd=1.0))


def pixel(crs: str, side: float, north: float = 60) -> tuple[float, float]:
    import rasterio

    place = Place(rasterio.crs.CRS.from_user_input(crs), rasterio.transform.from_origin(9, north, side, side))
    return place.pixel(0, 0)


def test_pixels_in_other_units() -> None:
    """Of an angle, of a building site, and beyond a pole."""
    degrees = pixel("EPSG:4326", 0.9e-5)
    assert pixel("EPSG:4807", 1e-5, 60 / 0.9) == pytest.approx(degrees)
    assert pixel('LOCAL_CS["site",UNIT["foot",0.3048]]', 10) == pytest.approx((3.048, 3.048))
    with pytest.raises(ValueError, match="has its middle beyond a pole"):
        pixel("EPSG:4326", 1, 91)


def test_resolution_in_degrees(tmp_path: Path) -> None:
    import rasterio

    file = tmp_path / "degrees.tif"
    place = {"crs": "EPSG:4326", "transform": rasterio.transform.from_origin(9, 60, 1e-5, 1e-5)}
    with rasterio.open(file, "w", "GTiff", 40, 60, 3, dtype="uint8", **place) as written:
        written.write(noise(60, 40))
    with open_scene(file) as opened:
        assert opened.place is not None
        across, down = opened.place.pixel(60, 40)
    assert down == pytest.approx(1.1132) and across == pytest.approx(1.1132 * math.cos(math.radians(60)), rel=1e-4)


def test_a_part_is_the_pixels_of_the_whole(tmp_path: Path) -> None:
    bands = noise()
    file = scene(tmp_path / "whole.tif", bands)
    left, top = ORIGIN
    with open_scene(file, View(bounds=(left + 10, top - 60, left + 30.2, top - 20))) as opened:
        assert (opened.height, opened.width) == (80, 41)
        assert opened.place is not None and opened.place.at(0, 0) == (left + 10, top - 20)
        assert np.array_equal(opened.read(Box(0, 0, 80, 41)), bands[:, 40:120, 20:61].transpose(1, 2, 0))
    assert seen(file, View(bounds=(0, 0, 1e9, 1e9))).shape == (150, 110, 3)
    with pytest.raises(BenchError, match="nothing of it lies in --bounds; it reaches from 500000,"):
        seen(file, View(bounds=(0, 0, 1, 1)))


def test_only_inside_of_a_mask(tmp_path: Path) -> None:
    from rasterio.warp import transform_geom

    file, (left, top) = scene(tmp_path / "scene.tif", noise()), ORIGIN
    ring = [(left + 10, top - 10), (left + 40, top - 10), (left + 40, top - 50), (left + 10, top - 50)]
    square = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
    area = tmp_path / "area.geojson"
    area.write_text(json.dumps({"type": "Feature", "geometry": transform_geom(CRS, "EPSG:4326", square)}))
    inside = held(file, MapSpec(mask=area).view)
    assert inside[20:100, 20:80].mean() > 0.95 and inside.sum() == pytest.approx(80 * 60, rel=0.03)
    named = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::25832"}}
    area.write_text(json.dumps({"type": "FeatureCollection", "crs": named, "features": [{"geometry": square}]}))
    assert np.array_equal(np.argwhere(held(file, MapSpec(mask=area).view))[[0, -1]], [[20, 20], [99, 79]])
    with pytest.raises(BenchError, match="--mask needs a georeferenced scene"):
        seen(scene(tmp_path / "nowhere.tif", noise(), crs=None), MapSpec(mask=area).view)
    for text in ("", "[]", '{"type": "Point", "coordinates": [1, 2]}', '{"type": "FeatureCollection", "features": []}'):
        area.write_text(text)
        with pytest.raises(BenchError, match=f"--mask {area}: (no GeoJSON|holds no polygons)"):
            Area.read(area)
    area.write_text(json.dumps(square | {"coordinates": [[*ring, ring[0]]], "crs": None}))
    with pytest.raises(BenchError, match="--mask: its polygons cannot be put into the coordinates"):  # no degrees
        seen(file, MapSpec(mask=area).view)
    area.write_text(json.dumps({"type": "Polygon", "coordinates": [ring[:2]]}))
    with pytest.raises(BenchError, match="a polygon has at least three corners"):
        seen(file, MapSpec(mask=area).view)


def test_virtual_files_and_jpeg_2000(tmp_path: Path) -> None:
    bands = noise()
    file = scene(tmp_path / "scene.tif", bands)
    (tmp_path / "scene.vrt").write_text(
        f'<VRTDataset rasterXSize="110" rasterYSize="150"><SRS>{CRS}</SRS>'
        "<GeoTransform>500000, 0.5, 0, 5600000, 0, -0.5</GeoTransform>"
        + "".join(
            f'<VRTRasterBand dataType="Byte" band="{n}"><SimpleSource><SourceFilename relativeToVRT="1">{file.name}'
            f"</SourceFilename><SourceBand>{4 - n}</SourceBand></SimpleSource></VRTRasterBand>"
            for n in (1, 2, 3)
        )
        + "</VRTDataset>"
    )
    assert np.array_equal(seen(tmp_path / "scene.vrt"), bands[::-1].transpose(1, 2, 0))
    scene(tmp_path / "scene.jp2", bands, driver="JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES")
    assert np.array_equal(seen(tmp_path / "scene.jp2"), bands.transpose(1, 2, 0))
    (tmp_path / "broken.vrt").write_text("<VRTDataset>")
    with pytest.raises(BenchError, match=r"broken\.vrt: GDAL cannot open it"):
        seen(tmp_path / "broken.vrt")
    assert files_of(tmp_path / "scene.vrt") == [tmp_path / "scene.vrt", file]
    file.unlink()
    with pytest.raises(BenchError, match=r"scene\.vrt: cannot be decoded \(.*scene\.tif.*No such file"):
        seen(tmp_path / "scene.vrt")


def test_a_photograph_with_a_world_file_lies_somewhere(tmp_path: Path) -> None:
    file = tmp_path / "photo.png"
    Image.fromarray(noise().transpose(1, 2, 0)).save(file)
    with open_scene(file) as opened:
        assert opened.place is None
    (tmp_path / "photo.pgw").write_text("0.5\n0\n0\n-0.5\n500000.25\n5599999.75\n")
    with open_scene(file) as opened:
        assert opened.place is not None and opened.place.crs is None and opened.place.at(0, 0) == ORIGIN
    with pytest.raises(BenchError, match="no coordinate system, so its pixels have no size in metres"):
        seen(file, View(gsd=1.0))


def test_a_name_that_gdal_cannot_be_told_is_refused(tmp_path: Path) -> None:
    try:
        (tmp_path / "latin\udcff.tif").touch()
    except (OSError, UnicodeError):
        pytest.skip("a file system that has no such names")
    with pytest.raises(BenchError, match="its name is no UTF-8; rename it"):
        scene_files([str(tmp_path)])


def test_folders_and_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b.tif", "a.JP2", "note.txt", ".hidden.tif", "deep/c.vrt"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    assert scene_files(["."]) == [Path("a.JP2"), Path("b.tif")]
    assert scene_files(["**/*.vrt", "b.tif", "b.tif"]) == [Path("deep/c.vrt"), Path("b.tif")]
    for given, message in (("x.tif", "no such image"), ("*.png", "matches no file"), ("deep/..", "")):
        if message:
            with pytest.raises(BenchError, match=message):
                scene_files([given])


MISTAKES: dict[str, dict[str, Any]] = {
    "--bands 4,3: 3 numbers are needed, as in 4,3,2": {"bands": "4,3"},
    "--bounds 1,2: 4 numbers are needed": {"bounds": "1,2"},
    "--bands 0,1,2: bands are numbered from 1": {"bands": "0,1,2"},
    "--stretch 5: give percentiles as in 2,98": {"stretch": "5"},
    "--gsd 0: ": {"gsd": 0},
    "--bounds 1,1,0,0: give left,bottom,right,top": {"bounds": "1,1,0,0"},
    "--format tiff: unknown format; did you mean tif?": {"format": "tiff"},
    "--probabilities 16bit: ": {"probabilities": "16bit"},
    "--shard 3/3: ": {"shard": "3/3"},
    "--shard 3: I/N is needed, as in 0/4": {"shard": "3"},
    "--blend max: ": {"blend": "max"},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_one_line(message: str) -> None:
    with pytest.raises(BenchError) as raised:
        MapSpec(**MISTAKES[message])
    assert str(raised.value).startswith(message) and "\n" not in str(raised.value)
