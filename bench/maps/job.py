"""Many scenes, several methods: what is to be computed, by whom, and what is there already.

A scene is computed in strips. Each is kept in a hidden folder beside the map as soon as it is there, so that a killed
process, or another one, goes on from it; the strips are the same whoever computes them.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import io
import itertools
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

import bench
from bench.errors import BenchError, SharedStateLost, writing
from bench.evaluation.dataset_run import Progress
from bench.inference.row import Row
from bench.inference.segmenter import Segmenter
from bench.inference.visualize import Style
from bench.inference.windows import window_starts
from bench.maps.legend import Legend
from bench.maps.outputs import CONTINUES, MapFiles, MapStrip, packed
from bench.maps.scene import (
    Outside,
    Scene,
    bounded_cache,
    dropped_bands,
    files_of,
    has_loose_place,
    has_place,
    open_scene,
)
from bench.maps.spec import POLYGONS, Blend, Depth, MapSpec
from bench.maps.strips import gaussian, of_row, score_strips, strip_edges
from bench.maps.view import View
from bench.models.collector import Box
from bench.models.text import Vocabulary
from bench.runtime.atomic import write_atomic
from bench.runtime.threads import Backlog
from bench.settings import IGNORED, Settings

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

    def missing(self) -> int:
        """Return how many strips are not there yet."""
        numbers = [(number, strip) for number, one in enumerate(self.passes) for strip in range(one.strips)]
        return sum(not self.part(*number).is_file() for number in numbers)


class Worker(NamedTuple):
    """One of several that share the work. number: from 0. among: how many there are."""

    number: int
    among: int


ALONE: Final = Worker(0, 1)


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
    if (place is None or place.crs is None) and any(one in POLYGONS for one in formats):
        what = "lies nowhere on Earth" if place is None else "has no coordinate system (gdal_edit.py -a_srs sets one)"
        raise BenchError(f"{source}: {what}, so it has no polygons; leave --format gpkg and geojson out")
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
    down, across = (
        len(set(window_starts(side, segmenter.window, segmenter.stride))) if segmenter.window else 1 for side in size
    )
    return down * across


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
    state = source.stat()
    return {
        "made_by": f"ovss-bench {bench.__version__}",
        "scene": [source.name, state.st_size, state.st_mtime_ns],
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


def make_maps(
    jobs: Sequence[SceneJob],
    spec: MapSpec,
    worker: Worker = ALONE,
    report: Callable[[Progress], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Compute a share of the strips of all scenes, and write the maps whose strips are all there.

    What is there already is not computed again. A scene that fails does not end the others; what is there of it stays.
    say: told at once of a scene that fails.
    Returns a line for each scene that failed. Raises SharedStateLost where a row changed what all share.
    """
    failures: list[str] = []
    for number, (job, shares) in enumerate(zip(jobs, _shares(jobs, worker), strict=True), 1):
        if job.is_done():
            continue
        progress = _SceneProgress(report, job.source.name, number, len(jobs), _windows_left(job, shares))
        try:
            with writing(job.work.parent, CONTINUES):
                job.work.mkdir(parents=True, exist_ok=True)
            with bounded_cache(), open_scene(job.source, job.view) as scene:
                for index, wanted in enumerate(shares):
                    _compute(job, index, wanted, scene, spec, progress)
                _finish(job, scene)
        except SharedStateLost:
            raise  # the next scene would be computed with what a row has spoilt
        except BenchError as error:
            with contextlib.suppress(OSError):  # it holds strips, which stay for the next time
                job.work.rmdir()
            failures.append(str(error))
            say(str(error))
    return failures


def windows_left(jobs: Sequence[SceneJob], worker: Worker = ALONE) -> int:
    """Return how many windows a worker still has to compute."""
    shares = zip(jobs, _shares(jobs, worker), strict=True)
    return sum(_windows_left(job, share) for job, share in shares if not job.is_done())


def _windows_left(job: SceneJob, shares: Sequence[range]) -> int:
    missing = (
        one.windows / one.strips * sum(not job.part(index, strip).is_file() for strip in wanted)
        for index, (one, wanted) in enumerate(zip(job.passes, shares, strict=True))
    )
    return round(sum(missing))


class _SceneProgress:
    """Windows of one scene that are through, of those that are to be computed."""

    def __init__(self, report: Callable[[Progress], None], name: str, number: int, count: int, windows: int) -> None:
        self._report, self._all = report, Progress(name, number, count, 0, windows)

    def add(self, windows: int) -> None:
        """Count windows; those around strips that are there already are computed twice."""
        self._all = self._all._replace(done=min(self._all.done + windows, self._all.total))
        self._report(self._all)


def _shares(jobs: Sequence[SceneJob], worker: Worker) -> list[list[range]]:
    """Return the strips of each pass of each job whose first window is in a worker's share of all windows."""
    total, before = sum(job.windows for job in jobs), 0
    first, last = (total * number / worker.among for number in (worker.number, worker.number + 1))
    shares: list[list[range]] = []
    for job in jobs:
        shares.append([])
        for one in job.passes:
            each = one.windows / one.strips
            numbers = [number for number in range(one.strips) if first <= before + number * each < last]
            shares[-1].append(range(numbers[0], numbers[-1] + 1) if numbers else range(0))
            before += one.windows
    return shares


def _compute(job: SceneJob, index: int, wanted: range, scene: Scene, spec: MapSpec, progress: _SceneProgress) -> None:
    """Compute the strips of a pass that are wanted and not there, each run of neighbours from top to bottom."""
    one = job.passes[index]
    for there, group in itertools.groupby(wanted, lambda number: job.part(index, number).is_file()):
        numbers = list(group)
        if there:
            continue
        strips = range(numbers[0], numbers[-1] + 1)
        with ThreadPoolExecutor(1) as pool:
            writer = Backlog(pool, 1)  # packs and writes a strip while the next one is computed
            for number, scores in zip(strips, scored(one, scene, strips, spec.blend, progress.add), strict=True):
                writer.add(_keep, job, index, number, _strip_arrays(one, number, scores, scene, spec))
            writer.finish()


def scored(
    one: Pass,
    scene: Scene,
    strips: range | None = None,
    blend: Blend = "mean",
    done: Callable[[int], None] = lambda _: None,
) -> Iterator[dict[str, Tensor]]:
    """Yield strips of a pass: row name -> scores (Q, h, w) at the network's size. done: told of windows."""
    if one.native:
        yield from score_strips(one.segmenter, scene, strips, gaussian if blend == "gaussian" else None, done)
        return
    size = scene.height, scene.width
    found = one.segmenter.scores_of_original(scene.read(Box(0, 0, *size)), size)
    done(one.windows)
    yield {row.name: of_row(row, found[row.name], scene.name) for row in one.segmenter.rows}


def strip_of(row: Row, scores: Tensor, box: Box, scene: Scene, depth: Depth | None = None) -> MapStrip:
    """Make a strip of a map, the rows of `box`, of its scores (Q, h, w)."""
    winners, empty = row.winners(scores, box.size), scene.empty(box)
    labels = row.thresholded(winners)
    if empty is not None:
        labels = np.where(empty, np.uint8(IGNORED), labels)
    return MapStrip(
        labels, winners.bins, None if depth is None else packed(row.probabilities(scores, box.size), empty, depth)
    )


def _strip_arrays(
    one: Pass, number: int, scores: Mapping[str, Tensor], scene: Scene, spec: MapSpec
) -> dict[str, NDArray[Any]]:
    """Make all that is kept of one strip, of all rows of a pass."""
    box = Box(one.edges[number], 0, one.edges[number + 1], scene.width)
    arrays: dict[str, NDArray[Any]] = {}
    for place, row in enumerate(one.segmenter.rows):
        strip = strip_of(row, scores[row.name], box, scene, spec.probabilities)
        if spec.scores:
            strip = strip._replace(scores=scores[row.name].cpu().numpy())
        arrays |= {f"{place}.{name}": value for name, value in strip._asdict().items() if value is not None}
    return arrays


def _keep(job: SceneJob, index: int, number: int, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write one strip to the work folder."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # mypy takes a name for allow_pickle
    with writing(job.work, CONTINUES):
        write_atomic(job.part(index, number), buffer.getvalue())


def _finish(job: SceneJob, scene: Scene) -> None:
    """Write the maps of a scene if all of its strips are there; one worker alone does it."""
    try:
        with FileLock(job.work / "lock"):
            if not job.is_done():  # by another worker, meanwhile
                if job.missing():
                    return
                for index, one in enumerate(job.passes):
                    for place, row in enumerate(one.segmenter.rows):
                        job.files[row.name].write(_kept(job, index, place), scene, job.work)
            stem = job.work.name.rsplit(".", 2)[0]
            for folder in job.work.parent.glob(f"{glob.escape(stem)}.{'?' * _KEY}.parts"):
                shutil.rmtree(folder, ignore_errors=True)  # also of other settings, which somebody has given up
    except OSError as error:
        if not job.is_done():  # else another worker has removed the folder
            raise BenchError(f"{job.work}: cannot be written ({error.strerror or error}); {CONTINUES}") from None


def _kept(job: SceneJob, index: int, place: int) -> Iterator[MapStrip]:
    """Read the strips of a row. BenchError for a damaged one, which the same command then computes again."""
    for number in range(job.passes[index].strips):
        file = job.part(index, number)
        try:
            with np.load(file) as arrays:
                found = {name: arrays[f"{place}.{name}"] for name in MapStrip._fields if f"{place}.{name}" in arrays}
            yield MapStrip(**found)
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
            with contextlib.suppress(OSError):
                file.unlink()
            raise BenchError(f"{file}: was damaged, and is removed; run the same command again") from None
