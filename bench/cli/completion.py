"""``bench completion``: what makes a shell complete commands and flags."""

from __future__ import annotations

import argparse

from bench.errors import BenchError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=["bash", "zsh", "tcsh"], help="the shell that is to complete")


def main(args: argparse.Namespace) -> int:
    from bench.cli.app import parser_of

    try:
        import shtab
    except ImportError:
        raise BenchError("completion: needs shtab; pip install 'ovss-bench[completion]'") from None
    print(shtab.complete(parser_of([], "ovss-bench", everything=True), args.shell))
    return 0
