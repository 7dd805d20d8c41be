"""Flags of the commands that deal with datasets on disk."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the datasets are, and where there are more cards."""
    parser.add_argument(
        "--data-root", metavar="D", help="folder of all datasets (default: $OVSS_BENCH_DATA, else ./data)"
    )
    add_cards_argument(parser)


def add_cards_argument(parser: argparse.ArgumentParser) -> None:
    """Where there are more cards."""
    parser.add_argument(
        "--cards",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="a folder of further dataset cards",
    )
