"""``bench prepare``: cut and convert a dataset once."""

from __future__ import annotations

import argparse

from bench.cli.options import add_shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a dataset (see `bench datasets`)")
    parser.add_argument(
        "--source",
        metavar="DIR_OR_ZIP",
        help="the download (default: the dataset's folder below the data root)",
    )
    add_shared(parser, "--layout", "--data-root", "--cards")


def main(args: argparse.Namespace) -> int:
    from pathlib import Path

    from bench.data.cards import load_card
    from bench.data.prepare import prepare
    from bench.data.prepared import prepared_folder
    from bench.paths import data_root
    from bench.runtime.room import size_text
    from bench.settings import miscount

    card, root = load_card(args.name, args.cards), data_root(args.data_root)
    manifest = prepare(card, Path(args.source).expanduser() if args.source else None, root, args.layout)
    for warning in manifest.warnings:
        print(f"note: {warning}")
    size = sum(shard.bytes for shard in manifest.shards)
    folder = prepared_folder(card, root, args.layout)
    print(f"{folder}: {len(manifest.ids):,} images in {len(manifest.shards)} shards, {size_text(size)}")
    if wrong := miscount(len(manifest.ids), card.expected_count):
        print(f"incomplete: {wrong}; see `bench datasets check {card.name}`")
    return 1 if wrong else 0
