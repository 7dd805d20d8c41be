"""What maps look like to the programs that open them: names, colours, no data, overviews, polygons, probabilities."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import rasterio
import shapely
from map_helpers import METRES, ORIGIN, VOCABULARY, noise, rows, scene
from PIL import Image

from bench.inference.visualize import PLAIN, Style, overlay_png
from bench.maps.job import make_maps
from bench.maps.legend import Legend
from bench.maps.outputs import OVERLAY_SIDE, MapFiles, MapStrip
from bench.maps.plan import AskedScene, plan_maps
from bench.maps.polygons import outlined, write_polygons
from bench.maps.scene import DecodedImage, Place, open_scene
from bench.maps.spec import MapSpec, Outlines

pyogrio = pytest.importorskip("pyogrio")
COLOURS = ((0, 0, 0), (200, 0, 0), (0, 0, 200))
LEGEND = Legend(VOCABULARY.names, COLOURS)


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All formats of one scene, whose upper left quarter holds no data."""
    folder = tmp_path_factory.mktemp("maps")
    bands = noise(700, 620)
    bands[:, :350, :310] = 0
    file = scene(folder / "scene.tif", bands, nodata=0)
    spec = MapSpec(native=False, format="tif,png,gpkg,geojson", probabilities="8bit", min_area=4, simplify=0.7)
    plan = plan_maps([AskedScene(file, folder / "map", spec.view)], rows("sclip"), spec, Style(COLOURS))
    assert not make_maps(plan, spec)
    return folder


def labels_of(maps: Path) -> Any:
    with rasterio.open(maps / "map.tif") as opened:
        return opened.read(1)


def test_a_geotiff_is_cloud_optimised_with_names_colours_and_no_data(maps: Path) -> None:
    with rasterio.open(maps / "map.tif") as opened:
        assert opened.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert (opened.nodata, opened.crs.to_epsg(), opened.res) == (255, 25832, (METRES, METRES))
        assert opened.transform.c == ORIGIN[0] and opened.transform.f == ORIGIN[1]
        assert [opened.colormap(1)[number][:3] for number in range(3)] == list(COLOURS)
        assert json.loads(opened.tags()["OVSS_BENCH"])["row"] == "sclip"
        (factor,) = opened.overviews(1)
        full, small = opened.read(1), opened.read(1, out_shape=(350, 310))
    assert factor == 2 and (full[:350, :310] == 255).all() and (full[350:] < 3).all()
    blocks = full.reshape(350, 2, 310, 2).transpose(0, 2, 1, 3).reshape(350, 310, 4)
    assert (blocks == small[..., None]).any(axis=2).all()  # a class that is there, not a mean of two
    aux = ET.parse(maps / "map.tif.aux.xml")
    assert [one.text for one in aux.iter("Category")] == ["background", "road & rail", "water"]
    rows = [[cell.text for cell in row] for row in aux.iter("Row")]
    assert rows[1] == ["1", "road & rail", "200", "0", "0"]
    style = ET.parse(maps / "map.qml")
    assert [one.attrib["label"] for one in style.iter("paletteEntry")] == ["background", "road & rail", "water"]
    assert next(style.iter("paletteEntry")).attrib["color"] == "#000000"


def test_gdals_own_tools_say_the_same(maps: Path) -> None:
    if shutil.which("gdalinfo") is None:
        pytest.skip("no gdal-bin, whose gdalinfo alone shows the names of classes that rasterio passes over")
    for name in ("map.tif", "map.png"):
        said = subprocess.run(["gdalinfo", "-json", "-norat", maps / name], check=True, capture_output=True, text=True)
        found = json.loads(said.stdout)
        assert found["geoTransform"] == [ORIGIN[0], METRES, 0, ORIGIN[1], 0, -METRES]
        (band,) = found["bands"]
        assert band["colorTable"]["entries"][2][:3] == [0, 0, 200]
        assert band["noDataValue"] == 255 or name == "map.png"
        assert "road & rail" in json.dumps(band.get("categories", found))
        assert "25832" in found["coordinateSystem"]["wkt"]
    said = subprocess.run(
        ["ogrinfo", "-al", "-so", maps / "map.gpkg", "map"], capture_output=True, text=True, check=True
    )
    assert "class: String" in said.stdout and "confidence: Real" in said.stdout


def test_a_png_lies_where_the_scene_lies(maps: Path) -> None:
    assert np.array_equal(np.asarray(Image.open(maps / "map.png")), labels_of(maps))
    with rasterio.open(maps / "map.png") as opened:
        assert opened.crs.to_epsg() == 25832 and opened.transform.f == ORIGIN[1]
    (maps / "map.png.aux.xml").rename(maps / "aside")
    with rasterio.open(maps / "map.png") as opened:  # by the world file alone
        assert (opened.transform.a, opened.transform.c, opened.transform.f) == (METRES, *ORIGIN)
    (maps / "aside").rename(maps / "map.png.aux.xml")


def test_probabilities_are_a_band_for_each_class(maps: Path) -> None:
    labels = labels_of(maps)
    with rasterio.open(maps / "map_probabilities.tif") as opened:
        assert opened.descriptions == ("background", "road & rail", "water") and opened.nodata == 255
        assert opened.scales == pytest.approx((1 / 254,) * 3)
        found = opened.read()
    held = labels != 255
    assert (found[:, ~held] == 255).all()
    likely = np.take_along_axis(found[:, held], labels[held][None].astype(int), 0)[0]
    assert (likely == found[:, held].max(axis=0)).all()  # the map is the likeliest class


def test_half_precision(tmp_path: Path) -> None:
    file = scene(tmp_path / "scene.tif", noise())
    for depth in ("float16", "8bit"):
        spec = MapSpec(native=False, probabilities=depth)
        make_maps(plan_maps([AskedScene(file, tmp_path / depth, spec.view)], rows("sclip"), spec, PLAIN), spec)
    with (
        rasterio.open(tmp_path / "float16_probabilities.tif") as half,
        rasterio.open(tmp_path / "8bit_probabilities.tif") as eighth,
    ):
        assert half.dtypes == ("float32",) * 3 and half.tags(1, ns="IMAGE_STRUCTURE")["NBITS"] == "16"
        assert np.abs(half.read() - eighth.read() / 254).max() <= 0.5 / 254 + 1e-3


@pytest.mark.parametrize("name", ["map.gpkg", "map.geojson"])
def test_polygons_cover_what_holds_data_once(maps: Path, name: str) -> None:
    about, _, shapes, columns = pyogrio.raw.read(maps / name, layer="map")
    found = dict(zip(about["fields"], columns, strict=True))
    polygons = shapely.from_wkb(shapes)
    assert set(found["class"]) <= set(VOCABULARY.names) and len(polygons) > 3
    assert (np.array(VOCABULARY.names)[found["number"]] == found["class"]).all()
    assert ((found["confidence"] > 0.2) & (found["confidence"] <= 1)).all()
    held = (labels_of(maps) != 255).sum() * METRES**2
    assert found["area_m2"].sum() == pytest.approx(held) and found["area_m2"].min() >= 4
    if name == "map.gpkg":
        assert shapely.area(polygons).sum() == pytest.approx(held, rel=0.01)
        assert shapely.coverage_is_valid(polygons)  # neighbours share their borders
        with sqlite3.connect(maps / name) as database:
            ((style,),) = database.execute("SELECT styleQML FROM layer_styles WHERE useAsDefault").fetchall()
        assert "road &amp; rail" in style
    else:
        assert about["crs"] in ("EPSG:4326", "OGC:CRS84") and 8.9 < shapely.bounds(polygons)[:, 0].min() < 9.1


def test_regions_by_hand() -> None:
    labels = np.array([[0, 0, 1], [0, 255, 1], [2, 2, 1]], np.uint8)
    bins = np.array([[99, 99, 50], [99, 0, 50], [30, 40, 50]], np.uint8)
    place = Place(rasterio.crs.CRS.from_epsg(25832), rasterio.transform.from_origin(0, 30, 10, 10))
    found = outlined(labels, bins, place, Outlines())
    order = np.argsort(found.classes)
    assert found.areas[order].tolist() == [300, 300, 200]
    assert found.confidences[order].tolist() == pytest.approx([0.995, 0.505, 0.355])
    joined = outlined(labels, bins, place, Outlines(min_area=250))  # the two become part of a neighbour
    assert joined.areas.sum() == 800 and len(joined.areas) == 2 and 2 not in joined.classes


def test_polygons_that_cannot_be_written_raise_what_files_raise(tmp_path: Path) -> None:
    labels = np.zeros((4, 5), np.uint8)
    place = Place(rasterio.crs.CRS.from_epsg(25832), rasterio.transform.from_origin(0, 30, 10, 10))
    found = outlined(labels, labels, place, Outlines())
    with pytest.raises(OSError, match="none/map"):
        write_polygons(tmp_path / "none" / "map.gpkg", "GPKG", found, LEGEND, place, "{}", "2026-01-31T00:00:00.000Z")


def test_overlay_of_a_large_image_is_thinned_out(tmp_path: Path) -> None:
    height, width = 7, 3 * OVERLAY_SIDE - 2
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    labels = np.random.default_rng(1).integers(0, 3, (height, width), dtype=np.uint8)
    files = MapFiles(tmp_path / "out", ("png",), LEGEND, Style(COLOURS), {"key": "1"}, "", Outlines())
    strips = (MapStrip(labels[top : top + 2], labels[top : top + 2]) for top in range(0, height, 2))
    files.write(strips, DecodedImage(pixels), tmp_path)
    assert files.is_there() and np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), labels)
    expected = overlay_png(pixels[::3, ::3], labels[::3, ::3], VOCABULARY.names, Style(COLOURS))
    assert (tmp_path / "out_overlay.png").read_bytes() == expected


def test_what_gdal_needs_on_the_way_is_in_the_work_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import rasterio.shutil

    (tmp_path / "work").mkdir()
    copy, seen = rasterio.shutil.copy, []

    def watched(*arguments: Any, **options: Any) -> None:
        seen.append(rasterio.env.getenv()["CPL_TMPDIR"])
        copy(*arguments, **options)

    monkeypatch.setattr(rasterio.shutil, "copy", watched)
    labels = np.zeros((900, 900), np.uint8)
    files = MapFiles(tmp_path / "out", ("tif",), LEGEND, Style(COLOURS), {"key": "1"}, "", Outlines())
    files.write(iter([MapStrip(labels, labels)]), DecodedImage(np.zeros((900, 900, 3), np.uint8)), tmp_path / "work")
    assert seen == [str(tmp_path / "work")] and files.is_there() and not [*(tmp_path / "work").iterdir()]


def test_a_written_strip_is_forgotten(tmp_path: Path) -> None:
    """Or memory would follow the height of a scene."""
    kept: list[weakref.ref[np.ndarray]] = []

    def strips() -> Iterator[MapStrip]:
        for _ in range(4):
            labels = np.zeros((2, 3 * OVERLAY_SIDE), np.uint8)
            kept.append(weakref.ref(labels))
            yield MapStrip(labels, labels)
            del labels
            assert kept[-2:][0]() is None or len(kept) == 1

    files = MapFiles(tmp_path / "out", ("tif",), LEGEND, Style(COLOURS), {"key": "1"}, "", Outlines())
    files.write(strips(), DecodedImage(np.zeros((8, 3 * OVERLAY_SIDE, 3), np.uint8)), tmp_path)
    assert files.is_there() and kept[0]() is None


def test_a_map_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    file = scene(tmp_path / "scene.tif", noise())
    files = MapFiles(tmp_path / "out", ("tif", "png"), LEGEND, PLAIN, {"key": "1"}, "", Outlines())

    def strips() -> Any:
        yield MapStrip(np.zeros((10, 110), np.uint8), np.zeros((10, 110), np.uint8))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), open_scene(file) as opened:
        files.write(strips(), opened, tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["scene.tif"]
