"""``bench tables``: all tables from what is stored. Needs no torch, no data and no weights."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.cli.options import positive

FORMATS = ("md", "csv")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", metavar="D", default="results", help="results folder (default: results)")
    parser.add_argument("--out", metavar="D", help="where the files go (default: tables/ in the results folder)")
    parser.add_argument("--format", metavar="F", default="md,csv", help="md, csv or both (default: md,csv)")
    parser.add_argument("--table", metavar="N", action="append", help="only this table; may be repeated")
    parser.add_argument("--draws", type=positive, metavar="B", help="bootstrap draws (default: 1000)")
    parser.add_argument("--config", metavar="FILE", help="another benchmark.yaml")


def main(args: argparse.Namespace) -> int:
    from bench.config import load_config
    from bench.errors import BenchError, did_you_mean
    from bench.report.files import write_tables
    from bench.report.scores import DRAWS, collect

    formats = args.format.split(",")
    for name in formats:
        if name not in FORMATS:
            raise BenchError(f"--format {args.format}: unknown format '{name}'; {did_you_mean(name, FORMATS)}")
    config = load_config(args.config)
    for name in args.table or ():
        if name not in config.tables:
            raise BenchError(f"--table {name}: no such table; {did_you_mean(name, config.tables)}")
    results = Path(args.results)
    if not results.is_dir():
        raise BenchError(f"results folder {results} does not exist; run something first, or give another --results")
    collections = collect(results, config, args.draws or DRAWS)
    out = Path(args.out) if args.out else results / "tables"
    for file in write_tables(collections, config, out, formats, args.table):
        print(file)
    return 0
