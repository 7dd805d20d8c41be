"""``bench show ROW DATASET``: all that is known of one stored result."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli.options import add_shared

if TYPE_CHECKING:
    from bench.report.scores import Score
    from bench.store.result import StoredResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("row", metavar="ROW", help="a stored row")
    parser.add_argument("dataset", metavar="DATASET", help="a dataset that it was evaluated on")
    add_shared(parser, "--results", "--limit", "--config", "--cards")


def main(args: argparse.Namespace) -> int:
    from tabulate import tabulate

    from bench.config import load_config
    from bench.errors import BenchError, did_you_mean
    from bench.report.analysis import per_class_table
    from bench.report.scores import scores_of
    from bench.store.store import Store

    store, config = Store(args.results, limit=args.limit), load_config(args.config)
    cell = store.cell(args.row, args.dataset)
    if cell is None:
        damaged = store.damaged().get((args.row, args.dataset))
        names = [f"{one.row} {one.dataset}" for one in store.cells()]
        hint = did_you_mean(f"{args.row} {args.dataset}", names)
        raise BenchError(damaged or f"{args.results}: nothing is stored of {args.row} on {args.dataset}; {hint}")
    score = scores_of(store, config, cards=args.cards, datasets=[args.dataset])[args.row, args.dataset]
    for title, lines in _blocks(cell, score, config, args.cards).items():
        print(f"{title}\n{tabulate(lines.items(), tablefmt='plain')}\n")
    classes = per_class_table([cell] if score.verdict.images != "damaged" else [])
    if len(classes):
        shown = classes.drop(columns=["row", "dataset"])
        print(tabulate(shown.values.tolist(), headers=list(shown.columns), floatfmt=".1f"))
    return 0


def _blocks(cell: StoredResult, found: Score, config: Any, cards: Sequence[Path]) -> dict[str, dict[str, Any]]:
    from bench.report.published import load_published
    from bench.report.verdict import card_of

    interval, known = found.interval, found.verdict
    value = "none" if math.isnan(found.value) else f"{100 * found.value:.1f} % {cell.metric}"
    if interval is not None:
        ends = f"95 %: {100 * interval.low:.1f} to {100 * interval.high:.1f} over " if interval.known else ""
        value += f", {ends}{interval.sample}"
    value += "".join(f"; not seen by it: {spot}" for spot in found.blind_spots)
    card = card_of(cell.dataset, cards)
    about = card.facts() if card else cell.record.card
    result = {"score": value, "verdict": known.text or "complete", "images": f"{known.counted} of {known.expected}"}
    result |= {"dataset": f"{about.title} ({about.task})"} if about else {}
    result |= {f"because {number}": text for number, text in enumerate(known.why, 1)}
    result |= {f"caveat {number}": text for number, text in enumerate(known.caveats, 1)}
    result |= {"footnote": known.footnote} if known.footnote else {}
    result |= {f"note {number}": text for number, text in enumerate(known.notes, 1)}
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
    made = {"written": record.written, "cost": record.cost.model_dump() if record.cost else None}
    made |= record.info.model_dump(exclude_none=True, exclude={"caveat", "footnote"}) | record.made_with
    return {
        f"{cell.row} on {cell.dataset}": result,
        "settings": cell.settings.model_dump(exclude={"row", "dataset"}),
        "inputs (hashes)": dict(record.inputs) | {"counts": record.counts_sha256},
        "made": made,
    }
