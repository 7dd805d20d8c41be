"""``bench tables``: all tables from what is stored. Needs no torch, no data and no weights."""

from __future__ import annotations

import argparse

from bench.cli.options import add_shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="D", help="where the files go (default: tables/ in the results folder)")
    parser.add_argument(
        "--format", metavar="F", default="md,csv", help="of md, csv, latex, latex-intervals, html (md,csv)"
    )
    parser.add_argument("--table", metavar="N", action="append", help="only this table; may be repeated")
    add_shared(parser, "--results", "--demo", "--draws", "--config", "--cards")


def main(args: argparse.Namespace) -> int:
    from bench.paths import demo_hint
    from bench.report.frames import tables
    from bench.store.store import Store, limits

    for file in tables(args.results, args.out, args.format.split(","), args.table, args.config, args.draws, args.cards):
        print(file)
    if not Store(args.results).cells() and not limits(args.results):
        found = f"nothing has been run yet in {args.results}: the tables hold published numbers only"
        print(found + demo_hint(args.results))
    return 0
