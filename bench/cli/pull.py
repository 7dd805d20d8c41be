"""``bench pull``: results that `bench push` put into a repository, into a results folder."""

from __future__ import annotations

import argparse

from bench.cli.import_ import add_target, take


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("repository", metavar="OWNER/NAME", help="a dataset repository of Hugging Face")
    parser.add_argument("--name", metavar="N", help="one archive (default: all that are there)")
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit (main)")
    add_target(parser)


def main(args: argparse.Namespace) -> int:
    from bench.store.hub import pull

    return take(args, pull(args.repository, args.name, args.revision))
