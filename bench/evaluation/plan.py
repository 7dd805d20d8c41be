"""What a run has to do: the cells that were asked for, what is stored of them, what is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from bench.config import Config, base_name
from bench.data.cards import Card
from bench.data.contents import ContentCache
from bench.data.images import Resize
from bench.data.inventory import shortfall
from bench.data.label_faults import suspicious
from bench.data.prepared import find_samples, recipe
from bench.data.samples import DatasetMissing, SampleSet
from bench.errors import BenchError, did_you_mean
from bench.evaluation.models import ModelCache
from bench.inference.variant import Variant
from bench.registry import Method, find_method
from bench.settings import Settings
from bench.store.record import identity
from bench.store.result import StoredResult
from bench.store.store import Store

COUNTS_VERSION: Final = "2"
"""Of the code that turns images into counts; raised when a change moves numbers, so that old results are stale."""

State: TypeAlias = Literal["missing", "partial", "failed", "stale", "rescore", "no maps", "cached"]
DONE: Final = ("ok", "incomplete")  # stored results of which every image is counted


@dataclass
class Job:
    """One row on one dataset. variant is None, and error says why, where its models cannot be had."""

    settings: Settings
    variant: Variant | None = None
    inputs: dict[str, str] = field(default_factory=dict)
    error: str | None = None
    state: State = "missing"
    changes: tuple[str, ...] = ()

    @property
    def geometry(self) -> tuple[str, Resize, int, int]:
        """What cells must share to travel together: backbone, network size, window, stride."""
        s = self.settings
        return s.backbone, Resize(**s.resize.model_dump()), s.window, s.stride


@dataclass
class DatasetJobs:
    """One dataset of a run. samples is None, and missing says why, where it cannot be evaluated on."""

    card: Card
    jobs: list[Job]
    samples: SampleSet | None = None
    missing: str | None = None
    generated: bool = False  # the demo's, whose number of images is its own
    refused: str | None = None  # the samples are there, but their labels are known to be broken
    contents: tuple[str | None, ...] | None = None  # checksums of the samples' files, where something is stored

    @property
    def incomplete(self) -> str | None:
        """ "4 of 1,669 images" where there are fewer than the card expects."""
        return shortfall(self.card, len(self.samples)) if self.samples is not None and not self.generated else None

    @property
    def due(self) -> list[Job]:
        """Cells that need images evaluated or scores renewed."""
        return [job for job in self.jobs if job.state != "cached"]


def choose_rows(
    config: Config, methods: Mapping[str, Method], named: Sequence[str] | None, table: str | None
) -> list[str]:
    """Names of the rows that were asked for, in order, each once; "all" stands for the default rows.

    named: None for all, or for all of the table.
    """
    if named is None and table is not None:
        return list(config.tables[table].rows)
    names: list[str] = []
    for name in named or ["all"]:
        names += config.default_rows if name == "all" else config.groups.get(name, [name])
    for name in names:
        if name not in config.rows and base_name(name) not in {*config.rows, *methods}:
            hint = did_you_mean(base_name(name), {*config.rows, *methods})
            raise BenchError(f"--methods: unknown row or method '{name}'; {hint}")
        find_method(config.row(name).method, dict(methods))
    return list(dict.fromkeys(names))


def jobs_on(card: Card, rows: Sequence[str], config: Config, methods: Mapping[str, Method]) -> DatasetJobs:
    """The rows on one dataset, with their settings. Raises BenchError where these do not fit."""
    defaults = {row: find_method(config.row(row).method, dict(methods)).defaults for row in rows}
    return DatasetJobs(card, [Job(config.settings_of(row, card, defaults[row])) for row in rows])


def locate(dataset: DatasetJobs, data_root: Path, layout: str | None, must_exist: bool) -> None:
    """Fills in the dataset's samples, or why there are none.

    layout: to be read, None for the first that is there. must_exist: DatasetMissing where there is nothing.
    """
    try:
        dataset.samples = find_samples(dataset.card, data_root, layout)
    except DatasetMissing as error:
        if must_exist:
            raise
        dataset.missing = str(error)
    except BenchError as error:
        dataset.refused = str(error)
    else:
        dataset.refused = "; ".join(suspicious(dataset.samples)) or None


def load_models(dataset: DatasetJobs, models: ModelCache, report: Callable[[str], None]) -> None:
    """Fills in variant and inputs of the dataset's jobs; a job whose models cannot be had gets the reason instead."""
    if dataset.samples is None:
        return
    for job in dataset.jobs:
        words = models.config.words(dataset.card, job.settings.vocabulary)
        try:
            job.variant, hashes = models.variant(job.settings, words, report)
        except BenchError as error:
            job.error = str(error)
            continue
        data = {"data list": dataset.samples.names_fingerprint(), "card": recipe(dataset.card, dataset.samples.layout)}
        job.inputs = {**hashes, **data, "dtype": models.dtype, "harness": COUNTS_VERSION}


def look_up(dataset: DatasetJobs, store: Store, boundary: bool) -> None:
    """Fills in the state of the dataset's jobs: what the store holds of each, and what changed since.

    boundary: cells without boundary counts are not complete.
    """
    for job in dataset.jobs:
        old = store.cell(job.settings.row, job.settings.dataset)
        if old is None or old.status == "no data":
            if job.variant and store.twin(job.settings, identity(job.settings, job.inputs)):
                job.state, job.changes = "rescore", ("its counts are shared with another row",)
            continue
        if job.variant and dataset.samples and old.record.inputs.get("data list") == dataset.samples.fingerprint():
            job.inputs["data list"] = dataset.samples.fingerprint()  # as earlier versions identified the files
        changes = store.changes(job.settings, job.inputs) if job.variant else None
        if changes is not None and changes.recount and old.counted:
            job.state, job.changes = "stale", tuple(changes.recount)
        elif changed := _changed_images(dataset, old):
            job.state, job.changes = "partial", (f"the files of {changed:,} images changed",)
        elif boundary and old.status in DONE and old.boundary() is None:
            job.state = "partial"
        elif old.status in DONE and changes is not None and changes.rescore:
            job.state, job.changes = "rescore", tuple(changes.rescore)
        elif old.status in DONE and any(piece.record.status not in DONE for piece in old.pieces):
            job.state = "partial"  # all is counted, and the run was killed before it put that together
        else:
            job.state = old.status if old.status in ("partial", "failed") else "cached"


def _changed_images(dataset: DatasetJobs, old: StoredResult) -> int:
    """How many stored images were counted from files that hold something else now."""
    known = old.contents
    if dataset.samples is None or not known:
        return 0
    if dataset.contents is None:
        dataset.contents = ContentCache(dataset.samples).all()
    now = dataset.contents
    return sum(index >= len(now) or now[index] not in (None, content) for index, content in known.items())


def select(datasets: Sequence[DatasetJobs], only: Sequence[str]) -> None:
    """Keeps only cells in one of the states (missing takes partial along)."""
    wanted = {*only, *(["partial"] if "missing" in only else [])}
    for dataset in datasets:
        dataset.jobs = [job for job in dataset.jobs if not only or job.state in wanted]


def describe(dataset: DatasetJobs, total: int) -> list[Any]:
    """A line of the plan: dataset, images, cells, and how many of them are in which state."""
    states = [job.state if job.error is None else "failed" for job in dataset.jobs]
    counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    failed: dict[str, list[str]] = {}
    for job in dataset.jobs:
        if job.error:
            failed.setdefault(job.error, []).append(job.settings.row)
    notes = [dataset.missing, dataset.refused, dataset.incomplete and f"incomplete: {dataset.incomplete}"]
    notes += [f"{', '.join(rows)}: {error}" for error, rows in failed.items() if dataset.samples]
    note = "; ".join(text for text in notes if text)
    return [
        dataset.card.name,
        total if dataset.samples else "-",
        len(states),
        "no data" if dataset.missing else counted,
        note,
    ]
