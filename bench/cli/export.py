"""``bench export``: stored results as one archive."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.cli.options import positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE.zip", help="the archive to write")
    parser.add_argument("--methods", metavar="A,B", help="only these rows (all)")
    parser.add_argument("--datasets", metavar="X,Y", help="only these datasets (all)")
    parser.add_argument("--results", metavar="D", default="results", help="results folder (results)")
    parser.add_argument("--limit", type=positive, metavar="N", help="results of runs with --limit N")


def main(args: argparse.Namespace) -> int:
    from bench.spec import listed
    from bench.store.bundle import chosen, export
    from bench.store.store import Store

    store = Store(args.results, limit=args.limit)
    cells = export(
        store, Path(args.file), chosen(listed(args.methods, "--methods"), listed(args.datasets, "--datasets"))
    )
    print(f"{args.file}: {len(cells)} cells, {Path(args.file).stat().st_size / 1e6:.1f} MB")
    return 0
