"""``bench import``: results that `bench export` wrote, into a results folder."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from bench.cli.options import add_shared
from bench.paths import DEMO_RESULTS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE.zip", help="an archive of `bench export`")
    add_target(parser)


def add_target(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say where results go."""
    parser.add_argument("--results", metavar="D", help=f"results folder (results, of the demo {DEMO_RESULTS})")
    parser.add_argument("--demo", action="store_true", help="results of the demo")
    add_shared(parser, "--limit")
    parser.add_argument("--replace", action="store_true", help="also where other results are there")


def main(args: argparse.Namespace) -> int:
    return take(args, [Path(args.file)])


def take(args: argparse.Namespace, files: Sequence[Path]) -> int:
    """Take in the results of these archives and print them."""
    from bench.store.bundle import take_in
    from bench.store.store import Store

    folder = args.results or (DEMO_RESULTS if args.demo else "results")
    store = Store(folder, limit=args.limit, demo=args.demo)
    with store.lock():
        records = take_in(store, files, args.replace)
    for record in records:
        print(f"{record.row} on {record.dataset}: {record.status}, written {record.written}")
    print(f"{len(records)} cells in {folder}; `bench tables --results {folder}` shows them")
    return 0
