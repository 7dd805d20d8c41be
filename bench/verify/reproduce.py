"""The guided first run: from nothing to confirmed numbers, dataset by dataset, and one file to send back."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal, TypeAlias

from tabulate import tabulate

from bench.config import load_config
from bench.data.cards import Card, load_card
from bench.data.check import Report, check
from bench.data.download import download_dataset, download_weights
from bench.data.inventory import DatasetStatus
from bench.demo.datasets import demo_data_root
from bench.errors import BenchError
from bench.evaluation.dataset_run import Progress
from bench.evaluation.run import execute, failures, planned
from bench.models.clip_weights import fetch_backbone
from bench.paths import data_root, shipped
from bench.report.analysis import removals
from bench.report.confirm import HEADS, Confirmation, confirm, pattern
from bench.report.frames import export, tables
from bench.report.published import PROPOSED, TASKS, published_number
from bench.report.scores import scores_of
from bench.runtime.device import choose_device
from bench.runtime.provenance import provenance
from bench.spec import RunSpec
from bench.store.store import Store
from bench.verify.demo import SCORES
from bench.verify.doctor import Diagnosis
from bench.verify.goldens import Check, compare

Until: TypeAlias = Literal["first", "kinds", "table"]
FIRST: Final = "udd5"
"""The dataset that a guided run begins with: 40 images."""


@dataclass
class Reproduction:
    """Findings of a guided run, as far as it went.

    notes: what could not be had or run, a line each
    """

    diagnosis: Diagnosis
    goldens: list[Check] = field(default_factory=list)
    checks: dict[str, Report] = field(default_factory=dict)
    cells: dict[tuple[str, str], Confirmation] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def confirmed(self) -> bool:
        """Whether numbers were confirmed, and none that may be compared is off."""
        verdicts = [cell.agrees for cell in self.cells.values()]
        return True in verdicts and False not in verdicts and all(one.good for one in self.goldens)

    def text(self) -> str:
        """Write the findings for a reader."""
        lines = [cell.line for cell in self.cells.values()]
        agree = sum(cell.agrees is True for cell in self.cells.values())
        compared = sum(cell.agrees is not None for cell in self.cells.values())
        of_dataset: dict[str, list[Confirmation]] = {}
        for cell in self.cells.values():
            of_dataset.setdefault(cell.dataset, []).append(cell)
        blocks = [
            tabulate(lines, HEADS, tablefmt="pipe", disable_numparse=True) if lines else "nothing was measured",
            "\n".join(filter(None, map(pattern, of_dataset.values()))),
            "\n".join(self.notes),
            f"{agree} of {compared} numbers that may be compared are confirmed",
        ]
        return "\n\n".join(filter(None, blocks))


@dataclass(frozen=True)
class Guide:
    """Orders of a guided run.

    spec: of its runs, in which rows and datasets are filled in
    until: "first" ends after the first dataset, "kinds" after one dataset of each kind
    say: prints a line; report: is called after each image
    """

    spec: RunSpec
    table: str
    until: Until
    say: Callable[[str], None]
    report: Callable[[Progress], None] = lambda _: None

    def root(self, name: str) -> Path:
        """Return the data root, in which the demo's dataset of that name is then written."""
        return demo_data_root([name]) if self.spec.demo else data_root(self.spec.data_root)

    def card(self, name: str) -> Card:
        """Card of a dataset; the demo's have fewer images than it expects."""
        card = load_card(name, self.spec.cards)
        return card.model_copy(update={"expected_count": None}) if self.spec.demo else card

    def published(self, row: str, dataset: str) -> Decimal | None:
        """Return the number to be confirmed: the paper's, of the demo its reference."""
        if not self.spec.demo:
            return published_number(self.spec.configuration, row, dataset)
        with (shipped("results/demo") / SCORES).open(newline="", encoding="utf-8") as file:
            values = {(line["row"], line["dataset"]): line["per_cent"] for line in csv.DictReader(file)}
        return Decimal(values[row, dataset]) if (row, dataset) in values else None


def reproduce(guide: Guide, diagnosis: Diagnosis) -> Iterator[Reproduction]:
    """Go through the steps, and yield what is known after each, so that an early end loses nothing.

    First one small dataset, then a cheap one of each kind, then the table: each is fetched where that is possible,
    checked, run, and held against its published numbers. Raises BenchError where weights cannot be had.
    """
    found, say = Reproduction(diagnosis), guide.say
    _fetch_weights(guide, diagnosis)
    found.goldens = compare(choose_device(guide.spec.device, guide.spec.dtype), guide.spec.dtype)
    wrong = ", ".join(one.what for one in found.goldens if not one.good)
    say(f"outputs of the released code on this machine: {f'too far away: {wrong}' if wrong else 'they agree'}")
    yield found
    table = guide.spec.configuration.tables[guide.table]
    steps: dict[Until, Sequence[str]] = {
        "first": [FIRST],
        "kinds": one_of_each_kind(diagnosis.datasets),
        "table": table.columns,
    }
    for number, (step, names) in enumerate(steps.items(), 1):
        say(f"\nstep {number} of {len(steps)}: {', '.join(names)}")
        for name in names:
            _one_dataset(guide, name, [PROPOSED] if step == "first" else table.rows, found)
            yield found
        if step == guide.until:
            return


def one_of_each_kind(datasets: Sequence[DatasetStatus]) -> list[str]:
    """Choose a cheap dataset of each task: one that is there, else one that can be fetched, with the fewest images."""

    def cost(one: DatasetStatus) -> tuple[bool, bool, int]:
        return one.state != "found", not one.direct, one.expected or 0

    known = {one.name: one for one in datasets if one.name != FIRST}
    groups = ([known[name] for name in names if name in known] for names in TASKS.values())
    return [min(group, key=cost).name for group in groups if group]


def write_report(found: Reproduction, guide: Guide, file: Path) -> None:
    """Write the file to send back: environment, checks, cells and tables, without names of machines and folders."""
    texts = {
        "report.md": f"# A first real run\n\n{found.text()}\n\n```text\n{found.diagnosis}\n```\n",
        "report.json": json.dumps(_facts(found), indent=1, default=str),
    }
    private = {str(Path.home()): "~", provenance()["host"]: "HOST"}
    with TemporaryDirectory() as folder, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in texts.items():
            for word, instead in private.items():
                text = text.replace(word, instead)
            archive.writestr(name, text)
        if not found.cells:
            return
        results = guide.spec.folder
        archive.write(export(Path(folder) / "cells.zip", results, limit=guide.spec.limit), "cells.zip")
        for table in tables(results, config=guide.spec.config, cards=guide.spec.cards, out=Path(folder) / "tables"):
            archive.write(table, f"tables/{table.name}")


def _facts(found: Reproduction) -> dict[str, Any]:
    return {
        "environment": provenance(),
        "verify": [{**vars(one), "good": one.good} for one in found.goldens],
        "check": {name: {**asdict(one), "healthy": one.healthy} for name, one in found.checks.items()},
        "cells": [{**one._asdict(), "verdict": one.verdict} for one in found.cells.values()],
        "notes": found.notes,
        "doctor": asdict(found.diagnosis),
    }


def _fetch_weights(guide: Guide, diagnosis: Diagnosis) -> None:
    given = {*guide.spec.upsamplers, guide.spec.configuration.protocol.backbone if guide.spec.checkpoint else ""}
    missing = [one for one in diagnosis.lacking if one.name not in given]
    for one in missing:
        if one.access != "open":
            raise BenchError(f"weights {one.name}: {one.how}; then run the same command again")
    if missing:
        download_weights(guide.spec.configuration, [one.name for one in missing], guide.say, fetch_backbone)


def _one_dataset(guide: Guide, name: str, rows: Sequence[str], found: Reproduction) -> None:
    """Get, check and run one dataset; what goes wrong is noted, and the next one is taken."""
    card = guide.card(name)
    try:
        if name not in found.checks:
            if not guide.spec.demo and not download_dataset(card, guide.root(name), guide.say):
                raise BenchError(f"to be got by hand ({card.access}), see `bench download {name}`")
            found.checks[name] = check(card, guide.root(name))
        errors = [one.what for one in found.checks[name].problems if one.severity == "error"]
        for what in errors:
            guide.say(f"{name}: {what}")
        found.notes += _run(guide, name, rows)
        for cell in _confirmed(guide, card, rows, errors):
            found.cells[cell.row, cell.dataset] = cell
            guide.say("  ".join(filter(None, cell.line)))
    except BenchError as error:
        note = f"{name}: {error}"
        if note not in found.notes:
            found.notes.append(note)
            guide.say(note)


def _run(guide: Guide, name: str, rows: Sequence[str]) -> list[str]:
    """Run rows on one dataset; return what failed."""
    asked = {key: getattr(guide.spec, key) for key in guide.spec.model_fields_set}
    with planned(RunSpec(**{**asked, "methods": tuple(rows), "datasets": (name,)}), report=guide.report) as run:
        execute(run)
        return failures(run)


def _confirmed(guide: Guide, card: Card, rows: Sequence[str], errors: Sequence[str]) -> Iterator[Confirmation]:
    spec = guide.spec
    store = Store(spec.folder, limit=spec.limit, demo=spec.demo)
    scores = scores_of(store, load_config(spec.config), cards=spec.cards, datasets=[card.name])
    for row in rows:
        if (row, card.name) in scores:
            removed = removals(filter(None, [store.cell(row, card.name)]))
            yield confirm(scores[row, card.name], guide.published(row, card.name), card, errors, removed)
