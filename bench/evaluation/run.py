"""A whole run, from what is asked for to stored results: what `bench.run` and ``python -m bench run`` do."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from bench.errors import BenchError
from bench.evaluation.dataset_run import Progress, Run, run_dataset
from bench.evaluation.models import ModelCache
from bench.evaluation.plan import plan
from bench.registry import load_methods
from bench.runtime.device import choose_device, default_batch
from bench.runtime.distributed import Distributed
from bench.spec import RunSpec
from bench.store.store import Store


@contextlib.contextmanager
def planned(
    spec: RunSpec,
    *,
    writes: bool = True,
    tolerant: bool = False,
    processes: Distributed | None = None,
    report: Callable[[Progress], None] = lambda _: None,
    report_word: Callable[[str], None] = lambda _: None,
) -> Iterator[Run]:
    """Plan a run; inside the block it may be executed, and no other process writes to its results folder.

    writes: False for a plan that is only looked at
    tolerant: a plan is wanted even where no cell can be run
    report: called with the progress
    report_word: called with each word whose text has to be encoded, which takes seconds per word on a CPU

    Raises BenchError for what does not fit, and for datasets and weights that are not there.
    """
    processes = processes or Distributed()
    device, methods = choose_device(spec.device, spec.dtype), load_methods(spec.plugins)
    models = ModelCache(
        spec.configuration, methods, spec.checkpoint, spec.upsamplers, device, spec.dtype, spec.time_limit
    )
    store = Store(spec.folder, limit=spec.limit, demo=spec.demo, shard=spec.shard)
    with store.lock() if processes.is_main and writes else contextlib.nullcontext():
        datasets = plan(spec, models, store, processes, report_word, tolerant)
        # once for all: what the first dataset took of a GPU's memory is not free for the next
        batch = processes.shared(spec.batch or default_batch(device))
        yield Run(spec, models, store, datasets, processes, report, batch)


def execute(run: Run) -> None:
    """Evaluate what is due and store it, dataset by dataset; nothing where no dataset has data.

    Whatever ends it early, what was computed is on the disk. Raises KeyboardInterrupt and what the store raises; a
    failing row is recorded with its reason and does not.
    """
    if len(run.missing) == len(run.datasets):
        return
    with ThreadPoolExecutor(1) as parts, ThreadPoolExecutor(1) as finishing:
        done = []
        for number, dataset in enumerate(run.datasets, 1):
            progress = Progress(dataset.card.name, number, len(run.datasets), 0, 0)
            done += run_dataset(run, dataset, progress, parts, finishing)
        for future in done:  # here: Python takes a thread for ended whose join is interrupted (bpo-45274)
            future.result()


def failures(run: Run) -> list[str]:
    """One line for each cell that is not complete, with its reason; to be asked after `execute`."""
    lines = []
    for dataset in run.datasets if len(run.missing) < len(run.datasets) else ():
        for cell in dataset.cells:
            stored = run.store.cell(cell.row, dataset.card.name)
            if stored is None:
                raise BenchError(f"{cell.row} on {dataset.card.name} was not stored; run the same command again")
            if stored.status == "incomplete" and run.spec.allow_incomplete:
                continue
            if stored.status in ("failed", "incomplete") or (stored.status == "partial" and stored.failures):
                lines.append(f"{cell.row} on {dataset.card.name}: {stored.reason}")
    return lines
