"""``bench compare A [B]``: one row against another, or against all others, on the same images."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.cli.options import add_shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", metavar="A", help="a stored row, e.g. segearth-ov")
    parser.add_argument("second", metavar="B", nargs="?", help="the row it is held against (default: each other one)")
    add_shared(parser, "--datasets", "--results", "--demo", "--limit", "--draws", "--config", "--cards")
    parser.add_argument("--out", metavar="FILE", help="write the numbers as CSV, too")


def main(args: argparse.Namespace) -> int:
    import pandas as pd

    from bench.config import load_config
    from bench.metrics.significance import PERMUTATIONS
    from bench.report.comparison import against_all, compare
    from bench.report.comparison_text import as_record, markdown, summary
    from bench.report.escape import csv_text
    from bench.report.scores import scores_of
    from bench.report.verdict import differences
    from bench.runtime.atomic import write_asked
    from bench.store.store import Store

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
    if args.out:
        write_asked(Path(args.out), csv_text(pd.DataFrame(records)).encode(), f"--out {args.out}")
    return 0
