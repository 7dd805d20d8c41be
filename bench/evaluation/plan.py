"""What a run has to do: the cells that were asked for, what is stored of them, what is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.config import Config
from bench.data.cards import Card
from bench.data.images import Resize
from bench.data.label_faults import suspicious
from bench.data.prepared import find_samples, recipe
from bench.data.samples import DatasetMissing, SampleSet
from bench.errors import BenchError, did_you_mean
from bench.evaluation.models import Zoo
from bench.inference.segmenter import Query
from bench.registry import Method, find_method
from bench.settings import Settings
from bench.store.store import Store

HARNESS = (
    "2"  # of the code that turns images into counts; raised when a change moves numbers, so that old cells are stale
)


@dataclass
class Cell:
    """One row on one dataset. query is None, and error says why, where its models cannot be had."""

    settings: Settings
    query: Query | None = None
    inputs: dict[str, str] = field(default_factory=dict)
    error: str | None = None
    state: str = "missing"  # missing, partial, failed, stale, rescore or cached
    changes: tuple[str, ...] = ()

    @property
    def geometry(self) -> tuple[str, Resize, int, int]:
        """What cells must share to travel together: backbone, network size, window, stride."""
        s = self.settings
        return s.backbone, Resize(**s.resize.model_dump()), s.window, s.stride


@dataclass
class Column:
    """One dataset of a run. samples is None, and missing says why, where it cannot be evaluated on."""

    card: Card
    cells: list[Cell]
    samples: SampleSet | None = None
    missing: str | None = None
    refused: str | None = None  # the samples are there, but their labels are known to be broken

    @property
    def due(self) -> list[Cell]:
        """Cells that need images evaluated or scores renewed."""
        return [cell for cell in self.cells if cell.state != "cached"]


def choose_rows(config: Config, methods: Mapping[str, Method], flag: str | None, table: str | None) -> list[str]:
    """Names of the rows that --methods (and --table) ask for, in order, each once."""
    if flag is None and table is not None:
        return list(config.tables[table].rows)
    names: list[str] = []
    for part in (flag or "all").split(","):
        names += config.default_rows if part.strip() == "all" else [part.strip()]
    for name in names:
        if name not in config.rows and name.partition("@")[0].split("+")[0] not in {*config.rows, *methods}:
            hint = did_you_mean(name, {*config.rows, *methods})
            raise BenchError(f"--methods: unknown row or method '{name}'; {hint}")
        find_method(config.row(name).method, dict(methods))
    return list(dict.fromkeys(names))


def choose_datasets(
    config: Config, known: Sequence[str], flag: str | None, table: str | None
) -> tuple[list[str], bool]:
    """Names that --datasets (and --table) ask for, and whether they were named one by one, so that each must
    be there.
    """
    if flag is None and table is not None:
        return list(config.tables[table].columns), False
    if flag is None or flag.strip() == "all":
        return list(config.default_datasets), False
    names = [part.strip() for part in flag.split(",") if part.strip()]
    return list(dict.fromkeys(names)), True


def open_columns(
    config: Config,
    rows: Sequence[str],
    cards: Sequence[Card],
    zoo: Zoo,
    data_root: Path,
    explicit: bool,
    layouts: Mapping[str, str],
) -> list[Column]:
    """The columns of a run with their samples located.

    explicit: a dataset that is not there is an error. layouts: for some datasets the layout to read.
    """
    columns = []
    for card in cards:
        defaults = {row: find_method(config.row(row).method, dict(zoo.methods)).defaults for row in rows}
        column = Column(card, [Cell(config.cell(row, card, defaults[row])) for row in rows])
        try:
            column.samples = find_samples(card, data_root, layouts.get(card.name))
        except DatasetMissing as error:
            if explicit:
                raise
            column.missing = str(error)
        except BenchError as error:
            column.refused = str(error)
        else:
            column.refused = "; ".join(suspicious(column.samples)) or None
        columns.append(column)
    return columns


def load_models(column: Column, zoo: Zoo, report: Callable[[str], None]) -> None:
    """Fills in query and inputs of the column's cells; a cell whose models cannot be had gets the reason instead."""
    if column.samples is None:
        return
    for cell in column.cells:
        words = column.card.vocabularies[cell.settings.vocabulary]
        try:
            cell.query, hashes = zoo.query(cell.settings, words, report)
        except BenchError as error:
            cell.error = str(error)
            continue
        data = {"data list": column.samples.fingerprint(), "card": recipe(column.card, column.samples.layout)}
        cell.inputs = {**hashes, **data, "dtype": zoo.dtype, "harness": HARNESS}


def look_up(column: Column, store: Store, boundary: bool) -> None:
    """Fills in the state of the column's cells: what the store holds of each, and what changed since.

    boundary: cells without boundary counts are not complete.
    """
    for cell in column.cells:
        old = store.cell(cell.settings.row, cell.settings.dataset)
        if old is None or old.status == "no data":
            continue
        changes = store.changes(cell.settings, cell.inputs) if cell.query else None
        if changes is not None and changes.recount and old.counted:
            cell.state, cell.changes = "stale", tuple(changes.recount)
        elif boundary and old.status == "ok" and old.boundary() is None:
            cell.state = "partial"
        elif old.status == "ok" and changes is not None and changes.rescore:
            cell.state, cell.changes = "rescore", tuple(changes.rescore)
        elif old.status == "ok" and any(piece.record["status"] != "ok" for piece in old.pieces):
            cell.state = "partial"  # all is counted, and the run was killed before it put that together
        else:
            cell.state = {"ok": "cached"}.get(old.status, old.status)


def select(columns: Sequence[Column], only: Sequence[str]) -> None:
    """Keeps only cells in one of the states (missing takes partial along)."""
    wanted = {*only, *(["partial"] if "missing" in only else [])}
    for column in columns:
        column.cells = [cell for cell in column.cells if not only or cell.state in wanted]


def describe(column: Column, total: int) -> list[Any]:
    """A line of the plan: dataset, images, cells, and how many of them are in which state."""
    states = [cell.state if cell.error is None else "failed" for cell in column.cells]
    counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    note = column.missing or column.refused
    return [
        column.card.name,
        total if column.samples else "-",
        len(states),
        "no data" if column.missing else counted,
        note or "",
    ]
