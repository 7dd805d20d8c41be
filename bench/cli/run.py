"""``bench run``: methods × datasets, every cell stored, then the tables."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.options import add_model_arguments, positive
from bench.errors import BenchError, did_you_mean

if TYPE_CHECKING:
    from bench.config import Config
    from bench.data.cards import Card
    from bench.evaluation.models import Zoo
    from bench.evaluation.plan import Column
    from bench.evaluation.runner import Run
    from bench.runtime.distributed import Peers

STATES = ("missing", "failed", "stale")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what")
    what.add_argument(
        "--methods",
        metavar="A,B",
        help="rows or methods, `all` for the default rows (all; see `bench methods`)",
    )
    what.add_argument(
        "--datasets", metavar="X,Y", help="datasets, `all` for the paper's 17 (all; see `bench datasets`)"
    )
    what.add_argument("--table", metavar="N", help="rows and datasets of one table of benchmark.yaml")
    what.add_argument("--only", metavar="S,…", help=f"only cells that are {', '.join(STATES)}")
    what.add_argument("--fresh", action="store_true", help="forget what is stored of these cells")
    what.add_argument(
        "--limit",
        type=positive,
        metavar="N",
        help="the first N images of each dataset; stored apart and marked",
    )
    what.add_argument(
        "--dry-run", action="store_true", help="print the plan and an estimate of the time, evaluate nothing"
    )
    where = parser.add_argument_group("where")
    where.add_argument(
        "--data-root", metavar="D", help="folder of all datasets (default: $OVSS_BENCH_DATA, else ./data)"
    )
    where.add_argument("--cards", action="append", default=[], metavar="DIR", help="a folder of further dataset cards")
    where.add_argument(
        "--layout",
        action="append",
        default=[],
        metavar="X=L",
        help="read dataset X in this one of its layouts; may be repeated",
    )
    where.add_argument("--results", metavar="D", help="results folder (default: results, with --demo results/demo-run)")
    where.add_argument(
        "--demo", action="store_true", help="the embedded test bed: rendered scenes and a tiny CLIP, offline"
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes that decode images (2 beside a CPU, up to 8 for a GPU); 0: none",
    )
    how.add_argument("--boundary", action="store_true", help="count boundary IoU as well")
    how.add_argument("--strict", action="store_true", help="exit with 1 when a dataset is missing or a cell incomplete")
    how.add_argument(
        "--processes", type=positive, metavar="N", help="start N processes that share the images, as torchrun would"
    )
    how.add_argument("--devices", metavar="0,1", help="start a process for each of these GPUs")
    how.add_argument("--profile", metavar="FILE", help="write a torch.profiler trace (JSON); use it with --limit")
    how.add_argument("--shard", type=_shard, metavar="I/N", help="only the I-th of N parts of each dataset (0/4 … 3/4)")
    add_model_arguments(parser)


def main(args: argparse.Namespace) -> int:
    from bench.runtime.device import choose_device
    from bench.runtime.distributed import joined_peers, launched, start_processes

    if (args.processes or args.devices) and not launched():
        return start_processes(_without(args.arguments, "--processes", "--devices"), args.processes, args.devices)
    device = choose_device(args.device, args.dtype)
    with joined_peers(device) as peers:
        return _run(args, device, peers)


def _run(args: argparse.Namespace, device: str, peers: Peers) -> int:
    import contextlib

    from bench.evaluation.plan import choose_rows, open_columns, select
    from bench.evaluation.runner import Run
    from bench.paths import data_root
    from bench.runtime.device import default_batch, default_workers
    from bench.runtime.profiling import profiled
    from bench.store.store import Store

    config, zoo = _models(args, device)
    only = _only(args.only)
    if args.table and args.table not in config.tables:
        raise BenchError(
            f"--table {args.table}: benchmark.yaml has no such table; {did_you_mean(args.table, config.tables)}"
        )
    rows = choose_rows(config, zoo.methods, args.methods, args.table)
    cards, explicit = _cards(args, config)
    root = _demo_data(cards, peers) if args.demo else data_root(args.data_root)
    columns = open_columns(config, rows, cards, zoo, root, explicit, _layouts(args.layout, cards))
    results = Path(args.results or ("results/demo-run" if args.demo else "results"))
    store = Store(results, limit=args.limit, demo=args.demo, shard=args.shard)
    batch = args.batch or default_batch(device)
    workers = default_workers(device) if args.workers is None else args.workers
    run = Run(zoo, store, config, batch, workers, args.limit, args.shard, args.fresh, args.boundary, peers)
    lock = store.lock() if peers.leads and not args.dry_run else contextlib.nullcontext()
    with lock:
        _prepare(run, columns)
        peers.wait()
        select(columns, only)
        if peers.leads:
            _announce(run, columns, args)
        if args.dry_run:
            return 0
        with profiled(args.profile):
            _execute(run, columns)
    return _close(run, columns, args) if peers.leads else 0


def _models(args: argparse.Namespace, device: str) -> tuple[Config, Zoo]:
    from bench.cli.options import upsampler_files
    from bench.config import load_config
    from bench.demo.config import with_backbone
    from bench.evaluation.models import Zoo
    from bench.registry import load_methods

    config = load_config(args.config)
    if args.demo:
        for flag in ("backbone", "checkpoint", "data_root"):
            if getattr(args, flag):
                raise BenchError(f"--demo has a backbone and data of its own; leave --{flag.replace('_', '-')} out")
    config = with_backbone(config, "demo" if args.demo else args.backbone)
    files = upsampler_files(args.upsampler_checkpoint, config)
    checkpoint = Path(args.checkpoint) if args.checkpoint else None
    return config, Zoo(config, load_methods(args.plugin), checkpoint, files, device, args.dtype)


def _cards(args: argparse.Namespace, config: Config) -> tuple[list[Card], bool]:
    from bench.data.cards import card_names, load_card
    from bench.evaluation.plan import choose_datasets

    folders = [Path(folder) for folder in args.cards]
    names, explicit = choose_datasets(config, card_names(folders), args.datasets, args.table)
    return [load_card(name, folders) for name in names], explicit and not args.demo


def _layouts(flags: Sequence[str], cards: Sequence[Card]) -> dict[str, str]:
    """Dataset -> layout of ``--layout X=L`` flags."""
    names = [card.name for card in cards]
    layouts = dict(flag.partition("=")[::2] for flag in flags)
    for name, layout in layouts.items():
        if name not in names or not layout:
            raise BenchError(
                f"--layout {name}={layout}: X=L is needed, with X a dataset of this run; {did_you_mean(name, names)}"
            )
    return layouts


def _demo_data(cards: Sequence[Card], peers: Peers) -> Path:
    from bench.demo.datasets import write_demo
    from bench.demo.render.taxonomy import CARDS
    from bench.paths import cache_dir

    root = cache_dir() / "demo-data"
    if peers.leads:
        write_demo(root, [card.name for card in cards if card.name in CARDS])
    peers.wait()
    return root


def _prepare(run: Run, columns: Sequence[Column]) -> None:
    """Loads all models, so that a run does not stop at the tenth dataset for a file that was never there."""
    from bench.evaluation.plan import load_models, look_up

    words: list[str] = []

    def report(word: str) -> None:
        words.append(word)
        if run.peers.leads and sys.stderr.isatty():
            print(f"\rencoding prompt words, {len(words)} so far: {word:<40}", end="", file=sys.stderr)

    for column in columns:
        load_models(column, run.zoo, report)
        if run.peers.leads:
            look_up(column, run.store, run.boundary)
    if words and run.peers.leads and sys.stderr.isatty():
        print(file=sys.stderr)
    for column, states in zip(
        columns, run.peers.shared([[cell.state for cell in c.cells] for c in columns]), strict=True
    ):
        for cell, state in zip(column.cells, states, strict=True):
            cell.state = "missing" if run.fresh and cell.query else state
    errors = [cell.error for column in columns for cell in column.cells if column.samples is not None]
    if errors and all(errors):
        raise BenchError(str(errors[0]))


def _announce(run: Run, columns: Sequence[Column], args: argparse.Namespace) -> None:
    from tabulate import tabulate

    from bench.evaluation.plan import describe
    from bench.evaluation.runner import probe

    if args.demo:
        print("DEMO: rendered scenes and a tiny test-bed CLIP. These numbers say nothing about the methods.\n")
    table = [describe(column, run.total(column)) for column in columns]
    print(
        tabulate(
            table,
            headers=["dataset", "images", "cells", "state", "note"],
            maxcolwidths=[None, None, None, None, 70],
        )
    )
    for column in columns:
        for warning in column.samples.warnings if column.samples else ():
            print(f"bench: warning: {column.card.name}: {warning}", file=sys.stderr)
        for cell in column.cells:
            if cell.changes:
                print(f"{cell.settings.row} on {column.card.name} is {cell.state}: {', '.join(cell.changes)}")
    if args.dry_run:
        waiting = [column for column in columns if column.samples and column.due]
        if not waiting:
            print("\nnothing to do: every cell that has data is stored and up to date")
            return
        seconds = sum(probe(run, column) * len(run.indices(column)) for column in waiting)
        time = f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"
        print(f"\nabout {time} on {run.zoo.device} (one image of network size timed for each dataset)")


def _execute(run: Run, columns: Sequence[Column]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from bench.evaluation.runner import execute

    with ThreadPoolExecutor(1) as finishing:  # cells of one dataset are put together while the next one is counted
        done = [future for column in columns for future in execute(run, column, finishing)]
    for future in done:
        future.result()


def _close(run: Run, columns: Sequence[Column], args: argparse.Namespace) -> int:
    """Shows what the run's cells hold now, writes the tables, names what is incomplete."""
    from bench.config import load_config
    from bench.evaluation.runner import failed
    from bench.report.files import write_tables
    from bench.report.scores import collect

    folder = run.store.folder
    config = load_config(args.config)  # as it is on disk: what the command line changed of it has to show in the tables
    collections = collect(folder, config)
    print(f"\n{_grid(run, columns)}\n")
    files = write_tables(collections, config, folder / "tables", ("md", "csv"))
    print(f"{len(files)} tables in {folder / 'tables'}")
    gaps = [f"{column.card.name}: no data" for column in columns if column.missing]
    failures = failed(run, columns)
    for line in [*failures, *(gaps if args.strict else [])]:
        print(f"bench: {line}", file=sys.stderr)
    return 1 if failures or (args.strict and gaps) else 0


def _grid(run: Run, columns: Sequence[Column]) -> str:
    """Rows × datasets of this run as they are stored: per cent, or what is wrong."""
    from tabulate import tabulate

    from bench.metrics import score

    rows = list(dict.fromkeys(cell.settings.row for column in columns for cell in column.cells))
    shown = [column for column in columns if column.samples]
    table = []
    for row in rows:
        line = [row]
        for column in shown:
            cell = run.store.cell(row, column.card.name)
            number = f"{100 * score(cell.areas().total, cell.metric):.1f}" if cell and cell.images.num_rows else ""
            status = "" if cell and cell.status == "ok" else f"{cell.status if cell else 'missing'}"
            line.append(" ".join(part for part in (number, status) if part))
        table.append(line)
    marks = [run.store.demo and "demo", run.limit and f"first {run.limit} images only"]
    title = ", ".join(str(mark) for mark in marks if mark)
    heads = [f"% {'(' + title + ')' if title else ''}", *(column.card.name for column in shown)]
    return tabulate(table, headers=heads, disable_numparse=True, stralign="right", colalign=("left",))


def _only(flag: str | None) -> list[str]:
    states = [part.strip() for part in (flag or "").split(",") if part.strip()]
    for state in states:
        if state not in STATES:
            raise BenchError(f"--only {state}: not a state of a cell; {did_you_mean(state, STATES)}")
    return states


def _without(arguments: Sequence[str], *flags: str) -> list[str]:
    """The arguments but for these flags and their values."""
    kept, skip = [], False
    for word in arguments:
        if skip or word.partition("=")[0] in flags:
            skip = not skip and "=" not in word
            continue
        kept.append(word)
    return kept


def _shard(text: str) -> tuple[int, int]:
    part, slash, parts = text.partition("/")
    if not slash or not (part.isdigit() and parts.isdigit()) or int(part) >= int(parts):
        raise argparse.ArgumentTypeError(f"'{text}' is not I/N with I from 0 to N-1, as in 0/4")
    return int(part), int(parts)
