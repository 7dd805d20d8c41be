"""Comparisons as text: what `bench compare` and a printed `bench.compare` say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd
from tabulate import tabulate

from bench.metrics.intervals import LEAST, Interval, scenes_needed, units
from bench.report.breakdown import ObjectBreakdown
from bench.report.comparison import Comparison, Pair
from bench.report.escape import markdown_text
from bench.report.render import NOTHING, signed


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
            f"{signed(100 * test.median_difference)}; Wilcoxon signed-rank p: {_p(test.p_value)}."
        )
    blocks += [markdown_text(f"Left out: {dataset}: {reason}.") for dataset, reason in result.left_out.items()]
    return "\n\n".join(blocks) + "\n"


SHOWN: Final = 5  # images with the greatest gains, and as many with the greatest losses
MOST: Final = 8  # confusions
NO_MAPS: Final = (
    "By size of objects and distance from edges: not known. It takes the label maps of both rows, which "
    "`run --save-predictions` and `score` keep, and the labels (`--data-root`)."
)


def why(pair: Pair, labels: Mapping[str, str], objects: ObjectBreakdown | None) -> str:
    """Lay out where the difference on one dataset comes from, as Markdown tables.

    labels: what the rows are called. objects: None where label maps or labels are not there.
    """
    found = pair.breakdown
    both = [markdown_text(labels.get(row, row)) for row in (found.first, found.second)]
    points, per_cent = ["first", "second", "difference"], ["labelled", "of_all", "right"]
    heads = {"first": both[0], "second": both[1], "labelled": "of the labels", "of_all": "of all pixels"}
    heads |= {"adds": "adds to the score", "right": "more pixels right", "predicted": "taken for"}
    heads |= {"found_first": f"found by {both[0]}", "found_second": f"found by {both[1]}"}
    losses = found.images[found.images["difference"] < 0].iloc[::-1][:SHOWN]
    gains = found.images[found.images["difference"] > 0][:SHOWN]
    columns = ["id", *points, "right"]
    frames = {
        "By class: IoU": found.classes,
        "Confusion that changed: share of the label's pixels": found.confusion[:MOST],
        f"Images on which {both[0]} gains most": gains[columns],
        f"Images on which {both[0]} loses most": losses[columns],
    }
    if objects is not None:
        of = f"right pixels, on the {objects.images[0]:,} of {objects.images[1]:,} images whose label maps are kept"
        frames |= {f"By size of the object in pixels: {of}": objects.sizes}
        frames |= {f"By distance from the nearest edge in pixels: {of}": objects.distances}
    title = (
        f"## {markdown_text(pair.dataset)}: {both[0]} against {both[1]}, {signed(100 * pair.interval.estimate)} points"
    )
    blocks = [title]
    for name, frame in frames.items():
        if len(frame):
            signs = {"difference", "adds", "right", *(["of_all"] if "predicted" in frame else [])}
            blocks += [
                f"{name}.",
                _table(frame, heads, signs, {*points, *per_cent, "adds", "found_first", "found_second"}),
            ]
    blocks += [NO_MAPS] if objects is None else []
    return "\n\n".join(blocks) + "\n"


def _table(frame: pd.DataFrame, heads: Mapping[str, str], signs: set[str], shares: set[str]) -> str:
    """Lay out a frame. signs: columns of differences, in points; shares: columns in per cent."""

    def shown(column: str, value: Any) -> str:
        if column in signs:
            return signed(100 * value)
        if column in shares:
            return NOTHING if math.isnan(value) else f"{100 * value:.1f}"
        return f"{value:,}" if column == "objects" else markdown_text(str(value))

    columns = [str(name) for name in frame]
    lines = [list(map(shown, columns, line)) for line in frame.itertuples(index=False)]
    sides = ["right" if name in shares | signs | {"objects"} else "left" for name in columns]
    names = [heads.get(name, name) for name in columns]
    return tabulate(lines, names, tablefmt="pipe", disable_numparse=True, colalign=sides)


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
