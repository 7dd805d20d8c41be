"""One dataset of a run: one pass over its images, whose counts and label maps are stored as they come."""

from __future__ import annotations

import contextlib
import functools
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch.distributed as dist

from bench.data.contents import ContentCache
from bench.data.loader import Loaded, load
from bench.data.samples import SampleSet
from bench.evaluation.loop import Outcome, Scoring, evaluate, images_together
from bench.evaluation.models import ModelCache, build_segmenters
from bench.evaluation.plan import Cell, DatasetPlan, share
from bench.inference.segmenter import Segmenter
from bench.inference.visualize import palette_png
from bench.runtime.device import default_workers, peak_memory
from bench.runtime.distributed import Distributed
from bench.runtime.threads import Backlog
from bench.spec import RunSpec
from bench.store.maps import LabelMaps
from bench.store.record import Info, ResultSpec
from bench.store.store import Store
from bench.store.writer import ResultWriter

_EXCHANGE = 5.0  # seconds that a process computes before it hands its outcomes over, for which it waits for the others
_MAPS = 16  # label maps that wait to be written


class Progress(NamedTuple):
    """Progress of a run: `done` of `total` images that are due of dataset `number` of `datasets`."""

    dataset: str
    number: int
    datasets: int
    done: int
    total: int


@dataclass(frozen=True)
class Run:
    """A run whose data were found and whose models are loaded."""

    spec: RunSpec
    models: ModelCache
    store: Store
    datasets: tuple[DatasetPlan, ...]
    processes: Distributed
    """Those that share the images."""
    report: Callable[[Progress], None]
    """Called after each image, on the main process."""
    batch: int
    """Windows at once, on all datasets and in all processes."""

    @property
    def rows(self) -> list[str]:
        """Names of the rows."""
        return list(dict.fromkeys(cell.row for dataset in self.datasets for cell in dataset.cells))

    @property
    def missing(self) -> list[str]:
        """Datasets that are not there."""
        return [dataset.card.name for dataset in self.datasets if dataset.missing]

    @property
    def wordless(self) -> list[str]:
        """Cells whose vocabulary has no words for the dataset, each with the reason."""
        return [
            f"{cell.row} on {one.card.name}: {cell.error}"
            for one in self.datasets
            for cell in one.cells
            if cell.wordless
        ]

    @property
    def waiting(self) -> list[DatasetPlan]:
        """Datasets that have images to evaluate or scores to renew."""
        return [dataset for dataset in self.datasets if dataset.samples and dataset.due]

    @property
    def errors(self) -> list[str]:
        """Why cells cannot be run, each reason once; missing data is no error, and neither are missing words."""
        cells = (cell for dataset in self.datasets if dataset.samples for cell in dataset.cells)
        found = {cell.error for cell in cells if cell.error and not cell.wordless}
        refused = [f"{dataset.card.name}: {dataset.refused}" for dataset in self.datasets if dataset.refused]
        return [*refused, *sorted(found)]


class _Due(NamedTuple):
    """Images of one row: those to be counted, and those whose label maps are to be kept."""

    uncounted: set[int]
    undrawn: set[int]


def run_dataset(
    run: Run, dataset: DatasetPlan, progress: Progress, parts: Executor, finishing: Executor
) -> list[Future[None]]:
    """Evaluate what is due of one dataset, in one pass over its images, and store it as it comes.

    parts: a thread that writes parts and label maps of the results that are growing.
    finishing: one for whole results of the dataset before, for which these need not wait.

    Returns the results that are still being finished. What ends it early leaves what was computed on the disk.
    """
    if run.processes.is_main:
        _record_gaps(run, dataset)
        for cell in dataset.cells:
            if cell.state == "cached":
                run.store.seal(cell.row, cell.settings.dataset)
    ready = [cell for cell in dataset.due if cell.ready is not None]
    if dataset.samples is None or dataset.refused or not ready:
        return []
    ready, twins = _without_twins(run, ready)
    results = _Results(run, dataset, ready if run.processes.is_main else (), parts)
    due = run.processes.shared(results.due())
    started = time.monotonic()
    results.store(_outcomes(run, dataset, ready, due, progress), due)
    if not run.processes.is_main:
        return []
    seconds, submit = (time.monotonic() - started) / len(ready), finishing.submit
    done = [submit(result, seconds, peak_memory(run.models.device)) for result in results.finished()]
    for cell in twins:  # whose counts another row has got by then
        done.append(submit(lambda one: run.store.open(_result(run, dataset, one), dataset.indices).finish(), cell))
    return done


def _record_gaps(run: Run, dataset: DatasetPlan) -> None:
    for cell in dataset.due:
        reason = dataset.missing or dataset.refused or cell.error
        if reason:
            run.store.record_gap(
                _result(run, dataset, cell), "no data" if dataset.missing or cell.wordless else "failed", reason
            )


def _without_twins(run: Run, cells: Sequence[Cell]) -> tuple[list[Cell], list[Cell]]:
    """Part the cells to be counted from those that differ from one of them in what is applied to counts alone.

    Boundaries and label maps depend on the threshold, and shards are put together later, so all are counted then.
    """
    if run.spec.boundary or run.spec.shard or run.spec.save_predictions:
        return list(cells), []
    first: dict[str, Cell] = {}
    twins = [cell for cell in cells if first.setdefault(cell.identity, cell) is not cell]
    return list(first.values()), twins


def _result(run: Run, dataset: DatasetPlan, cell: Cell) -> ResultSpec:
    info = Info(
        label=cell.label,
        venue=cell.method.venue,
        device=run.models.device,
        dtype=run.models.dtype,
        backbone=cell.settings.backbone,
        method_defaults=cell.method.stated_defaults,
    )
    images: list[tuple[str, str | None]] = []
    if (samples := dataset.samples) is not None:
        layout = samples.card.layouts[samples.layout]
        info.layout, info.footnote, info.caveat = samples.layout, layout.footnote, samples.card.caveat(samples.layout)
        images = [(samples.ids[index], samples.scene(index)) for index in range(dataset.total)]
    card = dataset.card
    return ResultSpec(
        cell.settings,
        cell.inputs,
        images,
        card.classes,
        card.metric,
        info,
        dataset.contents,
        dataset.expected,
        card.facts(() if cell.wordless else run.models.config.words(card, cell.settings.vocabulary)),
        run.batch,
    )


class _Results:
    """The results of a pass that are growing, by row; there are some on the main process alone."""

    def __init__(self, run: Run, dataset: DatasetPlan, cells: Sequence[Cell], parts: Executor) -> None:
        self._dataset, self._drawing = dataset, Backlog(parts, _MAPS)
        self._writers: dict[str, ResultWriter] = {}
        self._maps: dict[str, LabelMaps] = {}
        self._failures: dict[str, str] = {}
        for cell in cells:
            spec = _result(run, dataset, cell)
            writer = run.store.open(spec, dataset.indices, boundary=run.spec.boundary, fresh=run.spec.fresh)
            writer.background = parts
            self._writers[cell.row] = writer
            if run.spec.save_predictions:
                self._maps[cell.row] = cell.label_maps(run.store)
                self._maps[cell.row].begin()
        _warn_of_mixtures(run.store, dataset, self._writers)

    def due(self) -> dict[str, _Due]:
        """Return the images that are not stored yet; those that are counted are drawn in the same pass."""
        found = {}
        for row, writer in self._writers.items():
            uncounted = set(self._dataset.indices) - writer.done
            undrawn = {index for index, _ in self._dataset.kept if index in uncounted}
            if row in self._maps:
                undrawn |= self._maps[row].missing(self._dataset.kept)
            found[row] = _Due(uncounted, undrawn)
        return found

    def store(self, outcomes: Iterable[Outcome], due: Mapping[str, _Due]) -> None:
        """Store outcomes as they come; an early end leaves what was computed on the disk."""
        contents: dict[int, str | None] = {}
        try:
            for outcome in outcomes:
                self._draw(outcome)
                image = outcome.image
                if image.index in due[outcome.row].uncounted:
                    self._writers[outcome.row].take(image)
                    contents[image.index] = image.content
                    if image.error is not None and outcome.gives_up:
                        self._failures[outcome.row] = image.error
                elif image.error is not None:  # of an image that is counted already
                    _warn(f"{outcome.row} on {self._dataset.card.name}: no label map: {image.error}")
            self._drawing.finish()
        except BaseException:
            with contextlib.ExitStack() as flushing:  # one that cannot write keeps no other from it
                for writer in self._writers.values():
                    flushing.callback(writer.flush)
            raise
        if self._writers and self._dataset.samples is not None:
            _remember(self._dataset.samples, contents)

    def finished(self) -> Iterator[Callable[[float, int | None], None]]:
        """For each result what puts it together, to be called with the seconds that it took and the peak memory."""
        for row, writer in self._writers.items():
            yield functools.partial(writer.finish, reason=self._failures.get(row))

    def _draw(self, outcome: Outcome) -> None:
        if outcome.labels is None or self._dataset.samples is None:
            return
        maps, sample, labels = self._maps[outcome.row], self._dataset.samples.ids[outcome.image.index], outcome.labels
        self._drawing.add(lambda: maps.write(sample, palette_png(labels, self._dataset.card.colours)))


def _remember(samples: SampleSet, contents: Mapping[int, str | None]) -> None:
    """Keep the checksums that were computed while reading, so that the next plan need not read the files."""
    by_source = {}
    for source, indices in enumerate(samples.sources):
        content = next((contents[index] for index in indices if contents.get(index)), None)
        if content:
            by_source[source] = content
    ContentCache(samples).remember(by_source)


def _warn_of_mixtures(store: Store, dataset: DatasetPlan, writers: Mapping[str, ResultWriter]) -> None:
    """Name once what differs between this machine and the one that counted images that are already stored."""
    mixtures = set()
    for row, writer in writers.items():
        stored = store.cell(row, dataset.card.name)
        if writer.done and stored is not None and stored.mixture:
            mixtures.add(stored.mixture)
    for mixture in sorted(mixtures):
        _warn(f"{dataset.card.name}: {mixture}")


def _warn(message: str) -> None:
    print(f"bench: warning: {message}", file=sys.stderr)


def segmenters_of(run: Run, cells: Iterable[Cell]) -> list[Segmenter]:
    """Return a segmenter per backbone and geometry, for the cells whose models could be had."""
    return build_segmenters([(cell.settings, cell.ready) for cell in cells if cell.ready], run.models, run.batch)


def _outcomes(
    run: Run,
    dataset: DatasetPlan,
    cells: Sequence[Cell],
    due: Mapping[str, _Due],
    progress: Progress,
) -> Iterator[Outcome]:
    """All outcomes that are due, on the main process; this process works on its share of the images."""
    assert dataset.samples is not None
    pending = {row: images.uncounted | images.undrawn for row, images in due.items()}
    segmenters = segmenters_of(run, cells)
    together = images_together(segmenters)
    wanted = sorted({index // together for index in set().union(*pending.values())})
    groups = [wanted[place] for place in share(len(wanted), run.processes.rank, run.processes.size)]
    mine = [index for group in groups for index in range(dataset.total)[group * together : (group + 1) * together]]
    sizes = list(dict.fromkeys(size for segmenter in segmenters for size in segmenter.sizes))
    keep = {row: images.undrawn for row, images in due.items()}
    scoring = Scoring(len(dataset.card.classes), run.spec.boundary, keep)
    workers = default_workers(run.models.device) if run.spec.workers is None else run.spec.workers
    images = _reported(run, load(dataset.samples, mine, sizes, workers), progress._replace(total=len(mine)))
    return _gathered(run.processes, evaluate(segmenters, images, pending, scoring))


def _reported(run: Run, images: Iterable[Loaded], progress: Progress) -> Iterator[Loaded]:
    """Pass the images on, each reported when the next one is asked for."""
    for done, image in enumerate(images):
        if run.processes.is_main:
            run.report(progress._replace(done=done))
        yield image
    if run.processes.is_main:
        run.report(progress._replace(done=progress.total))


def _gathered(processes: Distributed, outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
    """Gather the outcomes of all processes on the leading one; the others only hand theirs over."""
    if processes.size == 1:
        yield from outcomes
        return
    working = True
    while working:
        mine = list(_within(_EXCHANGE, outcomes))
        everybodys: list[Any] = [None] * processes.size
        dist.all_gather_object(everybodys, mine)
        working = any(everybodys)
        if processes.is_main:
            yield from itertools.chain.from_iterable(everybodys)


def _within(seconds: float, outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
    """Take outcomes until so many seconds have passed, at least one."""
    started = time.monotonic()
    for outcome in outcomes:
        yield outcome
        if time.monotonic() - started > seconds:
            return
