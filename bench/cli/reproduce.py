"""``bench reproduce``: the guided first run: fetch, check, run, compare, and one file to send back."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.cli.options import add_fields, add_model_arguments
from bench.errors import BenchError, writing
from bench.spec import RunSpec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--table", default="1", metavar="N", help="the table to end with (1)")
    parser.add_argument(
        "--until",
        choices=["first", "kinds", "table"],
        default="table",
        help="stop after the first dataset (UDD5), after one dataset of each kind, or after the table (table)",
    )
    parser.add_argument("-o", "--output", default="reproduction.zip", metavar="FILE", help="reproduction.zip")
    add_fields(parser, RunSpec, data_root="D", cards="DIR", results="D", demo=None, workers="N")
    add_model_arguments(parser)


def main(args: argparse.Namespace) -> int:
    if args.data_root and not args.demo:  # what is missing is fetched into it
        with writing(f"--data-root {args.data_root}"):
            Path(args.data_root).expanduser().mkdir(parents=True, exist_ok=True)
    spec, file = RunSpec.from_cli(args), Path(args.output)
    if file.is_dir() or not file.parent.is_dir():  # said now, not after hours
        raise BenchError(f"-o {file}: cannot be written; give a file in a folder that is there")

    from bench.cli.progress import Bars
    from bench.verify.doctor import doctor
    from bench.verify.reproduce import Guide, Reproduction, reproduce, write_report

    bars = Bars(shown=True)
    found: Reproduction | None = None

    def say(text: str) -> None:
        bars.close()
        print(text)

    diagnosis = doctor(
        spec.data_root,
        table=args.table,
        demo=spec.demo,
        device=spec.device,
        config=spec.config,
        cards=spec.cards,
        measure=False,  # which takes a minute, and `doctor` did
    )
    print(f"{diagnosis}\n")
    if spec.demo:
        print(
            "DEMO: rendered scenes and a tiny test-bed CLIP; the numbers to confirm are those of the demo's reference."
        )
    guide = Guide(spec, args.table, args.until, say, bars.images)
    try:
        for state in reproduce(guide, diagnosis):
            found = state
    finally:
        bars.close()
        if found is not None:
            write_report(found, guide, file)
            when = "with real data, " if spec.demo else ""
            print(f"\n{found.text()}\n\n{file}: {when}send it back with the form `A first real run`")
    return 0 if found is not None and found.confirmed else 1
