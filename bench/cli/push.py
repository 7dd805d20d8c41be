"""``bench push``: stored results into a dataset repository of Hugging Face."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from bench.cli.options import positive
from bench.errors import BenchError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("repository", metavar="OWNER/NAME", help="a dataset repository; made if it is not there")
    parser.add_argument("--name", default="results", metavar="N", help="of the archive in the repository (results)")
    parser.add_argument("--private", action="store_true", help="if the repository is made, only you see it")
    parser.add_argument("--methods", metavar="A,B", help="only these rows (all)")
    parser.add_argument("--datasets", metavar="X,Y", help="only these datasets (all)")
    parser.add_argument("--results", metavar="D", default="results", help="results folder (results)")
    parser.add_argument("--limit", type=positive, metavar="N", help="results of runs with --limit N")


def main(args: argparse.Namespace) -> int:
    from bench.spec import listed
    from bench.store.bundle import chosen, export
    from bench.store.hub import push
    from bench.store.store import Store

    if "/" in args.name or args.name in ("", ".", ".."):
        raise BenchError(f"--name {args.name}: a plain name is needed, without slashes")
    store = Store(args.results, limit=args.limit)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{args.name}.zip"
        cells = export(store, file, chosen(listed(args.methods, "--methods"), listed(args.datasets, "--datasets")))
        print(f"{len(cells)} cells: {push(file, args.repository, args.name, args.private)}")
    return 0
