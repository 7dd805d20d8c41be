"""``bench import``: results that `bench export` wrote, into a results folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.cli.options import positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE.zip", help="an archive of `bench export`")
    parser.add_argument("--results", metavar="D", default="results", help="results folder (results)")
    parser.add_argument("--limit", type=positive, metavar="N", help="into the results of runs with --limit N")
    parser.add_argument("--demo", action="store_true", help="results of the demo")
    parser.add_argument("--replace", action="store_true", help="also where other results are there")


def main(args: argparse.Namespace) -> int:
    from bench.store.bundle import take_in
    from bench.store.store import Store

    store = Store(args.results, limit=args.limit, demo=args.demo)
    with store.lock():
        records = take_in(store, [Path(args.file)], args.replace)
    for record in records:
        print(f"{record.row} on {record.dataset}: {record.status}, written {record.written}")
    print(f"{len(records)} cells in {args.results}; `bench tables --results {args.results}` shows them")
    return 0
