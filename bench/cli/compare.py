"""``bench compare A [B]``: one row against another, or against all others, on the same images, and why they differ."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.options import add_shared
from bench.paths import DEMO_RESULTS, existing_root

if TYPE_CHECKING:
    from bench.report.breakdown import ObjectBreakdown
    from bench.report.comparison import Pair


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", metavar="A", help="a stored row, e.g. segearth-ov")
    parser.add_argument("second", metavar="B", nargs="?", help="the row it is held against (default: each other one)")
    add_shared(parser, "--datasets", "--results", "--demo", "--limit", "--draws", "--config", "--cards")
    parser.add_argument(
        "--why",
        action="store_true",
        help="where the difference on each dataset comes from: classes, confusion, images; size of objects and "
        "distance from edges, where the label maps of both rows are kept",
    )
    add_shared(parser, "--data-root")
    parser.add_argument("--out", metavar="FILE", help="write the numbers as CSV, too")


def main(args: argparse.Namespace) -> int:
    import pandas as pd

    from bench.config import load_config
    from bench.errors import BenchError
    from bench.metrics.significance import PERMUTATIONS
    from bench.report.comparison import against_all, compare
    from bench.report.comparison_text import as_record, markdown, summary, why
    from bench.report.escape import csv_text
    from bench.report.scores import scores_of
    from bench.report.verdict import differences
    from bench.runtime.atomic import write_asked
    from bench.store.store import Store

    if args.why and args.second is None:
        raise BenchError(f"--why: takes two rows, as in `compare {args.first} B --why`")
    if args.data_root:
        existing_root(args.data_root)
    store = Store(args.results, limit=args.limit)
    datasets = [name.strip() for name in args.datasets.split(",")] if args.datasets else None
    scores = scores_of(store, load_config(args.config), args.cards, datasets)
    if args.second is None:
        found = against_all(store, args.first, datasets, args.draws or PERMUTATIONS, scores)
        print(summary(found, args.limit))
        records = [{"row": one.second, **as_record(pair)} for one in found for pair in one.pairs]
    else:
        result = compare(store, args.first, args.second, datasets, args.draws or PERMUTATIONS, scores)
        print(markdown(result, args.limit))
        records = [as_record(pair) for pair in result.pairs]
    compared = {args.first, args.second} if args.second else {row for row, _ in scores}
    if line := differences({key: score.verdict for key, score in scores.items() if key[0] in compared}):
        print(line)
    if args.why:
        labels = {row: score.label for (row, _), score in scores.items()}
        for pair in result.pairs:
            print(why(pair, labels, _objects(pair, args)))
            print(f"Pictures: python -m bench figure {pair.dataset} --gains {_asked(args, pair)} -o gains.png\n")
    if args.out:
        write_asked(Path(args.out), csv_text(pd.DataFrame(records)).encode(), f"--out {args.out}")
    return 0


def _objects(pair: Pair, args: argparse.Namespace) -> ObjectBreakdown | None:
    """Return the differences by size and distance, where label maps and labels are there."""
    from bench.data.layouts import DatasetMissing
    from bench.data.prepared import find_samples
    from bench.demo.datasets import demo_data_root
    from bench.paths import data_root
    from bench.report.breakdown import object_breakdown
    from bench.report.verdict import card_of

    record, card = pair.cells[0].record, card_of(pair.dataset, args.cards)
    if card is None:
        return None
    root = demo_data_root([pair.dataset]) if record.demo else data_root(args.data_root)
    try:
        samples = find_samples(card, root, record.info.layout)
    except DatasetMissing:
        return None
    return object_breakdown(*pair.cells, samples)


def _asked(args: argparse.Namespace, pair: Pair) -> str:
    """Spell the rows and where they are, as a command takes them."""
    results = None if args.results in ("results", DEMO_RESULTS) else args.results
    given = {"--results": results, "--data-root": args.data_root, "--config": args.config}
    parts = [args.first, args.second, *(["--demo"] if pair.cells[0].record.demo else [])]
    parts += [text for flag, value in given.items() if value is not None for text in (flag, str(value))]
    return shlex.join(parts + [text for folder in args.cards for text in ("--cards", str(folder))])
