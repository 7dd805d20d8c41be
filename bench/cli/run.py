"""``bench run``: methods × datasets, every cell stored, then the tables."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli.options import add_model_arguments, positive
from bench.evaluation.names import STATES

SILENCE = 60.0  # seconds between two lines where there is no terminal

if TYPE_CHECKING:
    from bench.evaluation.run import PlannedRun, RunSpec
    from bench.evaluation.runner import Progress
    from bench.runtime.distributed import Distributed


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
    what.add_argument(
        "--protocol", metavar="P,…", help="words, thresholds, scale of other papers: names of `protocols:`, or cvpr2025"
    )
    what.add_argument(
        "--vocabulary", metavar="V,…", help="words: names of vocabularies, or YAML files (docs/protocols.md)"
    )
    what.add_argument(
        "-o", "--option", action="append", default=[], metavar="K=V", help="a setting or option of every row"
    )
    what.add_argument(
        "--sweep",
        action="append",
        default=[],
        metavar="K=V1,V2",
        help="a row for each of these values; may be repeated",
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
        metavar="=L",
        help="read dataset  in this one of its layouts; may be repeated",
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
    how.add_argument(
        "--save-predictions",
        nargs="?",
        type=positive,
        const=sys.maxsize,
        default=0,
        metavar="N",
        help="keep label maps (indexed PNG) of N images of each dataset, spread evenly over it; without N: of all",
    )
    how.add_argument(
        "--allow-incomplete", action="store_true", help="exit with 0 although a dataset has too few images"
    )
    how.add_argument("--strict", action="store_true", help="exit with 1 when a dataset is missing or a cell incomplete")
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
    how.add_argument("--shard", type=_shard, metavar="I/N", help="only the I-th of N parts of each dataset (0/4 … 3/4)")
    add_model_arguments(parser)


def main(args: argparse.Namespace) -> int:
    _check(args)

    from bench.runtime.device import choose_device
    from bench.runtime.distributed import init_distributed, launched, start_processes

    if (args.processes or args.devices) and not launched():
        return start_processes(_without(args.arguments, "--processes", "--devices"), args.processes, args.devices)
    with init_distributed(choose_device(args.device, args.dtype)) as distributed:
        return _run(args, distributed)


def _check(args: argparse.Namespace) -> None:
    """Mistakes that need no torch to be seen."""
    from bench.cli.early import check_data, check_models
    from bench.errors import BenchError, did_you_mean
    from bench.evaluation.names import STATES, choose_datasets, listed
    from bench.runtime.trackers import check

    for flag in args.log_to:
        check(flag)
    for state in listed(args.only) or ():
        if state not in STATES:
            raise BenchError(f"--only {state}: not a state of a cell; {did_you_mean(state, STATES)}")
    config = check_models(args, listed(args.methods) or ())
    named = listed(args.datasets)
    table = None if named is not None else args.table
    check_data(config, args, choose_datasets(config, named, table if table in config.tables else None)[0])


def _run(args: argparse.Namespace, distributed: Distributed) -> int:
    from bench.cli.run_log import RunLog
    from bench.evaluation.run import planned
    from bench.runtime.profiling import profiled

    if distributed.is_main:
        spec = _spec(args)  # writes the demo's data
    distributed.wait()
    if not distributed.is_main:
        spec = _spec(args)
    bars, log = _Bars(shown=distributed.is_main), RunLog(args.log_to if distributed.is_main else ())

    def report(progress: Progress) -> None:
        bars.images(progress)
        log.images(progress)

    with planned(spec, writes=not args.dry_run, distributed=distributed, report=report, report_word=bars.word) as plan:
        bars.close()
        if distributed.is_main:
            _announce(plan, args)
        if args.dry_run:
            return 1 if plan.errors else 0
        bars.expect(sum(len(plan.run.indices(dataset)) for dataset in plan.waiting))
        with contextlib.closing(log):
            log.start(plan)
            with profiled(args.profile):
                plan.execute()
            bars.close()
            log.finish(plan)
    return _close(plan, args) if distributed.is_main else 0


def _spec(args: argparse.Namespace) -> RunSpec:
    from bench.cli.options import upsampler_files
    from bench.config import load_config
    from bench.evaluation.names import listed
    from bench.notebook import run_spec

    return run_spec(
        methods=listed(args.methods),
        vocabularies=listed(args.vocabulary) or (),
        protocols=listed(args.protocol) or (),
        options=args.option,
        sweeps=args.sweep,
        datasets=listed(args.datasets),
        table=args.table,
        results=args.results,
        config=args.config,
        backbone=args.backbone,
        checkpoint=args.checkpoint,
        upsamplers=upsampler_files(args.upsampler_checkpoint, load_config(args.config)),
        plugins=args.plugin,
        device=args.device,
        dtype=args.dtype,
        batch=args.batch,
        workers=args.workers,
        data_root=args.data_root,
        cards=[Path(folder) for folder in args.cards],
        layouts=dict(flag.partition("=")[::2] for flag in args.layout),
        only=listed(args.only) or (),
        limit=args.limit,
        shard=args.shard,
        fresh=args.fresh,
        boundary=args.boundary,
        save_predictions=args.save_predictions,
        allow_incomplete=args.allow_incomplete,
        demo=args.demo,
    )


class _Bars:
    """Progress: on a terminal a bar for each dataset and the time that the whole run has left; else a line a minute and
    one at the end of each dataset.
    """

    def __init__(self, shown: bool) -> None:
        self._shown = shown
        self._terminal = sys.stderr.isatty()
        self._words = 0
        self._bar: Any = None
        self._images = self._done = 0
        self._started = self._told = time.monotonic()
        self._last: Progress | None = None

    def expect(self, images: int) -> None:
        """How many images the whole run has, at the most; its time starts now."""
        self._images = images
        self._started = self._told = time.monotonic()

    def word(self, word: str) -> None:
        """One more word whose text is encoded."""
        self._words += 1
        if self._shown and self._terminal:
            print(f"\rencoding prompt words, {self._words} so far: {word:<40}", end="", file=sys.stderr)

    def images(self, progress: Progress) -> None:
        """One more image of a dataset is done."""
        if not self._shown:
            return
        if self._last is not None and self._last.dataset != progress.dataset:
            self._end_bar()
        if self._last is not None:
            self._done += progress.done - self._last.done
        else:
            self._done += progress.done
        self._last = progress
        title = f"{progress.dataset} ({progress.number} of {progress.datasets})"
        left = self._left(self._done)
        if self._terminal:
            self._draw(progress, title, left)
        elif progress.done and time.monotonic() - self._told >= SILENCE:
            self._told = time.monotonic()
            print(
                f"{title}: {progress.done} of {progress.total} images{left and f', {left} left in all'}",
                file=sys.stderr,
            )

    def close(self) -> None:
        """Ends the line."""
        if self._words and self._shown and self._terminal:
            print(file=sys.stderr)
        self._words = 0
        self._end_bar()

    def _draw(self, progress: Progress, title: str, left: str) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(total=progress.total, desc=title, unit="image", smoothing=0.1, dynamic_ncols=True)
        self._bar.set_postfix_str(left and f"all: {left} left", refresh=False)
        self._bar.update(progress.done - self._bar.n)

    def _left(self, done: int) -> str:
        """Estimate of the time that the whole run still takes."""
        elapsed = time.monotonic() - self._started
        if not done or not self._images or elapsed < 5:
            return ""
        seconds = elapsed / done * max(0, self._images - done)
        return (
            f"{seconds:.0f} s"
            if seconds < 120
            else f"{seconds / 60:.0f} min"
            if seconds < 7200
            else f"{seconds / 3600:.1f} h"
        )

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        elif self._last is not None and not self._terminal:
            last = self._last
            print(
                f"{last.dataset} ({last.number} of {last.datasets}): {last.done} of {last.total} images",
                file=sys.stderr,
            )
        self._last = None


def _announce(plan: PlannedRun, args: argparse.Namespace) -> None:
    from tabulate import tabulate

    from bench.evaluation.plan import describe

    if args.demo:
        print("DEMO: rendered scenes and a tiny test-bed CLIP. These numbers say nothing about the methods.\n")
        for line in _unlearned(plan):
            print(f"bench: warning: {line}", file=sys.stderr)
    table = [describe(dataset, plan.run.total(dataset)) for dataset in plan.datasets]
    heads = ["dataset", "images", "cells", "state", "note"]
    print(tabulate(table, headers=heads, maxcolwidths=[None, None, None, None, 70]))
    for dataset in plan.datasets:
        for warning in dataset.samples.warnings if dataset.samples else ():
            print(f"bench: warning: {dataset.card.name}: {warning}", file=sys.stderr)
        for job in dataset.jobs:
            if job.changes:
                print(f"{job.settings.row} on {dataset.card.name} is {job.state}: {', '.join(job.changes)}")
    if args.dry_run:
        if plan.errors:
            print("\nnot every cell can be run:")
            print("\n".join(f"  {error}" for error in plan.errors))
        if not plan.waiting:
            print("\nnothing to do: every cell that has data is stored and up to date")
            return
        seconds = plan.seconds()
        time = f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"
        print(f"\nabout {time} on {plan.run.models.device} (one image of network size timed for each dataset)")


def _unlearned(plan: PlannedRun) -> list[str]:
    """Words that the demo's CLIP has not learned, one line for each vocabulary of a dataset."""
    from bench.demo.words import unknown_words

    lines: dict[str, None] = {}
    for dataset in plan.datasets:
        for vocabulary in dict.fromkeys(job.settings.vocabulary for job in dataset.jobs):
            words = plan.run.config.words(dataset.card, vocabulary)
            unknown = unknown_words(word for synonyms in words for word in synonyms)
            if unknown:
                lines[f"{dataset.card.name}: the demo's CLIP has not learned {', '.join(unknown)} ({vocabulary})"] = (
                    None
                )
    return list(lines)


def _close(plan: PlannedRun, args: argparse.Namespace) -> int:
    """Shows what the run's cells hold now, writes the tables, names what is incomplete."""
    from bench.report.frames import tables
    from bench.report.summary import summary_table

    store = plan.run.store
    rows = list(dict.fromkeys(job.settings.row for dataset in plan.datasets for job in dataset.jobs))
    shown = [dataset.card.name for dataset in plan.datasets if dataset.samples]
    print(f"\n{summary_table(store, rows, shown)}\n")
    files = tables(store.folder, config=args.config)  # as it is on disk, so that what the command line changed shows
    print(f"{len(files)} tables in {store.folder / 'tables'}")
    gaps = [f"{name}: no data" for name in plan.missing]
    failures = plan.failures()
    for line in [*failures, *(gaps if args.strict else [])]:
        print(f"bench: {line}", file=sys.stderr)
    return 1 if failures or (args.strict and gaps) else 0


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
