"""The facts of a first run: machine, weights, datasets, time, and what to do next."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from huggingface_hub import constants, get_token
from tabulate import tabulate

from bench.config import Config, load_config
from bench.data.cards import Card, load_card
from bench.data.inventory import DatasetStatus, datasets_table, look
from bench.demo.config import DEMO, with_backbone
from bench.demo.datasets import demo_data_root
from bench.errors import BenchError, check_known
from bench.evaluation.estimate import Timer, Work
from bench.models.weights import WeightsStatus, look_for_weights, size_on_hub, weights_source
from bench.paths import Paths, cache_dir, each_path, weights_dir
from bench.paths import data_root as find_data_root
from bench.registry import Method, find_method, load_methods
from bench.report.published import published_number
from bench.runtime.device import choose_device
from bench.runtime.hub import answers, hub_endpoint
from bench.runtime.provenance import provenance
from bench.runtime.room import free_bytes, memory_bytes, size_text, time_text

FIRST_TABLE: Final = "1"


class TableFacts(NamedTuple):
    """What one table takes on this machine in one process.

    here: datasets that are on the disk
    seconds_here, seconds_all: of their images, and of those of all datasets whose number is known; None where
    nothing was measured, or a row cannot be made here
    """

    name: str
    here: int
    datasets: int
    seconds_here: float | None
    seconds_all: float | None


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """All that `doctor` found; printed, it is the text of ``python -m bench doctor``.

    table: the one that is to be run; missing: what keeps it from being run, a line each
    weights: those that it needs come first; used_in: the tables of the paper that use each of them
    lacking: weights that it needs and that are missing
    """

    table: str
    machine: dict[str, str]
    weights: tuple[WeightsStatus, ...]
    used_in: dict[str, str]
    datasets: tuple[DatasetStatus, ...]
    tables: tuple[TableFacts, ...]
    lacking: tuple[WeightsStatus, ...]
    missing: tuple[str, ...]
    next: str

    @property
    def ready(self) -> bool:
        """Whether the table could be run."""
        return not self.missing

    def __repr__(self) -> str:
        lacks = [f"table {self.table} lacks {len(self.missing)}:", *(f"  {line}" for line in self.missing)]
        return "\n\n".join(
            [
                tabulate(self.machine.items(), tablefmt="plain", disable_numparse=True),
                weights_table(self.weights, self.used_in),
                datasets_table(self.datasets),
                _tables_table(self.tables),
                "\n".join(lacks) if self.missing else f"table {self.table} can be run",
                f"next: {self.next}",
            ]
        )


def doctor(  # noqa: PLR0913 (each is a flag)
    data_root: str | Path | None = None,
    *,
    table: str = FIRST_TABLE,
    demo: bool = False,
    device: str | None = None,
    config: str | Path | None = None,
    cards: Paths = (),
    measure: bool = True,
) -> Diagnosis:
    """Look at machine, weights and datasets, and say what a table of the paper lacks: ``python -m bench doctor``.

    table: of benchmark.yaml. demo: look at the test bed, whose data are written where they are not there. measure: time
    the rows of each table on one image of noise, with random weights. Raises BenchError for an unknown table or device.

    >>> found = bench.doctor("data", measure=False)
    >>> found.ready, found.missing[0]
    (False, 'weights clip-vit-b16')
    """
    loaded = with_backbone(load_config(config), DEMO if demo else None)
    check_known(table, loaded.tables, f"--table {table}: benchmark.yaml has no such table")
    methods, chosen, wanted = load_methods(), choose_device(device), loaded.tables[table]
    paper = {name: one for name, one in loaded.tables.items() if name.isdigit() or name == table}
    names = dict.fromkeys([*wanted.columns, *(name for one in paper.values() for name in one.columns)])
    found = [load_card(name, each_path(cards)) for name in names]
    root = demo_data_root(names) if demo else find_data_root(data_root)
    of_cards = {one.name: one.model_copy(update={"expected_count": None}) if demo else one for one in found}
    datasets = {name: look(card, root) for name, card in of_cards.items()}
    if demo:  # which has two of hundreds of images, and is complete so
        datasets = {name: replace(one, state="found", problem=None) for name, one in datasets.items()}
    needed, reachable = needed_weights(loaded, methods, wanted.rows), answers(hub_endpoint())
    weights = look_for_weights(loaded)
    if reachable:
        weights = [_with_size(one, loaded) if one.name in needed else one for one in weights]
    used = {name: needed_weights(loaded, methods, one.rows) for name, one in paper.items()}
    lacking = [one for one in weights if one.name in needed and not one.there]
    absent = [datasets[name] for name in wanted.columns if datasets[name].state != "found"]
    timer = Timer.drawn(loaded, methods, chosen) if measure else None
    return Diagnosis(
        table=table,
        machine=_machine(chosen, root, reachable),
        weights=tuple(sorted(weights, key=lambda one: one.name not in needed)),
        used_in={one.name: ", ".join(name for name, names in used.items() if one.name in names) for one in weights},
        datasets=tuple(datasets.values()),
        tables=tuple(_tables(loaded, methods, paper, of_cards, datasets, timer)),
        lacking=tuple(lacking),
        missing=(*(f"weights {one.name}" for one in lacking), *(f"dataset {one.name} ({one.state})" for one in absent)),
        next=(not reachable and _by_hand(lacking, loaded)) or _next(table, lacking, absent, data_root, demo),
    )


def _tables(
    config: Config,
    methods: dict[str, Method],
    names: Iterable[str],
    cards: Mapping[str, Card],
    datasets: Mapping[str, DatasetStatus],
    timer: Timer | None,
) -> Iterator[TableFacts]:
    """Yield what each table takes."""
    for name in names:
        table = config.tables[name]
        images = {column: cards[column].expected_count or datasets[column].images for column in table.columns}
        here = [column for column in table.columns if datasets[column].state == "found"]
        rows = {row: find_method(config.row(row).method, methods).defaults for row in table.rows}
        work = {
            column: Work([config.settings_of(row, cards[column], rows[row]) for row in rows], cards[column], count)
            for column, count in images.items()
        }
        seconds = [timer.seconds(work[one] for one in columns) if timer else None for columns in (here, images)]
        yield TableFacts(name, len(here), len(images), *seconds)


def needed_weights(config: Config, methods: Mapping[str, Method], rows: Iterable[str]) -> set[str]:
    """Return the names of the backbones, upsamplers and second models that rows use."""
    names: set[str] = set()
    for name in rows:
        row = config.row(name)
        settled = config.resolve(row, find_method(row.method, methods).defaults, {})
        names |= {settled["backbone"], settled["upsampler"], *settled["models"].values()}
    return names - {"none"}


def lacking_weights(config: Config, methods: Mapping[str, Method], rows: Iterable[str]) -> list[WeightsStatus]:
    """Return the files of weights that rows use and that are missing."""
    needed = needed_weights(config, methods, rows)
    return [one for one in look_for_weights(config) if one.name in needed and not one.there]


def before_run(
    row: str, dataset: str, config: Config, cards: Sequence[Path] = (), data_root: str | Path | None = None
) -> dict[str, dict[str, Any]] | None:
    """Return what is known of a cell before it is run, title -> name -> value; None for a row that does not exist.

    That is the published number, its images, its weights, the command and the settings.
    """
    try:
        card, methods = load_card(dataset, cards), load_methods()
        settings = config.settings_of(row, card, find_method(config.row(row).method, methods).defaults)
    except BenchError:
        return None
    status, published = look(card, find_data_root(data_root)), published_number(config, row, dataset)
    missing = [f"{one.name}: {one.how}" for one in lacking_weights(config, methods, [row])]
    data = "there" if status.state == "found" else f"{status.state}, {size_text(status.to_fetch)}: {status.how}"
    flags = ["--methods", row, "--datasets", dataset, *(part for folder in cards for part in ("--cards", str(folder)))]
    flags += ["--data-root", str(data_root)] if data_root else []
    known = {
        "score": "nothing is stored yet",
        "published": f"{published} %" if published is not None else "no number",
        "images": f"{card.expected_count or '?'} ({card.split_note})",
        "data": data,
        "weights": "; ".join(missing) or "there",
        "command": f"python -m bench run {shlex.join(flags)}",
    }
    return {f"{row} on {dataset}": known, "settings": settings.model_dump(exclude={"row", "dataset"})}


def weights_table(weights: Iterable[WeightsStatus], used_in: Mapping[str, str]) -> str:
    """Write a line for each file of weights that is there or can be had, and one for those that nobody released."""
    closed = [one for one in weights if one.access == "not released" and not one.there]
    lines = [
        (
            one.name,
            used_in[one.name],
            "there" if one.there else "missing",
            size_text(one.bytes),
            one.licence or "?",
            one.file if one.there else one.how,
        )
        for one in weights
        if one not in closed
    ]
    heads = ["weights", "in tables", "state", "size", "licence", "where it is, or how to get it"]
    table = tabulate(lines, heads, maxcolwidths=[None, None, None, None, None, 80], disable_numparse=True)
    names = ", ".join(one.name for one in closed)
    return f"{table}\nnot released, to be trained (docs/training.md): {names}" if closed else table


def _tables_table(tables: Iterable[TableFacts]) -> str:
    lines = [
        (
            one.name,
            f"{one.here} of {one.datasets}",
            time_text(one.seconds_here) if one.here else "",
            time_text(one.seconds_all),
        )
        for one in tables
    ]
    return tabulate(lines, ["table", "datasets here", "time for these", "time with all"], disable_numparse=True)


def _with_size(one: WeightsStatus, config: Config) -> WeightsStatus:
    """Fill in the size of a file that is missing, as the hub states it."""
    if one.there or one.bytes or one.kind != "backbone" or one.access != "open":
        return one
    return replace(one, bytes=size_on_hub(config.backbones[one.name]))


def _machine(device: str, root: Path, reachable: bool) -> dict[str, str]:
    made, memory = provenance(), memory_bytes()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts = {"python": made["python"], "torch": torch.__version__}
    facts["ovss-bench"] = f"{made.get('ovss-bench', 'not installed')}, commit {made['commit']}"
    facts["device"] = device
    if device.startswith("cuda"):
        card = torch.cuda.get_device_properties(device)
        facts["device"] += f", {card.name}, {size_text(card.total_memory)}"
    facts["cpu"] = f"{made['cpu']}, {cores} cores, {torch.get_num_threads()} threads of torch"
    facts["memory"] = size_text(memory)
    places = {"data": root, "cache": cache_dir(), "cache of Hugging Face": Path(constants.HF_HUB_CACHE)}
    facts |= {
        name: f"{place} ({'' if place.exists() else 'not there yet, '}{size_text(free_bytes(place))} free)"
        for name, place in places.items()
    }
    reached = "answers" if reachable else "does not answer"
    facts["hub"] = f"{hub_endpoint()} {reached}; {'a token' if get_token() else 'no token'}"
    return facts


def _next(
    table: str,
    weights: Sequence[WeightsStatus],
    datasets: Sequence[DatasetStatus],
    data_root: str | Path | None,
    demo: bool,
) -> str:
    place = f" --data-root {data_root}" if data_root else ""
    if open_ones := [one.name for one in weights if one.access == "open"]:
        return f"python -m bench download weights {' '.join(open_ones)}"
    if weights:
        return weights[0].how
    if datasets:
        names = [one.name for one in datasets if one.direct] or [one.name for one in datasets]
        return f"python -m bench download {' '.join(names)}{place}"
    asked = "" if table == FIRST_TABLE else f" --table {table}"
    return f"python -m bench reproduce{asked}{' --demo' if demo else place}"


def _by_hand(weights: Sequence[WeightsStatus], config: Config) -> str:
    """Say how to get the first backbone that is missing where the hub does not answer; "" if none is."""
    for one in weights:
        if one.kind == "backbone" and one.access == "open":
            source = weights_source(config.backbones[one.name])
            return f"get {source} on a machine with a network and put it into {weights_dir()}"
    return ""
