"""``bench download``: fetch what has a public address, and say how to get the rest."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.options import add_shared

if TYPE_CHECKING:
    from bench.config import BackboneSpec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "names",
        nargs="+",
        metavar="NAME",
        help="datasets; or `weights` and names of upsamplers, second models or backbones (none: all upsamplers)",
    )
    add_shared(parser, "--data-root", "--cards", "--config")


def main(args: argparse.Namespace) -> int:
    from bench.config import load_config
    from bench.data.cards import load_card
    from bench.data.download import download_dataset, download_weights
    from bench.paths import data_root

    if args.names[0] == "weights":
        return 0 if download_weights(load_config(args.config), args.names[1:], print, _fetch_backbone) else 1
    cards = [load_card(name, args.cards) for name in args.names]
    complete = [download_dataset(card, data_root(args.data_root), print) for card in cards]
    return 0 if all(complete) else 1


def _fetch_backbone(spec: BackboneSpec) -> Path:
    from bench.models.clip_weights import fetch_backbone  # imports open_clip: seconds, which other weights do not need

    return fetch_backbone(spec)
