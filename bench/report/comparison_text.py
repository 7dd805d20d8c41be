"""Comparisons as text: what `bench compare` and a printed `bench.compare` say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from bench.metrics.intervals import LEAST, Interval, scenes_needed, units
from bench.report.comparison import Comparison, Pair
from bench.report.escape import markdown_text
from bench.report.render import signed


def markdown(result: Comparison, limit: int | None = None) -> str:
    """Lay out the comparison as a Markdown table, with what can be concluded below."""
    headers = ["dataset", "metric", "images", markdown_text(result.first), markdown_text(result.second)]
    headers += ["difference", "95 %", "p", "p (Holm)", "ahead", "effect", "for 1 point"]
    over, lines = result.over_datasets, [_line(pair) for pair in result.pairs]
    if over and len(result.pairs) > 1:
        lines.append(["mean", "", "", "", "", *_numbers(over.interval), _p(over.test.p_value), "", "", "", ""])
    table = tabulate(lines, headers, tablefmt="pipe", disable_numparse=True)
    title = markdown_text(f"{result.first} against {result.second}")
    blocks = [f"# {title}{_marks(result, limit)}", table]
    if result.pairs:
        holm = f"; Holm corrects for {result.family} tests" if result.family > 1 else ""
        blocks.append(
            "Per cent; differences in points, with the 95 % interval for other scenes of the same kind (jackknife). "
            f"p: two-sided, by swapping the two rows' counts of whole scenes{holm}. "
            "Ahead: share of the scenes on which the first row scores higher. Effect: difference over the standard "
            "deviation between scenes. For 1 point: how many would find a difference of one point in 80 % of the cases."
        )
    blocks += [markdown_text(note) for note in _too_few(result.pairs)]
    blocks += [markdown_text(note) for pair in result.pairs for note in _notes(pair, result.family)]
    if over and not math.isnan(over.wilcoxon.p_value):
        test = over.wilcoxon
        blocks.append(
            f"Datasets to come: {test.wins} wins, {test.losses} losses of {test.datasets}, median difference "
            f"{signed(100 * test.median_difference)}; Wilcoxon signed-rank p = {_p(test.p_value)}."
        )
    blocks += [markdown_text(f"Left out: {dataset}: {reason}.") for dataset, reason in result.left_out.items()]
    return "\n\n".join(blocks) + "\n"


def summary(found: Sequence[Comparison], limit: int | None = None) -> str:
    """Lay out one row against all others as a Markdown table."""
    lines = []
    for one in found:
        over, significant = one.over_datasets, [pair for pair in one.pairs if pair.adjusted <= 0.05]
        if over is None:
            continue
        wins = sum(pair.test.difference > 0 for pair in significant)
        lines.append(
            [
                markdown_text(one.second),
                len(one.pairs),
                wins,
                len(significant) - wins,
                *_numbers(over.interval),
                _p(over.test.p_value),
                _p(over.adjusted),
                _p(over.wilcoxon.p_value),
            ]
        )
    headers = ["against", "datasets", "wins", "losses", "mean difference", "95 %", "p", "p (Holm)", "Wilcoxon"]
    table = tabulate(lines, headers, tablefmt="pipe", disable_numparse=True)
    family = found[0].family
    wins_and_losses = (
        f"Wins and losses: datasets with p (Holm) of at most 0.05 among all {family} tests of rows and datasets."
        if family
        else "No wins and losses: too few scenes for a test."
    )
    note = (
        f"Differences in points, over the datasets that both rows have. {wins_and_losses} p: by swapping the scenes "
        "of all datasets at once; Holm corrects for the number of rows. Wilcoxon: p for datasets to come, from six "
        "datasets."
    )
    return f"# {markdown_text(found[0].first)} against all{_marks(found[0], limit)}\n\n{table}\n\n{note}\n"


def _marks(result: Comparison, limit: int | None) -> str:
    marks = [*(["demo"] if result.demo else []), *([f"limited to {limit} images"] if limit else [])]
    return "".join(f" [{mark}]" for mark in marks)


def as_record(pair: Pair) -> dict[str, Any]:
    """Make a line of the CSV: scores, difference and interval in per cent."""
    return {
        "dataset": pair.dataset,
        "metric": pair.metric,
        "images": pair.images,
        "images_total": pair.images,
        "first": round(100 * pair.first, 4),
        "second": round(100 * pair.second, 4),
        "difference": round(100 * pair.interval.estimate, 4),
        "low": round(100 * pair.interval.low, 4),
        "high": round(100 * pair.interval.high, 4),
        "unit": pair.test.unit,
        "units": pair.test.scenes,
        "p": pair.test.p_value,
        "p_holm": pair.adjusted,
        "permutations": pair.test.permutations,
        "exact": pair.test.exact,
        "ahead": round(100 * pair.improvement, 4),
        "effect": round(pair.interval.effect, 4),
        "units_for_1_point": scenes_needed(0.01, pair.interval),
    }


def _line(pair: Pair) -> list[str]:
    needed, scenes = scenes_needed(0.01, pair.interval), len(pair.scenes[0])
    images = f" ({needed * pair.images // scenes:,} images)" if needed and scenes < pair.images else ""
    return [
        pair.dataset,
        pair.metric,
        f"{pair.images} ({pair.interval.sample})",
        f"{100 * pair.first:.1f}",
        f"{100 * pair.second:.1f}",
        *_numbers(pair.interval),
        _p(pair.test.p_value),
        _p(pair.adjusted),
        "–" if math.isnan(pair.improvement) else f"{100 * pair.improvement:.0f} %",
        "–" if math.isnan(pair.interval.effect) else f"{pair.interval.effect:+.2f}".replace("-", "−"),
        "–" if needed is None else units(needed, pair.test.unit) + images,
    ]


def _numbers(interval: Interval) -> list[str]:
    """Difference and interval, as printed."""
    ends = f"{signed(100 * interval.low)} to {signed(100 * interval.high)}" if interval.known else "–"
    return [signed(100 * interval.estimate), ends]


def _too_few(pairs: Sequence[Pair]) -> list[str]:
    """Name the datasets with too few scenes, in one line or none."""
    few = [pair for pair in pairs if pair.test.scenes < LEAST]
    named = ", ".join(f"{pair.dataset} ({units(pair.test.scenes, pair.test.unit)})" for pair in few)
    return [f"Too few scenes for an interval or a test: {named}."] if few else []


def _notes(pair: Pair, family: int) -> list[str]:
    """Name what the numbers of a dataset with enough scenes cannot say."""
    if pair.test.scenes < LEAST:
        return []
    scenes = units(pair.test.scenes, pair.test.unit)
    notes = [
        f"{pair.dataset}: {spot}; the interval cannot see what other scenes would do." for spot in pair.blind_spots
    ]
    if pair.test.least * family > 0.05:
        notes.append(f"{pair.dataset}: {scenes}: no p below {pair.test.least:.2g}, so none below 0.05 after Holm.")
    return notes


def _p(value: float) -> str:
    if math.isnan(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
