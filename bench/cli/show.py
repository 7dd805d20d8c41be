"""``bench show ROW DATASET``: all that is known of one stored result."""

from __future__ import annotations

import argparse

from bench.cli.options import add_shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("row", metavar="ROW", help="a stored row")
    parser.add_argument("dataset", metavar="DATASET", help="a dataset that it was evaluated on")
    add_shared(parser, "--results", "--demo", "--limit", "--config", "--cards")


def main(args: argparse.Namespace) -> int:
    from bench.report.details import show

    print(show(args.row, args.dataset, args.results, args.limit, args.config, args.cards))
    return 0
