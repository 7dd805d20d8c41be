"""``bench run``: methods × datasets, every cell stored, then the tables."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from bench.cli.options import add_fields, add_model_arguments, positive
from bench.runtime.trackers import check
from bench.spec import RunSpec

if TYPE_CHECKING:
    from bench.evaluation.dataset_run import Progress, Run
    from bench.evaluation.plan import DatasetPlan
    from bench.runtime.distributed import Distributed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what")
    add_fields(what, RunSpec, methods="A,B", datasets="X,Y", protocols="P,…", vocabularies="V,…", options="K=V")
    add_fields(what, RunSpec, sweeps="K=V1,V2", table="N", only="S,…", fresh=None, limit="N", shard="I/N")
    what.add_argument(
        "--dry-run", action="store_true", help="print the plan and an estimate of the time, evaluate nothing"
    )
    where = parser.add_argument_group("where")
    add_fields(where, RunSpec, data_root="D", cards="DIR", layouts="X=L", results="D", demo=None)
    how = parser.add_argument_group("how")
    add_fields(how, RunSpec, workers="N", boundary=None, save_predictions="N", allow_incomplete=None, time_limit="S")
    how.add_argument("--strict", action="store_true", help="exit with 1 also when a dataset or words are missing")
    how.add_argument(
        "--processes", type=positive, metavar="N", help="start N processes that share the images, as torchrun would"
    )
    how.add_argument("--devices", metavar="0,1", help="start a process for each of these GPUs")
    how.add_argument(
        "--log-to",
        action="append",
        default=[],
        metavar="KIND[:TARGET]",
        help="report progress, scores and tables: jsonl:FILE, tensorboard:DIR, wandb:PROJECT, trackio:PROJECT",
    )
    how.add_argument("--profile", metavar="FILE", help="write a torch.profiler trace (JSON); use it with --limit")
    add_model_arguments(parser)


def main(args: argparse.Namespace) -> int:
    for flag in args.log_to:
        check(flag)
    spec = RunSpec.from_cli(args)

    from bench.runtime.device import choose_device
    from bench.runtime.distributed import init_distributed, launched, start_processes

    if (args.processes or args.devices) and not launched():
        return start_processes(args.arguments, args.processes, args.devices)
    with init_distributed(choose_device(spec.device, spec.dtype)) as processes:
        return _run(spec, args, processes)


def _run(spec: RunSpec, args: argparse.Namespace, processes: Distributed) -> int:
    from bench.cli.progress import Bars, RunLog
    from bench.evaluation.run import execute, planned
    from bench.runtime.timing import profiled

    bars, log = Bars(shown=processes.is_main), RunLog(args.log_to if processes.is_main else ())

    def report(progress: Progress) -> None:
        bars.images(progress)
        log.images(progress, bars.done)

    looks = {"writes": not args.dry_run, "tolerant": args.dry_run}
    with planned(spec, **looks, processes=processes, report=report, report_word=bars.word) as run:
        bars.close()
        if processes.is_main:
            _announce(run)
        if args.dry_run:
            if processes.is_main:
                _estimate(run)
            return 1 if run.errors or _without_data(run, args.strict) else 0
        bars.expect(sum(-(-len(dataset.indices) // processes.size) for dataset in run.waiting))
        with contextlib.closing(log):
            log.start(run)
            with profiled(args.profile):
                execute(run)
            bars.close()
            log.finish(run)
    return _close(run, args.strict) if processes.is_main else 0


def _announce(run: Run) -> None:
    from tabulate import tabulate

    if run.spec.demo:
        print("DEMO: rendered scenes and a tiny test-bed CLIP. These numbers say nothing about the methods.\n")
        for line in _unlearned(run):
            print(f"bench: warning: {line}", file=sys.stderr)
    heads = ["dataset", "images", "cells", "state", "note"]
    table = [_line(dataset) for dataset in run.datasets]
    print(tabulate(table, headers=heads, maxcolwidths=[None, None, None, None, 70]))
    for dataset in run.datasets:
        for warning in dataset.samples.warnings if dataset.samples and not run.spec.demo else ():
            print(f"bench: warning: {dataset.card.name}: {warning}", file=sys.stderr)
        for cell in dataset.cells:
            if cell.changes:
                print(f"{cell.row} on {dataset.card.name} is {cell.state}: {', '.join(cell.changes)}")


def _line(dataset: DatasetPlan) -> list[Any]:
    """Make a line of the plan: dataset, images, cells, and how many of them are in which state."""
    states = Counter(
        "no words" if cell.wordless else cell.state if cell.error is None else "failed" for cell in dataset.cells
    )
    counted = ", ".join(f"{count} {state}" for state, count in states.items())
    failed: dict[str, list[str]] = {}
    for cell in dataset.cells:
        if cell.error:
            failed.setdefault(cell.error, []).append(cell.row)
    notes = [dataset.missing, dataset.refused, dataset.incomplete and f"incomplete: {dataset.incomplete}"]
    notes += [f"{', '.join(rows)}: {error}" for error, rows in failed.items()]
    total = dataset.total if dataset.samples else "-"
    state = "no data" if dataset.missing else counted
    return [dataset.card.name, total, len(dataset.cells), state, "; ".join(text for text in notes if text)]


def _estimate(run: Run) -> None:
    """Print the end of a dry run: what is missing, and the time that the cells take, also those that cannot be run."""
    from bench.evaluation.estimate import Timer, Work
    from bench.runtime.room import time_text

    if run.errors:
        print("\nnot every cell can be run:")
        print("\n".join(f"  {error}" for error in run.errors))
    _lacking(run)
    work = [
        Work([cell.settings for cell in dataset.due if cell.ready], dataset.card, len(dataset.indices))
        for dataset in run.waiting
    ]
    if not any(one.rows for one in work):
        if not run.waiting and not run.errors and not run.missing:
            print("\nnothing to do: every cell is stored and up to date")
    else:
        time = time_text(Timer.of_run(run).seconds(work, run.processes.size))
        print(f"\nabout {time} on {run.models.device} (an image of noise timed for each dataset)")


def _lacking(run: Run) -> None:
    """Print which weights and data are missing, how much there is to fetch, and the time of a run that has them all."""
    from bench.data.inventory import datasets_table, look
    from bench.evaluation.estimate import Timer, Work
    from bench.paths import data_root
    from bench.runtime.room import time_text
    from bench.verify.doctor import lacking_weights

    models, spec = run.models, run.spec
    given = {*models.upsampler_files, models.config.protocol.backbone if models.checkpoint else ""}
    weights = [one for one in lacking_weights(models.config, models.methods, run.rows) if one.name not in given]
    for one in weights:
        print(f"\nweights {one.name} are missing: {one.how}")
    if run.missing:
        print(f"\n{_missing(run)}")
        cards = [dataset.card for dataset in run.datasets if dataset.missing]
        print(datasets_table(look(card, data_root(spec.data_root)) for card in cards))
    if weights or run.missing:
        work = [
            Work(
                [cell.settings for cell in dataset.cells if not cell.wordless],
                dataset.card,
                dataset.total or dataset.card.expected_count or 0,
            )
            for dataset in run.datasets
        ]
        timer = Timer.drawn(models.config, models.methods, models.device, models.dtype)
        seconds = timer.seconds(work, run.processes.size)
        time = "an unknown time" if seconds is None else f"about {time_text(seconds)}"
        print(f"\nwith all weights and data {time} on {models.device}")


def _missing(run: Run) -> str:
    count = f"{len(run.missing)} of {len(run.datasets)} datasets have no data"
    return f"{count}; `python -m bench datasets` says how to get it"


def _without_data(run: Run, strict: bool) -> bool:
    """Tell whether what is missing makes the command fail: with --strict any data or words, else all data."""
    return (strict and bool(run.missing or run.wordless)) or len(run.missing) == len(run.datasets)


def _unlearned(run: Run) -> list[str]:
    """Name the words that the demo's CLIP has not learned, in one line for each vocabulary of a dataset."""
    from bench.demo.content import unknown_words

    lines: dict[str, None] = {}
    for dataset in run.datasets:
        for vocabulary in dict.fromkeys(cell.settings.vocabulary for cell in dataset.cells if not cell.wordless):
            words = run.models.config.words(dataset.card, vocabulary)
            unknown = unknown_words(word for synonyms in words for word in synonyms)
            if unknown:
                lines[f"{dataset.card.name}: the demo's CLIP has not learned {', '.join(unknown)} ({vocabulary})"] = (
                    None
                )
    return list(lines)


def _close(run: Run, strict: bool) -> int:
    """Show what the run's cells hold now, write the tables, name what is incomplete."""
    from bench.evaluation.plan import absent_weights
    from bench.evaluation.run import failures

    failed, gaps = failures(run), [*(f"{name}: no data" for name in run.missing), *run.wordless] if strict else []
    weights = []
    if len(run.missing) < len(run.datasets):
        _show(run)
    else:
        weights = absent_weights((cell.settings for dataset in run.datasets for cell in dataset.cells), run.models)
    if run.missing and _without_data(run, strict):
        also = f"; weights {', '.join(weights)} are not there either, see `python -m bench doctor`" if weights else ""
        gaps.append(f"{_missing(run)}{also}")
    for line in [*failed, *gaps]:
        print(f"bench: {line}", file=sys.stderr)
    return 1 if failed or gaps else 0


def _show(run: Run) -> None:
    """Print the run's cells as they are stored now and the classes that thresholds remove, and write the tables."""
    from bench.config import load_config
    from bench.report.analysis import removals
    from bench.report.frames import tables
    from bench.report.summary import summary_table

    spec, folder = run.spec, run.store.folder
    if not any(dataset.cells for dataset in run.datasets):
        print(f"\nnothing to do: no cell is {' or '.join(spec.only)}")
        return
    shown = [dataset.card.name for dataset in run.datasets if dataset.samples]
    print(f"\n{summary_table(run.store, run.rows, shown, load_config(spec.config), spec.cards)}\n")
    stored = [run.store.cell(cell.row, dataset.card.name) for dataset in run.datasets for cell in dataset.cells]
    for line in removals(cell for cell in stored if cell):
        print(f"bench: warning: {line}", file=sys.stderr)
    files = tables(folder, config=spec.config, cards=spec.cards)  # what the command line changed shows as stale
    boards = [str(file) for file in files if file.name.startswith("leaderboard") and file.suffix == ".md"]
    print(f"{len(files)} tables in {folder / 'tables'}; the leaderboard: {', '.join(boards)}")
