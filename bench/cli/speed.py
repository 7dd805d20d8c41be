"""``bench speed``: where the time goes, and what all rows cost in passes of the bare encoder."""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, Field, ValidationError
from tabulate import tabulate

from bench.cli.options import add_shared, positive, write_json
from bench.errors import BenchError, reading, validation_message

if TYPE_CHECKING:
    from bench.evaluation.estimate import Estimate
    from bench.evaluation.speed import Case, Timing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sizes",
        type=_sizes,
        default="448x448,1024x1024,1080x1280,3000x4000",
        metavar="HxW,…",
        help="original image sizes (448x448,1024x1024,1080x1280,3000x4000)",
    )
    parser.add_argument(
        "--queries",
        type=_numbers,
        default="9,3,60",
        metavar="N,…",
        help="prompt words; the first for all sizes (9,3,60)",
    )
    parser.add_argument(
        "--row-counts", type=_numbers, default="1,3,6", metavar="N,…", help="also time the first N rows alone (1,3,6)"
    )
    parser.add_argument("--repeats", type=positive, default=3, metavar="N", help="repetitions; medians are shown (3)")
    parser.add_argument("--one-by-one", action="store_true", help="also time each row alone, in encoder passes")
    parser.add_argument("--against", metavar="FILE", help="also compare with what another machine wrote by --json")
    parser.add_argument(
        "--model",
        "--backbone",
        default="ViT-B-16-quickgelu",
        metavar="NAME|JSON",
        help="open_clip model, or backbone of benchmark.yaml, built with random weights (ViT-B-16-quickgelu)",
    )
    add_shared(parser, "--methods", "--config", "--plugin", "--device", "--dtype", "--json")
    parser.add_argument("--batch", type=positive, metavar="N", help="windows at once (as a run: 4, more on a GPU)")
    parser.add_argument(
        "--threads", type=positive, metavar="N", help="of torch and OpenCV, in each process (default: all cores)"
    )
    parser.add_argument(
        "--processes",
        type=positive,
        default=1,
        metavar="N",
        help="measure in N processes at the same time, which share the cores, as a run under torchrun does (1)",
    )


def main(args: argparse.Namespace) -> int:
    import torch

    from bench.config import load_config
    from bench.evaluation.speed import mean
    from bench.runtime.device import choose_device, default_batch

    other = _read(Path(args.against)) if args.against else None  # before minutes of measuring
    known = load_config(args.config).backbones
    args.model = known[args.model].model if args.model in known else args.model
    args.batch = args.batch or default_batch(choose_device(args.device, args.dtype))
    if args.processes == 1:
        found = _measure(args)
    else:
        share = max(1, torch.get_num_threads() // args.processes)
        jobs = [argparse.Namespace(**{**vars(args), "main": None, "threads": args.threads or share})] * args.processes
        with ProcessPoolExecutor(args.processes, multiprocessing.get_context("spawn")) as pool:
            each = list(pool.map(_measure, jobs))
        found = each[0]._replace(
            timings=[mean(timings) for timings in zip(*(one.timings for one in each), strict=True)],
            upsampler={name: statistics.mean(one.upsampler[name] for one in each) for name in each[0].upsampler},
        )
    record = _record(args, found)
    several = f", {args.processes} processes at a time" if args.processes > 1 else ""
    print(f"{args.model} (random weights), {args.dtype}, batch {args.batch}, {found.machine}{several}\n")
    _show(found, args.processes)
    if record["paper"]:
        _show_paper(record)
    if other is not None:
        _show_both(record, other)
    write_json(args.json, record)
    return 0


class _Found(NamedTuple):
    """Measurements of one process, or the mean of several. upsampled: rows that have an upsampler."""

    device: str
    machine: str
    plan: Sequence[Case]
    timings: Sequence[Timing]
    upsampler: dict[str, float]
    upsampled: int


def _measure(args: argparse.Namespace) -> _Found:
    import cv2
    import torch

    from bench.config import load_config
    from bench.evaluation.speed import Bench, cases
    from bench.registry import load_methods
    from bench.runtime.device import choose_device
    from bench.runtime.memory import keep_freed_memory
    from bench.spec import RunSpec

    keep_freed_memory()
    if args.threads:
        torch.set_num_threads(args.threads)
        cv2.setNumThreads(args.threads)
    rows = list(RunSpec(methods=args.methods, config=args.config, plugins=args.plugin).rows)
    config, methods = load_config(args.config), load_methods(args.plugin)
    device = choose_device(args.device, args.dtype)
    bench = Bench(config, methods, args.model, device, args.dtype, args.batch)
    plan = cases(args.sizes, args.queries, rows, args.row_counts)
    timings = [bench.measure(case, args.repeats, args.one_by_one and index == 0) for index, case in enumerate(plan)]
    upsampled = sum(bench.upsampled(row) for row in rows)
    upsampler = bench.measure_upsampler(args.queries[0], upsampled, args.repeats)
    return _Found(device, _machine(device), plan, timings, upsampler, upsampled)


def _show(found: _Found, processes: int) -> None:
    from bench.evaluation.speed import STAGES

    plan, timings, upsampler = found.plan, found.timings, found.upsampler
    lines = [
        [
            *(f"{c.height}x{c.width}", c.queries, len(c.rows), t.windows, 1e3 * t.encoder, 1e3 * t.all_rows),
            *(t.ratio, processes / t.all_rows, t.peak_memory / 2**30),
            *((t.launches, 1e3 * t.busy) if t.launches is not None and t.busy is not None else ()),
        ]
        for c, t in zip(plan, timings, strict=True)
    ]
    heads = ["image", "queries", "rows", "windows", "encoder ms", "rows ms", "ratio", "images/s", "peak GiB so far"]
    on_gpu = ["launches", "GPU busy ms"] if found.device.startswith("cuda") else []
    formats = ("", "", "", "", ".1f", ".1f", ".2f", ".2f", ".1f", ".0f", ".1f")
    print(tabulate(lines, headers=heads + on_gpu, floatfmt=formats), "\n")
    shares = [
        [
            f"{c.height}x{c.width}",
            c.queries,
            len(c.rows),
            *(100 * t.shares[name] / sum(t.shares.values()) for name in STAGES),
        ]
        for c, t in zip(plan, timings, strict=True)
    ]
    print("Per cent of the rows' time\n")
    print(tabulate(shares, headers=["image", "queries", "rows", *STAGES], floatfmt=".1f"), "\n")
    first = timings[0]
    if first.one_by_one:
        each = [(row, 1e3 * seconds, seconds / first.encoder) for row, seconds in first.one_by_one.items()]
        print(tabulate(each, headers=["row alone", "ms an image", "encoder passes"], floatfmt=("", ".1f", ".2f")))
        apart = sum(first.one_by_one.values())
        print(f"\nthe same rows one by one: {apart:.2f} s, {apart / first.all_rows:.1f} x all at once")
    taps, operator, scores = (upsampler[name] for name in ("taps", "operator", "scores"))
    print(
        f"upsampler, one window: operator {operator:.3f} s, with the scores of {found.upsampled} rows {scores:.3f} s; "
        f"a loop over the taps {taps:.2f} s a row: for {found.upsampled} rows {found.upsampled * taps / scores:.1f} x"
    )


def _whole_paper(args: argparse.Namespace, found: _Found) -> list[Estimate]:
    """Estimate what the datasets of the paper take in one process; [] where one size alone was measured."""
    from bench.config import load_config
    from bench.data.cards import load_card
    from bench.evaluation.estimate import whole_paper

    same = [
        (c, t)
        for c, t in zip(found.plan, found.timings, strict=True)
        if (c.queries, c.rows) == (found.plan[0].queries, found.plan[0].rows)
    ]
    if len({case.height * case.width for case, _ in same}) < 2:
        return []
    config = load_config(args.config)
    cards = [load_card(name) for name in config.default_datasets]
    return whole_paper(config, cards, [case for case, _ in same], [timing for _, timing in same])


def _record(args: argparse.Namespace, found: _Found) -> dict[str, Any]:
    from dataclasses import asdict

    setting = {name: getattr(args, name) for name in ("model", "dtype", "batch", "repeats", "processes")}
    setting["device"] = found.device
    measured = [{**asdict(case), **timing.as_dict()} for case, timing in zip(found.plan, found.timings, strict=True)]
    return {
        **setting,
        "machine": found.machine,
        "cases": measured,
        "upsampler_seconds_a_window": found.upsampler,
        "paper": [estimate._asdict() for estimate in _whole_paper(args, found)],
    }


def _machine(device: str) -> str:
    import torch

    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine()
    instructions = torch.backends.cpu.get_cpu_capability()
    return f"{name}, {torch.get_num_threads()} threads ({instructions}), torch {torch.__version__}"


def _sizes(text: str) -> list[tuple[int, int]]:
    sizes = []
    for part in text.split(","):
        height, _, width = part.partition("x")
        sizes.append((positive(height), positive(width)))
    return sizes


def _numbers(text: str) -> list[int]:
    return [positive(part) for part in text.split(",")]


class Measured(BaseModel):
    """One case of a record; seconds per image in one of its processes."""

    height: int
    width: int
    queries: int
    rows: tuple[str, ...]
    encoder: float = Field(gt=0)
    all_rows: float = Field(gt=0)

    @property
    def case(self) -> tuple[int, int, int, tuple[str, ...]]:
        """Identity of the work: equal where two measurements may be compared."""
        return self.height, self.width, self.queries, self.rows


class SpeedRecord(BaseModel):
    """The part of a record that two machines are compared by."""

    model: str
    dtype: str
    batch: int
    machine: str
    processes: int
    cases: list[Measured]


def _read(file: Path) -> SpeedRecord:
    """Read what --json wrote. BenchError where that is something else."""
    wanted = "give a file that `bench speed --json` wrote"
    with reading(f"--against {file}", wanted):
        content = file.read_bytes()
    try:
        return SpeedRecord.model_validate_json(content)
    except ValidationError as error:
        raise BenchError(f"--against {validation_message(file, error)}; {wanted}") from None


def _show_paper(record: Mapping[str, Any]) -> None:
    """Print images per second and minutes of each of the paper's datasets whose number of images is known."""
    processes, paper = record["processes"], record["paper"]
    lines = [
        (one["dataset"], one["images"], processes * one["images"] / one["seconds"], one["seconds"] / 60 / processes)
        for one in paper
    ]
    print("\n" + tabulate(lines, headers=["dataset", "images", "images/s", "minutes"], floatfmt=("", "", ".2f", ".1f")))
    minutes = sum(line[-1] for line in lines)
    print(f"the paper's {len(paper)} datasets with {len(record['cases'][0]['rows'])} rows: about {minutes:.0f} minutes")


def _show_both(record: Mapping[str, Any], other: SpeedRecord) -> None:
    """Print the cases that both records have, side by side."""
    here = SpeedRecord.model_validate(record)
    there = {one.case: one for one in other.cases}
    lines = []
    for mine in here.cases:
        if (theirs := there.get(mine.case)) is not None:
            rates = here.processes / mine.all_rows, other.processes / theirs.all_rows
            lines.append(
                [
                    *(f"{mine.height}x{mine.width}", mine.queries, len(mine.rows)),
                    *(1e3 * mine.all_rows, 1e3 * theirs.all_rows),
                    *(mine.all_rows / mine.encoder, theirs.all_rows / theirs.encoder, *rates, rates[0] / rates[1]),
                ]
            )
    print(f"\nhere:  {_described(here)}\nthere: {_described(other)}\n")
    if not lines:
        print("no case was measured on both: give the same --sizes, --queries, --methods and --row-counts")
        return
    heads = ["image", "queries", "rows", "ms here", "there", "ratio here", "there", "images/s here", "there"]
    heads.append("times as fast")
    print(tabulate(lines, headers=heads, floatfmt=".2f"))


def _described(record: SpeedRecord) -> str:
    processes = f", {record.processes} processes" if record.processes > 1 else ""
    return f"{record.model}, {record.dtype}, batch {record.batch}, {record.machine}{processes}"
