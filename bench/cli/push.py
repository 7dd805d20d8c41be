"""``bench push``: stored results into a dataset repository of Hugging Face."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from bench.cli.export import export_chosen
from bench.cli.options import add_shared
from bench.errors import BenchError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("repository", metavar="OWNER/NAME", help="a dataset repository; made if it is not there")
    parser.add_argument("--name", default="results", metavar="N", help="of the archive in the repository (results)")
    parser.add_argument("--private", action="store_true", help="if the repository is made, only you see it")
    add_shared(parser, "--methods", "--datasets", "--results", "--demo", "--limit")


def main(args: argparse.Namespace) -> int:
    from bench.store.hub import push

    if "/" in args.name or args.name in ("", ".", ".."):
        raise BenchError(f"--name {args.name}: a plain name is needed, without slashes")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{args.name}.zip"
        cells = export_chosen(args, file)
        print(f"{cells} cells: {push(file, args.repository, args.name, args.private)}")
    return 0
