"""``bench export``: stored results as one archive."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.cli.options import add_shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE.zip", help="the archive to write")
    add_shared(parser, "--methods", "--datasets", "--results", "--demo", "--limit")


def main(args: argparse.Namespace) -> int:
    cells = export_chosen(args, Path(args.file))
    print(f"{args.file}: {cells} cells, {Path(args.file).stat().st_size / 1e6:.1f} MB")
    return 0


def export_chosen(args: argparse.Namespace, file: Path) -> int:
    """Write the results that the flags choose to an archive; return how many cells these are."""
    from bench.errors import listed
    from bench.store.bundle import chosen, export
    from bench.store.store import Store

    wanted = chosen(listed(args.methods, "--methods"), listed(args.datasets, "--datasets"))
    return len(export(Store(args.results, limit=args.limit), file, wanted))
