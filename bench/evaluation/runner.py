"""A run: every column in one pass over its images, every cell stored as it goes."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch.distributed as dist
from tqdm import tqdm

from bench.config import Config
from bench.data.loader import load
from bench.errors import BenchError
from bench.evaluation.loop import Outcome, RowGroup, Scoring, evaluate
from bench.evaluation.models import Zoo
from bench.evaluation.plan import Cell, Column
from bench.inference.segmenter import Segmenter
from bench.runtime.device import peak_memory
from bench.runtime.distributed import Peers
from bench.runtime.timing import wait_for_gpu
from bench.store.store import Store
from bench.store.writer import CellWriter

_EXCHANGE = 16  # outcomes that a process collects before it hands them over


@dataclass(frozen=True)
class Run:
    """How a run goes about its cells.

    limit: only the first N images of each dataset. shard: (i, n), only the i-th of n parts of each. fresh:
    forget what is stored. boundary: count boundaries as well. peers: the processes that share the images.
    """

    zoo: Zoo
    store: Store
    config: Config
    batch: int = 4
    workers: int = 2
    limit: int | None = None
    shard: tuple[int, int] | None = None
    fresh: bool = False
    boundary: bool = False
    peers: Peers = field(default_factory=Peers)

    def total(self, column: Column) -> int:
        """Images of a column that a complete cell of this run holds."""
        return min(len(column.samples or ()), self.limit or sys.maxsize)

    def indices(self, column: Column) -> range:
        """Images of a column that fall to this run: all, or its shard's consecutive share."""
        first, last = share(self.total(column), *(self.shard or (0, 1)))
        return range(first, last)


def share(total: int, part: int, parts: int) -> tuple[int, int]:
    """Bounds of the `part`-th of `parts` consecutive shares of `total`, which differ by one at the most."""
    return total * part // parts, total * (part + 1) // parts


def execute(run: Run, column: Column, finishing: Executor) -> list[Future[None]]:
    """Evaluates what is due of one column and stores it; the cells are put together by `finishing`.

    Whatever ends it early, what was computed is on the disk. Raises KeyboardInterrupt and what the store
    raises; a failing row is recorded with its reason and does not.
    """
    due = column.due
    _record_gaps(run, column, due)
    ready = [cell for cell in due if cell.query is not None]
    if column.samples is None or column.refused or not ready:
        return []
    writers = _open_writers(run, column, ready) if run.peers.leads else {}
    _warn_of_mixtures(run, column, writers)
    todo = run.indices(column)
    pending = run.peers.shared({row: set(todo) - writer.done for row, writer in writers.items()})
    started = time.monotonic()
    failures: dict[str, str] = {}
    try:
        for outcome in _outcomes(run, column, ready, pending):
            writer = writers[outcome.row]
            if outcome.error is None:
                writer.add(outcome.index, outcome.keys, outcome.counts, outcome.boundary)
            else:
                writer.fail(outcome.index, outcome.error)
                if outcome.gives_up:
                    failures[outcome.row] = outcome.error
    except BaseException:
        for writer in writers.values():
            writer.flush()
        raise
    seconds = (time.monotonic() - started) / max(len(writers), 1)
    peak = peak_memory(run.zoo.device)
    return [finishing.submit(writer.finish, seconds, peak, failures.get(row)) for row, writer in writers.items()]


def _warn_of_mixtures(run: Run, column: Column, writers: Mapping[str, CellWriter]) -> None:
    """Name once what differs between this machine and the one that counted images that are already stored."""
    mixtures = set()
    for row, writer in writers.items():
        cell = run.store.cell(row, column.card.name)
        if writer.done and cell is not None and cell.mixture:
            mixtures.add(cell.mixture)
    for mixture in sorted(mixtures):
        print(f"bench: warning: {column.card.name}: {mixture}", file=sys.stderr)


def probe(run: Run, column: Column) -> float:
    """Seconds that one image of the column takes here, all its due rows together, measured on noise of network size."""
    ready = [cell for cell in column.due if cell.query is not None]
    groups = _groups(run, ready)
    started = time.monotonic()
    for group in groups:
        height, width = group.resize.size(1000, 1000)
        group.segmenter.scores(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))
    wait_for_gpu()
    return time.monotonic() - started


def _record_gaps(run: Run, column: Column, cells: Sequence[Cell]) -> None:
    if not run.peers.leads:
        return
    for cell in cells:
        reason = column.missing or column.refused or cell.error
        if reason:
            status: Any = "no data" if column.missing else "failed"
            card = column.card
            run.store.record_gap(
                cell.settings,
                status,
                reason,
                classes=card.classes,
                metric=card.metric,
                total=run.total(column),
                info=_info(run, cell),
            )


def _open_writers(run: Run, column: Column, cells: Sequence[Cell]) -> dict[str, CellWriter]:
    assert column.samples is not None
    samples = column.samples
    images = [(samples.ids[index], samples.scene(index)) for index in range(run.total(column))]
    layout = samples.card.layouts[samples.layout]
    caveat = (
        None if layout.comparable else f"layout '{samples.layout}' is not the published preparation ({layout.about})"
    )
    return {
        cell.settings.row: run.store.open(
            cell.settings,
            cell.inputs,
            images,
            classes=column.card.classes,
            metric=column.card.metric,
            info={**_info(run, cell), "layout": samples.layout, "caveat": caveat},
            indices=run.indices(column),
            boundary=run.boundary,
            fresh=run.fresh,
        )
        for cell in cells
    }


def _info(run: Run, cell: Cell) -> dict[str, Any]:
    """What tables print of a cell, and on what it was made."""
    method = run.zoo.methods[cell.settings.method]
    return {
        "label": run.config.row(cell.settings.row).label or method.label,
        "venue": method.venue,
        "device": run.zoo.device,
        "dtype": run.zoo.dtype,
        "backbone": cell.settings.backbone,
        "method_defaults": method.defaults.model_dump(mode="json", exclude_defaults=True),
    }


def _groups(run: Run, cells: Sequence[Cell]) -> list[RowGroup]:
    """The cells by backbone and geometry; each group shares its windows."""
    by_geometry: dict[Any, list[Cell]] = {}
    for cell in cells:
        by_geometry.setdefault(cell.geometry, []).append(cell)
    return [
        RowGroup(
            resize,
            Segmenter(run.zoo.backbone(backbone), [c.query for c in members if c.query], window, stride, run.batch),
        )
        for (backbone, resize, window, stride), members in by_geometry.items()
    ]


def _outcomes(run: Run, column: Column, cells: Sequence[Cell], pending: dict[str, set[int]]) -> Iterator[Outcome]:
    """All outcomes that are pending, on the leading process; this process works on its share of the images."""
    assert column.samples is not None
    wanted = sorted(set().union(*pending.values()))
    first, last = share(len(wanted), run.peers.rank, run.peers.size)
    groups = _groups(run, cells)
    rules = list(dict.fromkeys(group.resize for group in groups))
    finals = {cell.settings.row: (cell.settings.threshold, cell.settings.background) for cell in cells}
    scoring = Scoring(len(column.card.classes), finals if run.boundary else None)
    images = load(column.samples, wanted[first:last], rules, run.workers)
    bar = tqdm(images, column.card.name, last - first, unit="image", disable=not run.peers.leads, smoothing=0.1)
    return _gathered(run.peers, evaluate(groups, bar, pending, scoring))


def _gathered(peers: Peers, outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
    """The outcomes of all processes, on the leading one; the others only hand theirs over."""
    if peers.size == 1:
        yield from outcomes
        return
    working = True
    while working:
        mine = list(itertools.islice(outcomes, _EXCHANGE))
        everybodys: list[Any] = [None] * peers.size
        dist.all_gather_object(everybodys, mine)
        working = any(everybodys)
        if peers.leads:
            yield from itertools.chain.from_iterable(everybodys)


def failed(run: Run, columns: Sequence[Column]) -> list[str]:
    """One line for each cell of the run that is not complete, with its reason."""
    lines = []
    for column in columns:
        for cell in column.cells:
            stored = run.store.cell(cell.settings.row, cell.settings.dataset)
            if stored is None:
                raise BenchError(
                    f"{cell.settings.row} on {column.card.name} was not stored; run the same command again"
                )
            if stored.status == "failed" or (stored.status == "partial" and stored.failures):
                lines.append(f"{cell.settings.row} on {column.card.name}: {stored.reason}")
    return lines
