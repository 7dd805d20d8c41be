"""A whole run, from names to stored results: what `bench.run` and ``python -m bench run`` do."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.config import Config, load_config
from bench.data.cards import Card, load_card
from bench.errors import BenchError, did_you_mean
from bench.evaluation.models import ModelCache
from bench.evaluation.names import STATES, choose_datasets, varied
from bench.evaluation.plan import (
    DatasetJobs,
    choose_rows,
    jobs_on,
    load_models,
    locate,
    look_up,
    select,
)
from bench.evaluation.runner import Progress, Run, RunOptions, execute, failed, probe
from bench.paths import data_root
from bench.registry import load_methods
from bench.runtime.device import choose_device, default_batch, default_workers
from bench.runtime.distributed import Distributed
from bench.store.store import Store


@dataclass(frozen=True)
class RunSpec:
    """What to evaluate, on what, with what, and how: the flags of ``python -m bench run``.

    methods, datasets: names; None for all, or for all of `table`. options: KEY=VALUE, settings of every row.
    sweeps: KEY=V1,V2, a row for each value. results: folder. config: another benchmark.yaml.
    backbone: a name of benchmark.yaml, an open_clip model NAME[:TAG], or its config JSON; checkpoint: its weights.
    upsamplers: files by name of benchmark.yaml. plugins: files or folders of methods. device, batch, workers: None for
    what suits the machine. dtype: fp32, tf32, fp16 or bf16. data_root: folder of all datasets. cards: folders of
    further dataset cards. layouts: for some datasets the layout to read. only: states, of which cells are evaluated.
    limit: the first N images of each dataset. shard: (i, n), the i-th of n parts of each. fresh: forget what is stored.
    boundary: count boundary IoU as well. allow_incomplete: fewer images than a card expects are no failure.
    save_predictions: of how many images of each dataset label maps are kept, spread evenly over it. demo: results of
    generated data, which never replace real ones.
    """

    methods: Sequence[str] | None = None
    datasets: Sequence[str] | None = None
    table: str | None = None
    options: Sequence[str] = ()
    sweeps: Sequence[str] = ()
    results: Path = Path("results")
    config: Config = field(default_factory=load_config)
    checkpoint: Path | None = None
    upsamplers: Mapping[str, Path] = field(default_factory=dict)
    plugins: Sequence[str | Path] = ()
    device: str | None = None
    dtype: str = "fp32"
    batch: int | None = None
    workers: int | None = None
    data_root: Path | str | None = None
    cards: Sequence[Path] = ()
    layouts: Mapping[str, str] = field(default_factory=dict)
    only: Sequence[str] = ()
    limit: int | None = None
    shard: tuple[int, int] | None = None
    fresh: bool = False
    boundary: bool = False
    allow_incomplete: bool = False
    save_predictions: int = 0
    demo: bool = False


@dataclass(frozen=True)
class PlannedRun:
    """A run whose data were found and whose models are loaded."""

    run: Run
    datasets: Sequence[DatasetJobs]

    @property
    def missing(self) -> list[str]:
        """Datasets that are not there."""
        return [dataset.card.name for dataset in self.datasets if dataset.missing]

    @property
    def waiting(self) -> list[DatasetJobs]:
        """Datasets that have images to evaluate or scores to renew."""
        return [dataset for dataset in self.datasets if dataset.samples and dataset.due]

    @property
    def errors(self) -> list[str]:
        """Why cells cannot be run, each reason once; missing data is no error."""
        found = {job.error for dataset in self.datasets for job in dataset.jobs if job.error and dataset.samples}
        refused = [f"{dataset.card.name}: {dataset.refused}" for dataset in self.datasets if dataset.refused]
        return [*refused, *sorted(found)]

    def seconds(self) -> float:
        """Estimate of what `execute` takes, from one image of each dataset."""
        return sum(probe(self.run, dataset) * len(self.run.indices(dataset)) for dataset in self.waiting)

    def execute(self) -> None:
        """Evaluates what is due. A cell that fails is stored with its reason and the others are evaluated."""
        execute(self.run, self.datasets)

    def failures(self) -> list[str]:
        """One line for each cell that is not complete, with its reason; to be asked after `execute`."""
        return failed(self.run, self.datasets)


@contextlib.contextmanager
def planned(
    spec: RunSpec,
    *,
    writes: bool = True,
    distributed: Distributed | None = None,
    report: Callable[[Progress], None] = lambda _: None,
    report_word: Callable[[str], None] = lambda _: None,
) -> Iterator[PlannedRun]:
    """The plan of a run; inside the block it may be executed, and no other process writes to its results folder.

    writes: False for a plan that is only looked at. report: called with the progress. report_word: called with each
    word whose text has to be encoded, which takes seconds per word on a CPU. Raises BenchError for what does not exist
    or does not fit.
    """
    processes = distributed or Distributed()
    _check(spec)
    device = choose_device(spec.device, spec.dtype)
    models = ModelCache(
        spec.config, load_methods(list(spec.plugins)), spec.checkpoint, spec.upsamplers, device, spec.dtype
    )
    rows = choose_rows(spec.config, models.methods, spec.methods, spec.table)
    rows = varied(rows, spec.options, spec.sweeps, spec.config.protocol.vocabulary)
    cards, must_exist = _cards(spec)
    store = Store(spec.results, limit=spec.limit, demo=spec.demo, shard=spec.shard)
    datasets = [jobs_on(card, rows, spec.config, models.methods) for card in cards]
    for dataset in datasets:
        dataset.generated = spec.demo
        locate(dataset, data_root(spec.data_root), spec.layouts.get(dataset.card.name), must_exist)
    options = RunOptions(
        batch=spec.batch or default_batch(device),
        workers=default_workers(device) if spec.workers is None else spec.workers,
        limit=spec.limit,
        shard=spec.shard,
        fresh=spec.fresh,
        boundary=spec.boundary,
        allow_incomplete=spec.allow_incomplete,
        maps=spec.save_predictions,
    )
    run = Run(models, store, spec.config, options, processes, report)
    with store.lock() if processes.is_main and writes else contextlib.nullcontext():
        _prepare(run, datasets, report_word)
        processes.wait()
        select(datasets, spec.only)
        yield PlannedRun(run, datasets)


def _look_for_maps(run: Run, dataset: DatasetJobs) -> None:
    if run.options.maps and dataset.samples is not None:
        for job in dataset.jobs:
            if job.state == "cached" and job.variant and run.label_maps(job).missing(run.kept(dataset)):
                job.state = "no maps"


def _check(spec: RunSpec) -> None:
    tables = spec.config.tables
    if spec.table and spec.table not in tables:
        raise BenchError(f"--table {spec.table}: benchmark.yaml has no such table; {did_you_mean(spec.table, tables)}")
    for state in spec.only:
        if state not in STATES:
            raise BenchError(f"--only {state}: not a state of a cell; {did_you_mean(state, STATES)}")


def _cards(spec: RunSpec) -> tuple[list[Card], bool]:
    folders = list(spec.cards)
    names, explicit = choose_datasets(spec.config, spec.datasets, spec.table)
    cards = [load_card(name, folders) for name in names]
    for name, layout in spec.layouts.items():
        if name not in names or not layout:
            hint = did_you_mean(name, names)
            raise BenchError(f"--layout {name}={layout}: X=L is needed, with X a dataset of this run; {hint}")
    return cards, explicit and not spec.demo


def _prepare(run: Run, datasets: Sequence[DatasetJobs], report_word: Callable[[str], None]) -> None:
    """Loads all models, so that a run does not stop at the tenth dataset for a file that was never there."""
    for dataset in datasets:
        load_models(dataset, run.models, report_word)
        if run.distributed.is_main:
            look_up(dataset, run.store, run.options.boundary)
            _look_for_maps(run, dataset)
    everybodys = run.distributed.shared([[job.state for job in dataset.jobs] for dataset in datasets])
    for dataset, states in zip(datasets, everybodys, strict=True):
        for job, state in zip(dataset.jobs, states, strict=True):
            job.state = "missing" if run.options.fresh and job.variant else state
    errors = [job.error for dataset in datasets for job in dataset.jobs if dataset.samples is not None]
    if errors and all(errors):
        raise BenchError(str(errors[0]))
