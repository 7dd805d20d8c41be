"""Maps of many scenes: whoever computes which strips of them, and whenever.

Each strip is kept in a hidden folder beside the map as soon as it is there, so that a killed process, or another one,
goes on from it; the strips are the same whoever computes them.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from bench.errors import BenchError, SharedStateLost, writing
from bench.evaluation.dataset_run import Progress
from bench.inference.row import Row
from bench.maps.outputs import CONTINUES, MapStrip, packed
from bench.maps.plan import Pass, SceneJob
from bench.maps.scene import Scene, bounded_cache, open_scene
from bench.maps.spec import Blend, Depth, MapSpec
from bench.maps.strips import gaussian, of_row, score_strips
from bench.models.collector import Box
from bench.runtime.atomic import write_atomic
from bench.runtime.threads import Backlog
from bench.settings import IGNORED


class Worker(NamedTuple):
    """One of several that share the work. number: from 0. among: how many there are."""

    number: int
    among: int


ALONE: Final = Worker(0, 1)
_LARGE: Final = 10**8  # pixels of a map that takes ten seconds or more to be put together


def make_maps(
    jobs: Sequence[SceneJob],
    spec: MapSpec,
    worker: Worker = ALONE,
    report: Callable[[Progress], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Compute a share of the strips of all scenes, and write the maps whose strips are all there.

    What is there already is not computed again. A scene that fails does not end the others; what is there of it stays.
    say: told at once of a scene that fails, and when a large map is put together.
    Returns a line for each scene that failed. Raises SharedStateLost where a row changed what all share.
    """
    failures: list[str] = []
    for number, (job, shares) in enumerate(zip(jobs, _shares(jobs, worker), strict=True), 1):
        if job.is_done():
            continue
        progress = _SceneProgress(report, job.source.name, number, len(jobs), _windows_left(job, shares))
        try:
            with bounded_cache(), open_scene(job.source, job.view) as scene:
                for index, wanted in enumerate(shares):
                    _compute(job, index, wanted, scene, spec, progress)
                if not job.missing():
                    if scene.height * scene.width >= _LARGE:
                        say(f"{job.source}: all strips are there; the map is put together, which takes a while")
                    _finish(job, scene)
        except SharedStateLost:
            raise  # the next scene would be computed with what a row has spoilt
        except BenchError as error:
            if job.is_done():  # by somebody who computed the same, and has removed the strips
                continue
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
        _make_work_folder(job)  # or say at once why not
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


def _make_work_folder(job: SceneJob) -> None:
    with writing(job.work.parent, CONTINUES):
        job.work.mkdir(parents=True, exist_ok=True)


def _keep(job: SceneJob, index: int, number: int, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write one strip to the work folder."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # mypy takes a name for allow_pickle
    _make_work_folder(job)  # another worker, who failed, removes it while it is empty
    with writing(job.work, CONTINUES):
        write_atomic(job.part(index, number), buffer.getvalue())


def _finish(job: SceneJob, scene: Scene) -> None:
    """Write the maps of a scene, whose strips are all there, and remove these; one worker alone does it."""
    with writing(job.work, CONTINUES), FileLock(job.work / "lock"):
        if not job.is_done():  # by another worker, meanwhile
            for index, one in enumerate(job.passes):
                for place, row in enumerate(one.segmenter.rows):
                    job.files[row.name].write(_kept(job, index, place), scene, job.work)
        for folder in job.works():
            shutil.rmtree(folder, ignore_errors=True)


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
