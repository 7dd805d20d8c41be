"""Many scenes: what is there is not computed again, whoever computes it, and one bad scene ends no other."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from map_helpers import noise, rows, scene
from numpy.typing import NDArray
from PIL import Image

from bench.errors import BenchError, SharedStateLost
from bench.evaluation.dataset_run import Progress
from bench.inference.segmenter import Segmenter
from bench.inference.visualize import PLAIN
from bench.maps import job as jobs
from bench.maps.job import Worker, make_maps, windows_left
from bench.maps.plan import AskedScene, RowGroup, plan_maps
from bench.maps.spec import MapSpec

pyogrio = pytest.importorskip("pyogrio")
EVERYTHING = {"format": "tif,png,gpkg,geojson", "probabilities": "8bit", "min_area": 20, "simplify": 1}


class Made(NamedTuple):
    """How often nothing was to be done, and what failed."""

    skipped: int
    failures: list[str]


@pytest.fixture
def scenes(tmp_path: Path) -> list[Path]:
    """Three scenes, with a hole without data."""
    found = []
    for seed, name in enumerate(("a", "b", "c")):
        bands = noise(seed=seed)
        bands[:, 20:60, :40] = 0
        found.append(scene(tmp_path / f"{name}.tif", bands, nodata=0))
    return found


def made(
    scenes: Sequence[Path], out: Path, group: RowGroup | None = None, worker: Worker = jobs.ALONE, **options: Any
) -> Made:
    spec = MapSpec(native=None, **options)
    out.mkdir(exist_ok=True)
    plan = plan_maps(asked(scenes, out, spec), group or rows("sclip"), spec, PLAIN)
    skipped = sum(job.is_done() for job in plan)
    return Made(skipped, make_maps(plan, spec, worker))


def asked(scenes: Sequence[Path], out: Path, spec: MapSpec) -> list[AskedScene]:
    return [AskedScene(file, out / file.stem, spec.view) for file in scenes]


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def labels(file: Path) -> NDArray[np.uint8]:
    with rasterio.open(file) as opened:
        found: NDArray[np.uint8] = opened.read(1)
    return found


def interrupted(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Let the process be interrupted when so many strips are kept."""
    keep, kept = jobs._keep, []

    def counted(*arguments: Any) -> None:
        keep(*arguments)
        kept.append(arguments)
        if len(kept) == after:
            raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "_keep", counted)


@pytest.mark.parametrize("after", [1, 5])
def test_a_job_that_was_interrupted_ends_as_one_that_was_not(
    scenes: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    made(scenes, tmp_path / "whole", **EVERYTHING)
    interrupted(monkeypatch, after)
    with pytest.raises(KeyboardInterrupt):
        made(scenes, tmp_path / "twice", **EVERYTHING)
    monkeypatch.undo()
    computed = counting_windows(monkeypatch)
    made(scenes, tmp_path / "twice", **EVERYTHING)
    assert files(tmp_path / "twice") == files(tmp_path / "whole")
    assert sum(computed) < 3 * 9  # not from the beginning


def test_what_is_there_does_not_count_as_computed(
    scenes: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the time left is that of what is left, and of one's own share."""
    spec, out = MapSpec(native=None), tmp_path / "out"
    out.mkdir()
    plan = plan_maps(asked(scenes, out, spec), rows("sclip"), spec, PLAIN)
    assert windows_left(plan) == 3 * 6 == sum(windows_left(plan, Worker(number, 2)) for number in range(2))
    interrupted(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        make_maps(plan, spec)
    monkeypatch.undo()
    seen: list[Progress] = []
    assert windows_left(plan) == 5 * 2
    make_maps(plan, spec, report=seen.append)
    last = {one.dataset: one for one in seen}
    assert {name: (one.done, one.total) for name, one in last.items()} == {"b.tif": (4, 4), "c.tif": (6, 6)}
    assert windows_left(plan) == 0


def counting_windows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the batches that are computed from now on."""
    seen: list[int] = []
    compute: Callable[..., Any] = Segmenter.window_scores

    def counted(self: Any, images: Any, some: Any) -> Any:
        seen.append(len(images))
        return compute(self, images, some)

    monkeypatch.setattr(Segmenter, "window_scores", counted)
    return seen


@pytest.mark.parametrize("among", [2, 20])
def test_workers_that_share_a_job_make_the_bytes_of_one(scenes: list[Path], tmp_path: Path, among: int) -> None:
    made(scenes, tmp_path / "one", **EVERYTHING)
    for number in reversed(range(among)):
        assert not made(scenes, tmp_path / "several", worker=Worker(number, among), **EVERYTHING).failures
    assert files(tmp_path / "several") == files(tmp_path / "one")


def test_what_is_done_is_left_alone_until_something_changes(
    scenes: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(scenes, tmp_path / "out")
    before, computed = files(tmp_path / "out"), counting_windows(monkeypatch)
    assert made(scenes, tmp_path / "out").skipped == 3 and files(tmp_path / "out") == before and not computed
    (tmp_path / "out" / "a_overlay.png").unlink()  # not complete any more
    scene(scenes[1], noise(seed=9))  # another scene
    assert made(scenes, tmp_path / "out").skipped == 1 and sum(computed) > 9
    for other in ({"blend": "gaussian"}, {"probabilities": "float16"}, {"bounds": "500000,5599950,500050,5600000"}):
        assert made(scenes, tmp_path / "out", **other).skipped == 0, other
    changed = rows("sclip")
    (row,) = changed.segmenters[0].rows
    changed.segmenters[0].rows = [replace(row, inputs={"weights": "y"})]
    assert made(scenes, tmp_path / "out", changed, bounds="500000,5599950,500050,5600000").skipped == 0


def test_a_mosaic_whose_tile_has_changed_is_another_scene(scenes: list[Path], tmp_path: Path) -> None:
    mosaic = tmp_path / "mosaic.vrt"
    rasterio.shutil.copy(scenes[0], mosaic, driver="VRT")
    assert made([mosaic], tmp_path / "out").skipped == 0 and made([mosaic], tmp_path / "out").skipped == 1
    scene(scenes[0], noise(seed=9))
    assert made([mosaic], tmp_path / "out").skipped == 0


def test_a_scene_that_fails_ends_no_other(scenes: list[Path], tmp_path: Path) -> None:
    data = scenes[1].read_bytes()
    scenes[1].write_bytes(data[:-9000])  # its header is whole
    outcome = made(scenes, tmp_path / "out")
    (failure,) = outcome.failures
    assert f"{scenes[1]}: cannot be decoded" in failure
    there = {file.name.partition(".")[0].removesuffix("_overlay") for file in (tmp_path / "out").glob("[!.]*")}
    assert there == {"a", "c"}
    scenes[1].write_bytes(data)
    assert made(scenes, tmp_path / "out").skipped == 2 and (tmp_path / "out" / "b.tif").is_file()
    assert not list((tmp_path / "out").glob(".*"))


def test_a_scene_that_fails_leaves_nothing_with_any_worker(scenes: list[Path], tmp_path: Path) -> None:
    scenes[1].write_bytes(scenes[1].read_bytes()[:-9000])
    for number in range(9):
        made(scenes, tmp_path / "out", worker=Worker(number, 9))
    assert not [file.name for file in (tmp_path / "out").glob(".*") if not list(file.glob("*.npz"))]


def test_a_map_that_somebody_else_makes_meanwhile_is_no_failure(
    scenes: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They remove the strips, of which one is just being written."""
    keep = jobs._keep

    def late(job: Any, *arguments: Any) -> None:
        monkeypatch.undo()
        made(scenes[:1], tmp_path / "out")
        (tmp_path / "out" / job.work.name).write_bytes(b"")  # as where the folder goes away while a strip is written
        keep(job, *arguments)

    monkeypatch.setattr(jobs, "_keep", late)
    assert not made(scenes[:1], tmp_path / "out").failures and (tmp_path / "out" / "a.tif").is_file()


def test_a_damaged_strip_is_computed_again(scenes: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(scenes[:1], tmp_path / "whole")
    interrupted(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        made(scenes[:1], tmp_path / "out")
    monkeypatch.undo()
    part = min((tmp_path / "out").rglob("*.npz"))
    part.write_bytes(part.read_bytes()[:-100])
    (failure,) = made(scenes[:1], tmp_path / "out").failures
    assert str(part) in failure and "run the same command again" in failure
    computed = counting_windows(monkeypatch)
    made(scenes[:1], tmp_path / "out")
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert sum(computed) < 9  # the other strips have stayed


def test_it_is_said_that_a_large_map_is_put_together(
    scenes: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, said = MapSpec(native=None), list[str]()
    for pixels in (10**8, 1):
        monkeypatch.setattr(jobs, "_LARGE", pixels)
        make_maps(
            plan_maps(asked(scenes[:1], tmp_path / f"{pixels}", spec), rows("sclip"), spec, PLAIN),
            spec,
            say=said.append,
        )
    (line,) = said
    assert "the map is put together" in line


def test_a_row_that_spoils_what_all_share_ends_the_job(scenes: list[Path], tmp_path: Path) -> None:
    group = rows("sclip")
    backbone: Any = group.segmenters[0].backbone
    (row,) = group.segmenters[0].rows
    before = backbone.visual.conv1.weight.clone()

    def spoils(trunk: Any) -> Any:
        trunk.visual.conv1.weight.mul_(2)
        return row.method(trunk)

    group.segmenters[0].rows = [replace(row, method=spoils, weights=[backbone.weights])]
    try:
        with pytest.raises(SharedStateLost):
            made(scenes, tmp_path / "out", group)
    finally:
        backbone.visual.conv1.weight.copy_(before)


def test_methods_that_share_windows_have_the_maps_of_each_alone(scenes: list[Path], tmp_path: Path) -> None:
    made(scenes[:1], tmp_path / "both", rows("sclip", "maskclip"))
    for name in ("sclip", "maskclip"):
        made(scenes[:1], tmp_path / name, rows(name))
        assert np.array_equal(labels(tmp_path / "both" / f"a.{name}.tif"), labels(tmp_path / name / "a.tif"))


def test_all_scenes_are_looked_at_before_the_first_is_computed(
    scenes: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = counting_windows(monkeypatch)
    scene(scenes[2], noise().astype(np.uint16))
    with pytest.raises(BenchError, match=r"c\.tif: uint16 pixels; give --stretch"):
        made(scenes, tmp_path / "out")
    assert not computed and not list((tmp_path / "out").iterdir())


def test_scenes_outside_of_what_is_asked_for_have_no_map(scenes: list[Path], tmp_path: Path) -> None:
    scene(scenes[1], noise(), crs="EPSG:4326", metres=1e-6)
    spec = MapSpec(native=None, bounds="500010,5599950,500050,5600000")
    said: list[str] = []
    plan = plan_maps(asked(scenes, tmp_path / "out", spec), rows("sclip"), spec, PLAIN, said.append)
    assert [job.source for job in plan] == [scenes[0], scenes[2]]
    assert len(said) == 1 and said[0].startswith(f"{scenes[1]}: nothing of it lies in --bounds")
    elsewhere = tmp_path / "area.geojson"
    elsewhere.write_text('{"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}')
    with pytest.raises(BenchError, match=r"a\.tif: nothing of it lies in --mask"):
        made(scenes[:1], tmp_path / "out", mask=elsewhere)


def test_control_points_are_no_place(tmp_path: Path) -> None:
    from rasterio.control import GroundControlPoint

    file = scene(tmp_path / "scene.tif", noise(), crs=None)
    corners = [
        GroundControlPoint(row, column, 8 + column / 1e3, 50 - row / 1e3)
        for row, column in ((0, 0), (0, 110), (150, 0))
    ]
    with rasterio.open(file, "r+") as opened:
        opened.gcps = corners, rasterio.crs.CRS.from_epsg(4326)
    spec = MapSpec(native=None)
    (job,) = plan_maps(asked([file], tmp_path, spec), rows("sclip"), spec, PLAIN)
    assert "its control points or RPCs are not used (gdalwarp gives it a place)" in job.note


def test_odd_scenes_have_maps_too(tmp_path: Path) -> None:
    """No data at all, a single pixel, a line, south up, a name of signs; in all formats."""
    odd = {
        "empty": scene(tmp_path / "empty.tif", np.zeros((3, 90, 80), np.uint8), nodata=0),
        "pixel": scene(tmp_path / "pixel.tif", noise(1, 1)),
        "a [line] & ü": scene(tmp_path / "a [line] & ü.tif", noise(1, 90)),
        "south": scene(tmp_path / "south.tif", noise(), metres=-0.5),
    }
    assert made(list(odd.values()), tmp_path / "out", **EVERYTHING) == (0, [])
    for name, source in odd.items():
        with rasterio.open(source) as before, rasterio.open(tmp_path / "out" / f"{name}.tif") as after:
            assert (after.shape, after.transform) == (before.shape, before.transform)
            assert (after.read(1) == 255).all() == (name == "empty")
            assert pyogrio.read_info(tmp_path / "out" / f"{name}.gpkg", layer="map")["features"] > 0 or name == "empty"


def test_polygons_need_a_coordinate_system_before_anything_is_computed(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    Image.fromarray(noise().transpose(1, 2, 0)).save(photo)
    (tmp_path / "photo.pgw").write_text("0.5\n0\n0\n-0.5\n500000.25\n5599999.75\n")
    with pytest.raises(BenchError, match=r"photo\.png: has no coordinate system, so its pixels have no size"):
        made([photo], tmp_path / "out", format="gpkg")


def test_the_rest_of_a_share_waits_in_a_hidden_folder(scenes: list[Path], tmp_path: Path) -> None:
    made(scenes[:1], tmp_path / "out", worker=Worker(0, 2))
    (folder,) = (tmp_path / "out").iterdir()
    assert folder.name.startswith(".a.") and folder.name.endswith(".parts")
    shutil.rmtree(folder)
