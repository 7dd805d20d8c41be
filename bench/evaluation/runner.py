"""A run: every dataset in one pass over its images, every result stored as it goes."""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray

from bench.config import Config
from bench.data.contents import ContentCache
from bench.data.images import at_sizes, resize
from bench.data.loader import Loaded, load
from bench.data.samples import SampleSet
from bench.errors import BenchError
from bench.evaluation.loop import Outcome, RowGroup, Scoring, evaluate
from bench.evaluation.models import ModelCache
from bench.evaluation.plan import DatasetJobs, Job
from bench.inference.segmenter import Segmenter
from bench.inference.visualize import Colour, palette_png
from bench.runtime.device import peak_memory
from bench.runtime.distributed import Distributed
from bench.runtime.threads import Backlog
from bench.runtime.timing import wait_for_gpu
from bench.store.maps import LabelMaps
from bench.store.record import Info, ResultSpec, identity
from bench.store.store import Store
from bench.store.writer import ResultWriter

_EXCHANGE = 16  # outcomes that a process collects before it hands them over
_MAPS = 16  # label maps that wait to be written


@dataclass(frozen=True)
class RunOptions:
    """How a run goes about its cells; none of it changes a number.

    batch: windows at once. workers: processes that decode. limit: only the first N images of each dataset. shard:
    (i, n), only the i-th of n parts of each. fresh: forget what is stored. boundary: count boundaries as well.
    allow_incomplete: a dataset with fewer images than its card expects is no failure. maps: of how many images of each
    dataset label maps are kept, spread evenly over it.
    """

    batch: int = 4
    workers: int = 2
    limit: int | None = None
    shard: tuple[int, int] | None = None
    fresh: bool = False
    boundary: bool = False
    allow_incomplete: bool = False
    maps: int = 0


class Progress(NamedTuple):
    """How far a run is: `done` of the `total` images that are due of the dataset, which is number `number` of
    `datasets`."""

    dataset: str
    number: int
    datasets: int
    done: int
    total: int


@dataclass(frozen=True)
class Run:
    """Models, store and configuration of a run. distributed: the processes that share its images. report: called with
    the progress after each image, on the main process.
    """

    models: ModelCache
    store: Store
    config: Config
    options: RunOptions = field(default_factory=RunOptions)
    distributed: Distributed = field(default_factory=Distributed)
    report: Callable[[Progress], None] = lambda _: None

    def total(self, dataset: DatasetJobs) -> int:
        """Images of a dataset that a complete result of this run holds."""
        return min(len(dataset.samples or ()), self.options.limit or sys.maxsize)

    def label(self, job: Job) -> str:
        """What tables call the job's row."""
        return self.config.row(job.settings.row).title(self.models.methods[job.settings.method].label)

    def indices(self, dataset: DatasetJobs) -> range:
        """Images of a dataset that fall to this run: all, or its shard's consecutive share."""
        first, last = share(self.total(dataset), *(self.options.shard or (0, 1)))
        return range(first, last)

    def kept(self, dataset: DatasetJobs) -> list[tuple[int, str]]:
        """The images (number, id) of this run whose label maps are kept."""
        total = self.total(dataset)
        count = min(self.options.maps, total)
        spread = [number * total // count for number in range(count)]
        assert dataset.samples is not None
        return [(index, dataset.samples.ids[index]) for index in spread if index in self.indices(dataset)]

    def label_maps(self, job: Job) -> LabelMaps:
        """Where label maps of a job are kept."""
        folder = self.store.place(job.settings.row, job.settings.dataset)
        return LabelMaps(folder, identity(job.settings, job.inputs), job.settings)


def share(total: int, part: int, parts: int) -> tuple[int, int]:
    """Bounds of the `part`-th of `parts` consecutive shares of `total`, which differ by one at the most."""
    return total * part // parts, total * (part + 1) // parts


def execute(run: Run, datasets: Sequence[DatasetJobs]) -> None:
    """Evaluates what is due and stores it, dataset by dataset.

    Whatever ends it early, what was computed is on the disk. Raises KeyboardInterrupt and what the store raises; a
    failing row is recorded with its reason and does not.
    """
    with ThreadPoolExecutor(1) as parts, ThreadPoolExecutor(1) as finishing:
        background = _Background(parts, finishing)
        done = []
        for number, dataset in enumerate(datasets, 1):
            done += _execute(run, dataset, Progress(dataset.card.name, number, len(datasets), 0, 0), background)
    for future in done:
        future.result()


class _Background(NamedTuple):
    """Threads that write while images are counted: parts and label maps of the results that are growing, and, so that
    these need not wait, whole results of the dataset before.
    """

    parts: Executor
    finishing: Executor


def _execute(run: Run, dataset: DatasetJobs, progress: Progress, background: _Background) -> list[Future[None]]:
    due = dataset.due
    _record_gaps(run, dataset, due)
    ready = [job for job in due if job.variant is not None]
    if dataset.samples is None or dataset.refused or not ready:
        return []
    ready, twins = _without_twins(run, ready)
    writers = _open_writers(run, dataset, ready, background.parts) if run.distributed.is_main else {}
    _warn_of_mixtures(run, dataset, writers)
    todo = run.indices(dataset)
    uncounted = run.distributed.shared({row: set(todo) - writer.done for row, writer in writers.items()})
    maps = _open_maps(run, dataset, ready) if run.distributed.is_main else {}
    unkept = run.distributed.shared({row: own.missing(run.kept(dataset)) for row, own in maps.items()})
    chosen = {index for index, _ in run.kept(dataset)}
    keep = {row: unkept.get(row, set()) | (images & chosen) for row, images in uncounted.items()}
    pending = {row: images | keep[row] for row, images in uncounted.items()}
    started = time.monotonic()
    drawing = Backlog(background.parts, _MAPS)
    failures: dict[str, str] = {}
    contents: dict[int, str | None] = {}
    try:
        for outcome in _outcomes(run, dataset, pending, keep, progress):
            writer = writers[outcome.row]
            if outcome.labels is not None:
                sample = dataset.samples.ids[outcome.index]
                drawing.add(_keep_map, maps[outcome.row], sample, outcome.labels, dataset.card.colours)
            if outcome.index not in uncounted[outcome.row]:
                _warn_of_map(dataset, outcome)
            elif outcome.error is None:
                writer.add(outcome.index, outcome.keys, outcome.counts, outcome.boundary, outcome.content)
                contents[outcome.index] = outcome.content
            else:
                writer.fail(outcome.index, outcome.error)
                if outcome.gives_up:
                    failures[outcome.row] = outcome.error
        drawing.finish()
    except BaseException:
        with contextlib.ExitStack() as flushing:  # one that cannot write keeps no other from it
            for writer in writers.values():
                flushing.callback(writer.flush)
        raise
    if run.distributed.is_main:
        _remember(dataset.samples, contents)
    seconds = (time.monotonic() - started) / max(len(writers), 1)
    peak = peak_memory(run.models.device)
    submit = background.finishing.submit
    done = [submit(writer.finish, seconds, peak, failures.get(row)) for row, writer in writers.items()]
    return done + [submit(_finish_twin, run, dataset, job) for job in twins if run.distributed.is_main]


def _open_maps(run: Run, dataset: DatasetJobs, jobs: Sequence[Job]) -> dict[str, LabelMaps]:
    if not run.options.maps:
        return {}
    found = {job.settings.row: run.label_maps(job) for job in jobs}
    for maps in found.values():
        maps.begin()
    return found


def _keep_map(maps: LabelMaps, sample: str, labels: NDArray[np.uint8], colours: Sequence[Colour]) -> None:
    maps.write(sample, palette_png(labels, colours))


def _warn_of_map(dataset: DatasetJobs, outcome: Outcome) -> None:
    """An image that is counted already, but whose map could not be made now."""
    if outcome.error is not None:
        message = f"{outcome.row} on {dataset.card.name}: no label map: {outcome.error}"
        print(f"bench: warning: {message}", file=sys.stderr)


def _without_twins(run: Run, jobs: Sequence[Job]) -> tuple[list[Job], list[Job]]:
    """The jobs to be counted, and those that differ from one of them in what is applied to counts alone.

    Boundaries and label maps depend on the threshold, and shards are put together later, so all are counted then.
    """
    if run.options.boundary or run.options.shard or run.options.maps:
        return list(jobs), []
    first: dict[str, Job] = {}
    for job in jobs:
        first.setdefault(identity(job.settings, job.inputs), job)
    counted = list(first.values())
    return counted, [job for job in jobs if not any(job is one for one in counted)]


def _finish_twin(run: Run, dataset: DatasetJobs, job: Job) -> None:
    """Stores a result whose counts another row of the run has got by now."""
    run.store.open(_spec(run, dataset, job), run.indices(dataset)).finish()


def _remember(samples: SampleSet, contents: Mapping[int, str | None]) -> None:
    """Keeps the checksums that were computed while reading, so that the next plan need not read the files."""
    by_source = {}
    for source, indices in enumerate(samples.sources):
        content = next((contents[index] for index in indices if contents.get(index)), None)
        if content:
            by_source[source] = content
    ContentCache(samples).remember(by_source)


def _warn_of_mixtures(run: Run, dataset: DatasetJobs, writers: Mapping[str, ResultWriter]) -> None:
    """Name once what differs between this machine and the one that counted images that are already stored."""
    mixtures = set()
    for row, writer in writers.items():
        stored = run.store.cell(row, dataset.card.name)
        if writer.done and stored is not None and stored.mixture:
            mixtures.add(stored.mixture)
    for mixture in sorted(mixtures):
        print(f"bench: warning: {dataset.card.name}: {mixture}", file=sys.stderr)


def probe(run: Run, dataset: DatasetJobs) -> float:
    """Seconds that one image of the dataset takes here, all its due rows together, measured on noise."""
    ready = [job for job in dataset.due if job.variant is not None]
    groups = groups_of(run, ready)
    started = time.monotonic()
    for group in groups:
        noise = np.random.default_rng(0).integers(0, 255, (1000, 1000, 3), dtype=np.uint8)
        group.segmenter.scores(resize(noise, group.resize), larger=at_sizes(noise, group.segmenter.rules))
    wait_for_gpu()
    return time.monotonic() - started


def _record_gaps(run: Run, dataset: DatasetJobs, jobs: Sequence[Job]) -> None:
    if not run.distributed.is_main:
        return
    for job in jobs:
        reason = dataset.missing or dataset.refused or job.error
        if reason:
            run.store.record_gap(_spec(run, dataset, job), "no data" if dataset.missing else "failed", reason)


def _open_writers(run: Run, dataset: DatasetJobs, jobs: Sequence[Job], parts: Executor) -> dict[str, ResultWriter]:
    indices, boundary, fresh = run.indices(dataset), run.options.boundary, run.options.fresh
    writers = {}
    for job in jobs:
        writer = run.store.open(_spec(run, dataset, job), indices, boundary=boundary, fresh=fresh)
        writer.background = parts
        writers[job.settings.row] = writer
    return writers


def _spec(run: Run, dataset: DatasetJobs, job: Job) -> ResultSpec:
    method, samples = run.models.methods[job.settings.method], dataset.samples
    info = Info(
        label=run.label(job),
        venue=method.venue,
        device=run.models.device,
        dtype=run.models.dtype,
        backbone=job.settings.backbone,
        method_defaults=method.defaults.model_dump(mode="json", exclude_defaults=True),
    )
    images: list[tuple[str, str | None]] = []
    if samples is not None:
        layout = samples.card.layouts[samples.layout]
        info.layout, info.footnote = samples.layout, layout.footnote
        if not layout.comparable:
            info.caveat = f"layout '{samples.layout}' is not the published preparation ({layout.about})"
        images = [(samples.ids[index], samples.scene(index)) for index in range(run.total(dataset))]
    expected = None if dataset.generated or run.options.limit else dataset.card.expected_count
    return ResultSpec(
        job.settings,
        job.inputs,
        images,
        dataset.card.classes,
        dataset.card.metric,
        info,
        dataset.contents,
        expected,
        dataset.card.facts(run.config.words(dataset.card, job.settings.vocabulary)),
    )


def groups_of(run: Run, jobs: Sequence[Job]) -> list[RowGroup]:
    """The jobs by backbone and geometry; each group shares its windows."""
    by_geometry: dict[Any, list[Job]] = {}
    for job in jobs:
        by_geometry.setdefault(job.geometry, []).append(job)
    return [
        RowGroup(
            resize,
            Segmenter(
                run.models.backbone(backbone),
                [c.variant for c in members if c.variant],
                window,
                stride,
                run.options.batch,
            ),
        )
        for (backbone, resize, window, stride), members in by_geometry.items()
    ]


def _outcomes(
    run: Run,
    dataset: DatasetJobs,
    pending: Mapping[str, set[int]],
    keep: Mapping[str, set[int]],
    progress: Progress,
) -> Iterator[Outcome]:
    """All outcomes that are pending, on the main process; this process works on its share of the images.

    keep: images whose label maps are handed out as well.
    """
    assert dataset.samples is not None
    wanted = sorted(set().union(*pending.values()))
    first, last = share(len(wanted), run.distributed.rank, run.distributed.size)
    jobs = [job for job in dataset.due if job.settings.row in pending]
    groups = groups_of(run, jobs)
    rules = list(dict.fromkeys(rule for group in groups for rule in (group.resize, *group.segmenter.rules)))
    finals = {job.settings.row: (job.settings.threshold, job.settings.background) for job in jobs}
    scoring = Scoring(len(dataset.card.classes), finals if run.options.boundary else None, finals, keep)
    images = _reported(
        run, load(dataset.samples, wanted[first:last], rules, run.options.workers), progress, last - first
    )
    return _gathered(run.distributed, evaluate(groups, images, pending, scoring))


def _reported(run: Run, images: Iterable[Loaded], progress: Progress, total: int) -> Iterator[Loaded]:
    """The images, each reported when the next one is asked for."""
    for done, image in enumerate(images):
        if run.distributed.is_main:
            run.report(progress._replace(done=done, total=total))
        yield image
    if run.distributed.is_main:
        run.report(progress._replace(done=total, total=total))


def _gathered(distributed: Distributed, outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
    """The outcomes of all processes, on the leading one; the others only hand theirs over."""
    if distributed.size == 1:
        yield from outcomes
        return
    working = True
    while working:
        mine = list(itertools.islice(outcomes, _EXCHANGE))
        everybodys: list[Any] = [None] * distributed.size
        dist.all_gather_object(everybodys, mine)
        working = any(everybodys)
        if distributed.is_main:
            yield from itertools.chain.from_iterable(everybodys)


def failed(run: Run, datasets: Sequence[DatasetJobs]) -> list[str]:
    """One line for each cell of the run that is not complete, with its reason."""
    lines = []
    for dataset in datasets:
        for job in dataset.jobs:
            stored = run.store.cell(job.settings.row, job.settings.dataset)
            if stored is None:
                raise BenchError(
                    f"{job.settings.row} on {dataset.card.name} was not stored; run the same command again"
                )
            if stored.status == "incomplete" and run.options.allow_incomplete:
                continue
            if stored.status in ("failed", "incomplete") or (stored.status == "partial" and stored.failures):
                lines.append(f"{job.settings.row} on {dataset.card.name}: {stored.reason}")
    return lines
