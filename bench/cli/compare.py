"""``bench compare A [B]``: is one row better than another, or than all others, on the same images?"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli.options import positive

if TYPE_CHECKING:
    from bench.report.comparison import Comparison, Pair


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", metavar="A", help="a stored row, e.g. segearth-ov")
    parser.add_argument("second", metavar="B", nargs="?", help="the row it is held against (default: each other one)")
    parser.add_argument("--datasets", metavar="X,Y", help="only these (default: all that are stored)")
    parser.add_argument("--results", metavar="D", default="results", help="results folder (default: results)")
    parser.add_argument("--limit", type=positive, metavar="N", help="compare the results of runs with --limit N")
    parser.add_argument("--draws", type=positive, metavar="B", help="bootstrap draws (default: 1000)")
    parser.add_argument("--out", metavar="FILE", help="write the numbers as CSV, too")


def main(args: argparse.Namespace) -> int:
    import pandas as pd

    from bench.errors import BenchError
    from bench.report.comparison import against_all, compare
    from bench.report.escape import csv_text
    from bench.report.scores import DRAWS
    from bench.store.store import Store

    store = Store(args.results, limit=args.limit)
    datasets = [name.strip() for name in args.datasets.split(",")] if args.datasets else None
    if args.second is None:
        found = against_all(store, args.first, datasets, args.draws or DRAWS)
        print(summary(found, args.limit))
        records = [{"row": one.second, **as_record(pair)} for one, _ in found for pair in one.pairs]
    else:
        result = compare(store, args.first, args.second, datasets, args.draws or DRAWS)
        print(markdown(result, args.limit))
        records = [as_record(pair) for pair in result.pairs]
    if args.out:
        try:
            Path(args.out).write_text(csv_text(pd.DataFrame(records)), encoding="utf-8")
        except OSError as error:
            raise BenchError(f"--out {args.out}: cannot be written ({error.strerror})") from None
    return 0


def markdown(result: Comparison, limit: int | None = None) -> str:
    """The comparison as a Markdown table with what can be concluded below."""
    from tabulate import tabulate

    from bench.report.escape import markdown_text
    from bench.report.render import signed

    marks = [*(["demo"] if result.demo else []), *([f"limited to {limit} images"] if limit else [])]
    headers = [
        "dataset",
        "metric",
        "images",
        markdown_text(result.first),
        markdown_text(result.second),
        "difference",
        "95 %",
        "p",
        "p (Holm)",
    ]
    table = tabulate([_line(pair) for pair in result.pairs], headers, tablefmt="pipe", disable_numparse=True)
    title = markdown_text(f"{result.first} against {result.second}")
    blocks = [f"# {title}{''.join(f' [{mark}]' for mark in marks)}", table]
    if result.pairs:
        blocks.append(
            "Per cent; differences in points, with a paired bootstrap interval. p: permutation of the rows' "
            "counts, two-sided; Holm corrects for the number of datasets."
        )
    if result.over_datasets:
        over = result.over_datasets
        blocks.append(
            f"Over {over.datasets} datasets: {over.wins} wins, {over.losses} losses, median difference "
            f"{signed(100 * over.median_difference)}; Wilcoxon signed-rank p = {_p(over.p_value)}."
        )
    blocks += [markdown_text(f"Left out: {dataset}: {reason}.") for dataset, reason in result.left_out.items()]
    return "\n\n".join(blocks) + "\n"


def summary(found: Sequence[tuple[Comparison, float]], limit: int | None = None) -> str:
    """One row against all others as a Markdown table."""
    from tabulate import tabulate

    from bench.report.escape import markdown_text
    from bench.report.render import signed

    first = found[0][0]
    marks = [*(["demo"] if first.demo else []), *([f"limited to {limit} images"] if limit else [])]
    lines = []
    for one, adjusted in found:
        over = one.over_datasets
        differences = [100 * pair.interval.estimate for pair in one.pairs]
        lines.append(
            [
                markdown_text(one.second),
                len(one.pairs),
                sum(difference > 0 for difference in differences),
                sum(difference < 0 for difference in differences),
                signed(sum(differences) / len(differences)),
                sum(pair.interval.low > 0 for pair in one.pairs),
                sum(pair.interval.high < 0 for pair in one.pairs),
                "–" if over is None else _p(over.p_value),
                "–" if adjusted != adjusted else _p(adjusted),
            ]
        )
    headers = ["against", "datasets", "wins", "losses", "mean difference", "sure wins", "sure losses", "p", "p (Holm)"]
    table = tabulate(lines, headers, tablefmt="pipe", disable_numparse=True)
    note = (
        "Differences in points, over the datasets that both rows have. Sure: the paired 95 % interval of a dataset is "
        "on one side of 0. p: Wilcoxon signed-rank over datasets, two-sided; Holm corrects for the number of rows."
    )
    return f"# {markdown_text(first.first)} against all{''.join(f' [{mark}]' for mark in marks)}\n\n{table}\n\n{note}\n"


def as_record(pair: Pair) -> dict[str, Any]:
    """A line of the CSV: scores, difference and interval in per cent."""
    return {
        "dataset": pair.dataset,
        "metric": pair.metric,
        "images": pair.images,
        "images_total": pair.total,
        "first": round(100 * pair.first, 4),
        "second": round(100 * pair.second, 4),
        "difference": round(100 * pair.interval.estimate, 4),
        "low": round(100 * pair.interval.low, 4),
        "high": round(100 * pair.interval.high, 4),
        "unit": pair.test.unit,
        "units": pair.test.clusters,
        "p": pair.test.p_value,
        "p_holm": pair.adjusted,
        "permutations": pair.test.permutations,
        "exact": pair.test.exact,
    }


def _line(pair: Pair) -> list[str]:
    from bench.report.render import signed

    interval = pair.interval
    of_all = "" if pair.images == pair.total else f" of {pair.total}"
    return [
        pair.dataset,
        pair.metric,
        f"{pair.images}{of_all} ({pair.test.clusters} {pair.test.unit}s)",
        f"{100 * pair.first:.1f}",
        f"{100 * pair.second:.1f}",
        signed(100 * interval.estimate),
        f"{signed(100 * interval.low)} to {signed(100 * interval.high)}",
        _p(pair.test.p_value),
        _p(pair.adjusted),
    ]


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
