"""All that is known of one stored result: what `bench.show` and ``python -m bench show`` print."""

from __future__ import annotations

import contextlib
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tabulate import tabulate

from bench.config import Config, load_config
from bench.data.cards import Card
from bench.errors import BenchError
from bench.metrics.intervals import units
from bench.paths import Paths, each_path
from bench.report.analysis import per_class_table, removals
from bench.report.published import load_published
from bench.report.scores import Score, stored_score
from bench.report.verdict import card_of, settings_now
from bench.runtime.room import size_text
from bench.settings import EXTERNAL
from bench.store.record import Cost
from bench.store.result import StoredResult
from bench.store.store import Store


@dataclass(frozen=True, repr=False)
class Details:
    """One stored result; printed, it is the text of ``python -m bench show``.

    blocks: title -> name -> value. classes: a line for each class, in per cent; empty where the counts are damaged.
    """

    blocks: dict[str, dict[str, Any]]
    classes: pd.DataFrame

    def __repr__(self) -> str:
        texts = []
        for title, lines in shown_blocks(self.blocks).items():
            texts.append(f"{title}\n{tabulate(lines, tablefmt='plain', disable_numparse=True)}")
        if len(self.classes):
            known = self.classes.dropna(axis="columns", how="all")
            texts.append(tabulate(known.values.tolist(), headers=list(known.columns), floatfmt=".1f"))
        return "\n\n".join(texts)


def show(
    row: str,
    dataset: str,
    results: str | Path = "results",
    limit: int | None = None,
    config: str | Path | None = None,
    cards: Paths = (),
) -> Details:
    """Collect all that is known of one stored result: score, verdict, history, settings, hashes, provenance, classes.

    limit: of a run on the first N images. Raises BenchError where nothing is stored.

    >>> bench.show("clip", "wbs_si", "results/demo-run").blocks["clip on wbs_si"]["verdict"]
    'complete'
    """
    store, loaded, folders = Store(results, limit=limit), load_config(config), each_path(cards)
    cell, score = stored_score(store, row, dataset, loaded, folders)
    classes = per_class_table([cell] if score.verdict.images != "damaged" else [])
    return Details(
        blocks_of(cell, score, loaded, card_of(dataset, folders)),
        classes.drop(columns=["row", "dataset"], errors="ignore"),
    )


def shown_blocks(blocks: Mapping[str, Mapping[str, Any]]) -> dict[str, list[tuple[str, str]]]:
    """Return title -> lines of (name, value) of the blocks of `Details`, as text."""
    texts = {title: {name: _shown(value) for name, value in lines.items()} for title, lines in blocks.items()}
    return {
        title: [(name, "" if value is None else str(value)) for name, value in lines.items()]
        for title, lines in texts.items()
    }


def _shown(value: Any) -> Any:
    """Spell what holds several values as `name value, name value`, without those that are not set."""
    if not isinstance(value, Mapping):
        return value
    return ", ".join(f"{name} {one}" for name, one in value.items() if one is not None)


def _spent(cost: Cost | None) -> str | None:
    if cost is None:
        return None
    memory = size_text(cost.peak_memory_bytes)
    return f"{cost.seconds:.1f} seconds for {units(cost.images, 'image')}, at most {memory} of memory"


def command_of(cell: StoredResult, config: Config, card: Card | None) -> str:
    """Return the command that makes a result again; a plug-in and a data root of one's own are still to be named."""
    settings, record = cell.settings, cell.record
    if settings.method == EXTERNAL:
        flags = ["score", "FOLDER", "--dataset", cell.dataset, "--row", cell.row]
    else:
        flags = ["run", "--methods", cell.row, "--datasets", cell.dataset]
    if not record.demo and settings.method != EXTERNAL:
        with contextlib.suppress(BenchError):  # of a row that benchmark.yaml does not know
            now = settings_now(cell, config, card)
            flags += ["--backbone", settings.backbone] if now and now.backbone != settings.backbone else []
    flags += ["--dtype", record.info.dtype] if record.info.dtype not in (None, "fp32") else []
    flags += ["--demo"] if record.demo else []
    flags += ["--limit", str(record.limit)] if record.limit else []
    return f"python -m bench {shlex.join(flags)}"


def blocks_of(cell: StoredResult, found: Score, config: Config, card: Card | None) -> dict[str, dict[str, Any]]:
    """Return all that is known of a result, title -> name -> value, as `Details` holds it. card: of now, if any."""
    interval, known = found.interval, found.verdict
    value = "none" if math.isnan(found.value) else f"{100 * found.value:.1f} % {cell.metric}"
    if interval is not None:
        ends = f"95 %: {100 * interval.low:.1f} to {100 * interval.high:.1f} over " if interval.known else ""
        value += f", {ends}{interval.sample}"
    value += "".join(f"; not seen by it: {spot}" for spot in found.blind_spots)
    about = card.facts() if card else cell.record.card
    result = {"score": value, "verdict": known.text or "complete", "images": f"{known.counted} of {known.expected}"}
    result |= {"dataset": f"{about.title} ({about.task})"} if about else {}
    result |= {f"because {number}": text for number, text in enumerate(known.why, 1)}
    result |= {f"caveat {number}": text for number, text in enumerate(known.caveats, 1)}
    result |= {key: text for key in ("footnote", "origin") if (text := getattr(known, key))}
    result |= {f"note {number}": text for number, text in enumerate(known.notes, 1)}
    lost = removals([cell]) if known.images != "damaged" else []
    result |= {f"removed {number}": text for number, text in enumerate(lost, 1)}
    result |= {f"earlier {number}": text for number, text in enumerate(found.history, 1)}
    result |= {"limited": f"the first {known.limit} images only"} if known.limit else {}
    result |= {"demo": "rendered scenes and a tiny CLIP; says nothing about the method"} if known.demo else {}
    for name, table in config.tables.items():
        line = load_published(table.published).get(cell.row)
        if line is not None and cell.dataset in line.values:
            apart = "" if known.comparable else ", not to be compared with this result"
            result[f"published (table {name})"] = f"{line.values[cell.dataset]}{apart}"
    result |= {f"unverified {number}": text for number, text in enumerate(about.unverified if about else (), 1)}
    record = cell.record
    made = {"command": command_of(cell, config, card), "written": record.written, "cost": _spent(record.cost)}
    made |= record.info.model_dump(exclude_none=True, exclude={"caveat", "footnote"}) | record.made_with
    return {
        f"{cell.row} on {cell.dataset}": result,
        "settings": cell.settings.model_dump(exclude={"row", "dataset"}),
        "inputs (hashes)": dict(record.inputs) | {"counts": record.counts_sha256},
        "made": made,
    }
