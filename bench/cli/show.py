"""``bench show ROW DATASET``: all that is known of one stored result."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from bench.cli.options import positive

if TYPE_CHECKING:
    from bench.store.result import StoredResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("row", metavar="ROW", help="a stored row")
    parser.add_argument("dataset", metavar="DATASET", help="a dataset that it was evaluated on")
    parser.add_argument("--results", metavar="D", default="results", help="results folder (results)")
    parser.add_argument("--limit", type=positive, metavar="N", help="of a run with --limit N")
    parser.add_argument("--config", metavar="FILE", help="another benchmark.yaml")


def main(args: argparse.Namespace) -> int:
    from tabulate import tabulate

    from bench.config import load_config
    from bench.errors import BenchError, did_you_mean
    from bench.report.analysis import per_class_table
    from bench.store.store import Store

    store = Store(args.results, limit=args.limit)
    cell = store.cell(args.row, args.dataset)
    if cell is None:
        damaged = store.damaged().get((args.row, args.dataset))
        names = [f"{one.row} {one.dataset}" for one in store.cells()]
        hint = did_you_mean(f"{args.row} {args.dataset}", names)
        raise BenchError(damaged or f"{args.results}: nothing is stored of {args.row} on {args.dataset}; {hint}")
    for title, lines in _blocks(cell, load_config(args.config)).items():
        print(f"{title}\n{tabulate(lines.items(), tablefmt='plain')}\n")
    classes = per_class_table([cell])
    if len(classes):
        shown = classes.drop(columns=["row", "dataset"])
        print(tabulate(shown.values.tolist(), headers=list(shown.columns), floatfmt=".1f"))
    return 0


def _blocks(cell: StoredResult, config: Any) -> dict[str, dict[str, Any]]:
    from bench.data.cards import load_card
    from bench.errors import BenchError
    from bench.report.published import load_published
    from bench.report.scores import read_score

    found = read_score(cell, config)
    interval = found.interval
    value = f"{100 * found.value:.1f} % {cell.metric}" if cell.counted else "none"
    if interval is not None:
        ends = f"95 %: {100 * interval.low:.1f} to {100 * interval.high:.1f} over " if interval.known else ""
        value += f", {ends}{interval.sample}"
    result = {"score": value, "status": found.status, "images": f"{cell.counted} of {cell.total}"}
    result |= {"reason": found.reason} if found.reason else {}
    result |= {"stale": "; ".join(found.stale)} if found.stale else {}
    result |= {f"earlier {number}": text for number, text in enumerate(found.history, 1)}
    result |= {f"caveat {number}": text for number, text in enumerate(found.caveats, 1)}
    result |= {"footnote": found.footnote} if found.footnote else {}
    result |= {"machines": found.mixture} if found.mixture else {}
    result |= {"demo": "rendered scenes and a tiny CLIP; says nothing about the method"} if found.demo else {}
    for name, table in config.tables.items():
        line = load_published(table.published).get(cell.row)
        if line is not None and cell.dataset in line.values:
            result[f"published (table {name})"] = str(line.values[cell.dataset])
    try:
        unverified = load_card(cell.dataset).unverified
    except BenchError:
        unverified = ()
    result |= {f"unverified {number}": text for number, text in enumerate(unverified, 1)}
    record = cell.record
    made = {"written": record.written, "cost": record.cost.model_dump() if record.cost else None}
    made |= record.info.model_dump(exclude_none=True, exclude={"caveat", "footnote"}) | record.made_with
    return {
        f"{cell.row} on {cell.dataset}": result,
        "settings": cell.settings.model_dump(exclude={"row", "dataset"}),
        "inputs (hashes)": dict(record.inputs) | {"counts": record.counts_sha256},
        "made": made,
    }
