"""``bench doctor``: what this machine has and lacks for a table of the paper, and what to do next."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys

from bench.cli.options import add_shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--table", default="1", metavar="N", help="the table that is to be run (1)")
    parser.add_argument("--demo", action="store_true", help="look at the embedded test bed instead")
    parser.add_argument("--quick", action="store_true", help="leave out the time, which takes a minute to measure")
    parser.add_argument("--json", action="store_true", help="for machines")
    add_shared(parser, "--data-root", "--cards", "--config", "--device")


def main(args: argparse.Namespace) -> int:
    from bench.verify.doctor import doctor

    if not args.quick:
        print("bench: timing the rows of each table takes a minute; --quick leaves it out", file=sys.stderr)
    found = doctor(
        args.data_root,
        table=args.table,
        demo=args.demo,
        device=args.device,
        config=args.config,
        cards=args.cards,
        measure=not args.quick,
    )
    print(json.dumps(dataclasses.asdict(found), indent=2, default=str) if args.json else found)
    return 0 if found.ready else 1
