"""``bench pull``: results that `bench push` put into a repository, into a results folder."""

from __future__ import annotations

import argparse

from bench.cli.options import positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("repository", metavar="OWNER/NAME", help="a dataset repository of Hugging Face")
    parser.add_argument("--name", metavar="N", help="one archive (default: all that are there)")
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit (main)")
    parser.add_argument("--results", metavar="D", default="results", help="results folder (results)")
    parser.add_argument("--limit", type=positive, metavar="N", help="into the results of runs with --limit N")
    parser.add_argument("--demo", action="store_true", help="results of the demo")
    parser.add_argument("--replace", action="store_true", help="also where other results are there")


def main(args: argparse.Namespace) -> int:
    from bench.store.bundle import take_in
    from bench.store.hub import pull
    from bench.store.store import Store

    files = pull(args.repository, args.name, args.revision)
    store = Store(args.results, limit=args.limit, demo=args.demo)
    with store.lock():
        records = take_in(store, files, args.replace)
    for record in records:
        print(f"{record.row} on {record.dataset}: {record.status}, written {record.written}")
    print(f"{len(records)} cells in {args.results}; `bench tables --results {args.results}` shows them")
    return 0
