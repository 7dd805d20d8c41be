"""What is to be computed of each scene, and what is there already; all scenes are looked at before the first."""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final, NamedTuple

import bench
from bench.errors import BenchError
from bench.inference.row import Row
from bench.inference.segmenter import Segmenter
from bench.inference.visualize import Style
from bench.inference.windows import window_boxes
from bench.maps.legend import Legend
from bench.maps.outputs import MapFiles
from bench.maps.polygons import check_polygons
from bench.maps.scene import Outside, dropped_bands, files_of, has_loose_place, has_place, open_scene
from bench.maps.spec import POLYGONS, MapSpec
from bench.maps.strips import strip_edges
from bench.maps.view import View
from bench.models.text import Vocabulary
from bench.settings import Settings

_KEY: Final = 12  # letters of a work folder's name


@dataclass(frozen=True)
class RowGroup:
    """Rows that all have the same words, ready for scenes: a segmenter for those that share windows."""

    segmenters: Sequence[Segmenter]
    settings: Mapping[str, Settings]
    vocabulary: Vocabulary


@dataclass(frozen=True)
class Pass:
    """The rows of one segmenter on a scene. native: at the scene's own resolution, in strips between `edges`."""

    segmenter: Segmenter
    native: bool
    edges: Sequence[int]
    windows: int

    @property
    def strips(self) -> int:
        """Number of strips."""
        return len(self.edges) - 1


@dataclass(frozen=True)
class SceneJob:
    """One scene.

    note: at what size it is worked at, and what of it is not looked at. files: of each row's map. work: folder of its
    strips while it is not done.
    """

    source: Path
    view: View
    note: str
    passes: Sequence[Pass]
    files: Mapping[str, MapFiles]
    work: Path

    @property
    def windows(self) -> int:
        """Windows of all passes."""
        return sum(one.windows for one in self.passes)

    @property
    def strips(self) -> int:
        """Strips of all passes."""
        return sum(one.strips for one in self.passes)

    def is_done(self) -> bool:
        """Return whether all maps are there, made in the same way of the same scene."""
        return all(files.is_there() for files in self.files.values())

    def part(self, number: int, strip: int) -> Path:
        """File of a strip of a pass."""
        return self.work / f"{number}-{strip:06}.npz"

    def works(self) -> Iterator[Path]:
        """Yield folders of strips beside these maps: their own, and those of other settings, which were given up."""
        name = glob.escape(self.work.name.removesuffix(".parts")[:-_KEY])
        return self.work.parent.glob(f"{name}{'?' * _KEY}.parts")

    def missing(self) -> int:
        """Return how many strips are not there yet."""
        numbers = [(number, strip) for number, one in enumerate(self.passes) for strip in range(one.strips)]
        return sum(not self.part(*number).is_file() for number in numbers)


class AskedScene(NamedTuple):
    """A scene that is to be a map. base: path of the map, without an ending. view: the spec's, with levels."""

    source: Path
    base: Path
    view: View


def plan_maps(
    scenes: Sequence[AskedScene],
    rows: RowGroup,
    spec: MapSpec,
    style: Style,
    say: Callable[[str], None] = lambda _: None,
) -> list[SceneJob]:
    """Look at all scenes before the first is computed. BenchError for the first that cannot be had.

    say: told of scenes that lie outside of what is asked for; where all do, the first is a BenchError.
    """
    jobs: list[SceneJob] = []
    outside: list[Outside] = []
    for asked in scenes:
        try:
            jobs.append(_scene_job(asked, rows, spec, style))
        except Outside as error:
            outside.append(error)
    if outside and not jobs:
        raise outside[0]
    for one in outside:
        say(f"{one}; it has no map")
    _check_names(jobs)
    return jobs


def _check_names(jobs: Sequence[SceneJob]) -> None:
    """BenchError where two maps would have one name, or a map that of an image."""
    written: dict[Path, Path] = {}
    for job in jobs:
        for file in (file for files in job.files.values() for file in files.all()):
            if file in written:
                raise BenchError(
                    f"{written[file]} and {job.source} would both be written to {file}; rename one of them"
                )
            written[file] = job.source
    sources = {file.resolve() for job in jobs for file in files_of(job.source)}
    for file in written:
        if file.resolve() in sources:
            raise BenchError(f"-o {file}: would overwrite the image; give another name")


def _scene_job(asked: AskedScene, rows: RowGroup, spec: MapSpec, style: Style) -> SceneJob:
    source, base, view = asked
    with open_scene(source, view) as scene:
        size, place = (scene.height, scene.width), scene.place
    passes = [pass_over(one, size, spec.native, place is not None or has_place(source)) for one in rows.segmenters]
    formats = spec.format or (("png",) if place is None else ("tif",))
    if any(one in POLYGONS for one in formats):
        try:
            check_polygons(place, size, formats)
        except ValueError as error:
            raise BenchError(f"{source}: {error}") from None
    changed = datetime.fromtimestamp(source.stat().st_mtime, timezone.utc)
    shared: dict[str, Any] = {
        "formats": formats,
        "legend": Legend(rows.vocabulary.names, style.of(rows.vocabulary.size)),
        "style": style,
        "date": changed.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "outlines": spec.outlines,
        "depth": spec.probabilities,
        "scores": spec.scores,
    }
    files, of_scene = {}, _about_scene(source, rows, spec, view, style)
    for one in passes:
        for row in one.segmenter.rows:
            own = base if len(rows.settings) == 1 else base.with_name(f"{base.name}.{_file_name(row.name)}")
            about = of_scene | _about(row, one, rows.settings[row.name], spec.dtype)
            files[row.name] = MapFiles(base=own, about={**about, "key": _hash(about)}, **shared)
    key = _hash([one.about["key"] for one in files.values()])[:_KEY]
    note = _note(source, size, passes, view)
    return SceneJob(source, view, note, passes, files, base.with_name(f".{base.name}.{key}.parts"))


def pass_over(segmenter: Segmenter, size: tuple[int, int], native: bool | None, georeferenced: bool) -> Pass:
    """Decide how the rows of a segmenter go over a scene (height, width).

    native: at the scene's own resolution; None: what is georeferenced, where the rows can do it.
    """
    whole = next((row for row in segmenter.rows if not row.works_in_parts), None)
    if native and whole is not None:
        what = "method" if whole.collects else "refinement"
        raise BenchError(f"row '{whole.name}': its {what} needs the whole image at once; give --resize N, such as 448")
    if native or (native is None and georeferenced and whole is None):
        return Pass(segmenter, True, strip_edges(size[0], segmenter), _count(segmenter, size))
    assert segmenter.resize is not None
    return Pass(segmenter, False, (0, size[0]), _count(segmenter, segmenter.resize.size(*size)))


def _count(segmenter: Segmenter, size: tuple[int, int]) -> int:
    return len(window_boxes(*size, segmenter.window, segmenter.stride))


def _note(source: Path, size: tuple[int, int], passes: Sequence[Pass], view: View) -> str:
    """Say at what size a scene is worked at, and what of it is not looked at."""
    height, width = size
    said = f"{width}x{height} pixels, at its own resolution"
    if view.gsd is not None:
        said = f"{width}x{height} pixels of {view.gsd:g} m"
    shrunk = next((one for one in passes if not one.native), None)
    if shrunk is not None:
        assert shrunk.segmenter.resize is not None
        small_h, small_w = shrunk.segmenter.resize.size(height, width)
        said = f"{width}x{height} pixels, "
        said += "at once" if (small_h, small_w) == size else f"resized to {small_w}x{small_h}"
        if max(size) > 2 * max(small_h, small_w):
            said += f", {max(size) / max(small_h, small_w):.1f} times smaller: small things are lost; "
            said += "`--resize none` keeps its resolution"
    if has_loose_place(source):
        said += "; its control points or RPCs are not used (gdalwarp gives it a place)"
    if bands := dropped_bands(source, view.bands):
        said += f"; {bands}"
    if view.levels is not None:
        ends = (f"{low:g}..{high:g}" for low, high in zip(*view.levels, strict=True))
        said += f"; black and white are {', '.join(dict.fromkeys(ends))}"
    return f"{source}: {said}"


def _about_scene(source: Path, rows: RowGroup, spec: MapSpec, view: View, style: Style) -> dict[str, Any]:
    """Say how the maps of a scene are made, as far as it is the same for all rows."""
    first, *others = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files_of(source)]
    return {
        "made_by": f"ovss-bench {bench.__version__}",
        "scene": [*first, _hash(others)] if others else first,
        "classes": rows.vocabulary.words,
        "view": repr(replace(view, area=None)),
        "mask": view.area and _hash(view.area),
        "blend": spec.blend,
        "outlines": spec.outlines,
        "probabilities": spec.probabilities,
        "scores": spec.scores is not None,
        "style": repr((style.of(rows.vocabulary.size), style.alpha, style.contours, style.clear)),
    }


def _about(row: Row, on: Pass, settings: Settings, dtype: str) -> dict[str, Any]:
    """Say how the map of a row is made."""
    return {
        "row": row.name,
        "settings": settings.model_dump(mode="json"),
        "inputs": dict(row.inputs),
        "native": on.native,
        "batch": on.segmenter.batch,
        "precision": [on.segmenter.backbone.device.type, dtype],
    }


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _file_name(row: str) -> str:
    """Return the row's name with nothing in it that a file's name may not hold."""
    return "".join(sign if sign.isalnum() or sign in "+-_.=," else "-" for sign in row)
