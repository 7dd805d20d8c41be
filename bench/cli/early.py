"""What can be seen to be wrong from the command line alone, in a fraction of a second and before torch is imported."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from bench.cli.options import upsampler_files
from bench.config import Config, base_name, load_config
from bench.errors import BenchError, did_you_mean
from bench.registry import declared_methods


def check_models(args: argparse.Namespace, rows: Sequence[str]) -> Config:
    """Names and files that `add_model_arguments` takes, and rows. Raises BenchError for the first that is wrong."""
    config = load_config(args.config)
    for flag, file in (("--checkpoint", args.checkpoint), ("--backbone", args.backbone)):
        if file and (flag == "--checkpoint" or file.endswith(".json")) and not Path(file).is_file():
            raise BenchError(f"{flag} {file}: no such file; check the path")
    for file in upsampler_files(args.upsampler_checkpoint, config).values():
        if not file.is_file():
            raise BenchError(f"--upsampler-checkpoint {file}: no such file; check the path")
    known = declared_methods(args.plugin)
    for row in [row for name in rows if name != "all" for row in config.groups.get(name, [name])]:
        config.row(row)  # its modifiers and backbone exist
        base = base_name(row)
        if known is not None and row not in config.rows and base not in {*config.rows, *known}:
            spaces = "separate names by commas" if " " in row.strip() else did_you_mean(base, {*config.rows, *known})
            raise BenchError(f"--methods: unknown row or method '{row}'; {spaces}")
    return config


def check_data(config: Config, args: argparse.Namespace, names: Sequence[str]) -> None:
    """Datasets, cards and layouts of ``bench run``. Raises BenchError for the first that is wrong."""
    from bench.data.cards import load_card

    cards = {card.name: card for card in (load_card(name, args.cards) for name in names)}
    for flag in args.layout:
        name, _, layout = flag.partition("=")
        if name not in cards or not layout:
            hint = did_you_mean(name, cards)
            raise BenchError(f"--layout {flag}: X=L is needed, with X a dataset of this run; {hint}")
        if layout not in cards[name].layouts:
            hint = did_you_mean(layout, cards[name].layouts)
            raise BenchError(f"--layout {flag}: {name} has no layout '{layout}'; {hint}")
    if args.data_root and not Path(args.data_root).expanduser().is_dir():
        raise BenchError(f"--data-root {args.data_root}: no such folder; check the path")
    if args.table is not None and args.table not in config.tables:
        hint = did_you_mean(args.table, config.tables)
        raise BenchError(f"--table {args.table}: benchmark.yaml has no such table; {hint}")
