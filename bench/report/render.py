"""Tables as text: Markdown for people, tidy CSV (one line a cell) for programs."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any

from bench.errors import one_line
from bench.report.escape import csv_text, markdown_text, tex_text
from bench.report.published import Gain, Mark, one_digit
from bench.report.scores import Collection, rounded
from bench.report.tables import AVERAGE, Grid, Line, TableEntry
from bench.report.verdict import differences

NOTHING = "–"
LEGEND = (
    "Per cent. **Best** and *second best* of a column: measured among measured, published among published. "
    "Difference: measured − published, in points; it “agrees” up to 0.5. Interval: 95 %, for other scenes of the same "
    "kind; none for fewer than six. Bold is no test. A cell that is incomplete, out of date or counted otherwise says "
    "so; it is not ranked, averaged or compared."
)
WARNINGS = {
    "demo": "**Demo: synthetic scenes, and one tiny backbone for all rows. These are no results on real data.**",
    "limited": "**Limited: only the first images of each dataset. These are no results on whole datasets.**",
}
CSV_COLUMNS = (
    "table",
    "row",
    "label",
    "venue",
    "dataset",
    "metric",
    "status",
    "images",
    "images_total",
    "measured",
    "published",
    "difference",
    "low",
    "high",
    "interval_unit",
    "interval_units",
    "p_to_best",
    "p_to_best_holm",
    "boundary_iou",
    "verdict",
    "mark",
    "published_mark",
    "shown",
    "ranked",
    "comparable",
    "stale",
    "caveat",
    "reason",
    "dtype",
    "backbone",
    "vocabulary",
    "threshold",
    "demo",
    "limit",
)
COST_COLUMNS = ("row", "dataset", "seconds_per_image", "peak_memory_mib")
"""Columns of the costs, a separate table: what a cell took differs from machine to machine, and scores do not."""


def title(text: str, collection: str) -> str:
    """Return the title with what marks the collection: "Table 1 [demo]: …"."""
    if not collection:
        return text
    head, colon, tail = text.partition(":")
    return f"{head} [{collection}]{colon}{tail}"


def markdown(grid: Grid) -> str:
    """Render a table with up to four lines a row (measured, published, difference, interval) and footnotes."""
    table, told = _laid_out(grid, "pipe", markdown_text, str)
    blocks = [f"# {title(grid.title, grid.collection)}", *_warnings(grid.collection), table, LEGEND, *told]
    return "\n\n".join(blocks) + "\n"


def html_table(grid: Grid) -> str:
    """Render a table as a fragment of HTML: a heading, the table, and its notes as paragraphs."""
    table, told = _laid_out(grid, "unsafehtml", one_line, _html_text)
    above = [f"<p>{_html_text(text)}</p>" for text in _warnings(grid.collection)]
    below = [f"<p>{_html_text(text)}</p>" for text in [LEGEND, *told]]
    return "\n".join([f"<h2>{html.escape(title(grid.title, grid.collection))}</h2>", *above, table, *below]) + "\n"


def _laid_out(
    grid: Grid, form: str, as_text: Callable[[str], str], in_cell: Callable[[str], str]
) -> tuple[str, list[str]]:
    """Lay out a table in one of tabulate's forms; return it with what is to be said below.

    as_text: escapes labels and notes. in_cell: renders a cell.
    """
    from tabulate import tabulate

    notes: list[str] = []
    lines = [[in_cell(cell) for cell in cells] for line in grid.lines for cells in _line(line, grid, notes, as_text)]
    heads = ["method", "", *(in_cell(as_text(column)) for column in grid.columns)]
    right = ("left", "left", *("right" for _ in grid.columns))
    table = tabulate(lines, headers=heads, tablefmt=form, disable_numparse=True, missingval="", colalign=right)
    told = [*_undecided(grid), *_images(grid), *_differences(grid)]
    footnotes = [f"[{number}] {as_text(note)}" for number, note in enumerate(notes, 1)]
    return table, [*map(as_text, told), *footnotes]


def _warnings(collection: str) -> list[str]:
    return [text for word, text in WARNINGS.items() if word in collection]


def _html_text(markdown_text: str) -> str:
    """Render Markdown's ** and * as bold and italics; nothing else of it is used in tables."""
    text = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", html.escape(markdown_text, quote=False))
    return re.sub(r"\*(.+?)\*", r"<i>\1</i>", text)


def _line(line: Line, grid: Grid, notes: list[str], as_text: Callable[[str], str]) -> list[list[str]]:
    measured = [_measured(line.entries[column], column == AVERAGE, notes) for column in grid.columns]
    entries = [line.entries[column] for column in grid.columns]
    rest = {
        "published": [_marked(str(e.published), e.published_mark) if e.published is not None else "" for e in entries],
        "difference": [signed(e.difference) + " agrees" * (e.verdict == "agrees") for e in entries],
        "interval": [_interval(e) for e in entries],
    }
    name = as_text(f"{line.label} ({line.venue})" if line.venue else line.label)
    shown = [[f"measured [{grid.collection}]" if grid.collection else "measured", *measured]] + [
        [what, *cells] for what, cells in rest.items() if any(cells)
    ]
    return [[name if number == 0 else "", *cells] for number, cells in enumerate(shown)]


def _measured(entry: TableEntry, is_average: bool, notes: list[str]) -> str:
    number = "" if math.isnan(entry.value) else _marked(f"{entry.shown:.1f}", entry.mark)
    if is_average:
        return f"{number} ({entry.counted}/{entry.total})" if entry.counted else number or NOTHING
    score = entry.score
    if score is None:
        return number or NOTHING
    shown = score.verdict.beside(number) or NOTHING
    return " ".join([shown, *(_footnote(text, notes) for text in score.verdict.footnotes(score.row, score.dataset))])


def _footnote(text: str, notes: list[str]) -> str:
    if text not in notes:
        notes.append(text)
    return f"[{notes.index(text) + 1}]"


def _interval(entry: TableEntry) -> str:
    interval = entry.interval
    if interval is None or not entry.complete or math.isnan(interval.low):
        return ""
    return f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"


def _undecided(grid: Grid, head: Callable[[str], str] = str) -> list[str]:
    """Say which rows cannot be distinguished from the best of a column. head: what a column is called."""
    if (found := grid.undecided) is None:
        return []
    told = [f"{head(column)}: {', '.join(labels) or 'none'}" for column, labels in found.rows.items()]
    lines = [
        f"Not distinguishable from the best (scenes swapped; 5 %, Holm over {found.tests} tests): {'; '.join(told)}."
    ]
    too_few = f"No test (too few scenes, or other images): {', '.join(head(one) for one in found.untested)}."
    return [*(lines if told else []), *([too_few] if found.untested else [])]


def _images(grid: Grid, head: Callable[[str], str] = str) -> list[str]:
    """Say for each dataset how many images and scenes it has, and what its intervals cannot see."""
    told: dict[str, str] = {}
    unseen: dict[str, None] = {}
    for line in grid.lines:
        for column, entry in line.entries.items():
            if entry.score and entry.interval and column not in told:
                interval = entry.interval
                optimistic = ", single images: optimistic" if interval.unit == "image" else ""
                told[column] = f"{head(column)} {entry.total} ({interval.sample}{optimistic})"
            unseen |= {f"{head(column)}: {spot}": None for spot in entry.score.blind_spots} if entry.score else {}
    lines = [f"Images (and what is swapped and left out): {'; '.join(told.values())}."] if told else []
    return [*lines, *([f"Not seen by intervals: {'; '.join(unseen)}."] if unseen else [])]


def _differences(grid: Grid) -> list[str]:
    """Say in one line in what the rows of a dataset differ."""
    scores = [entry.score for line in grid.lines for entry in line.entries.values() if entry.score]
    line = differences({(score.row, score.dataset): score.verdict for score in scores})
    return [line] if line else []


def _marked(text: str, mark: Mark | None) -> str:
    return {"best": f"**{text}**", "second": f"*{text}*", None: text}[mark]


def signed(points: float | Decimal | None) -> str:
    """Format points with their sign: +1.2, −0.4 or 0.0; "" for None, – for nan."""
    if points is None:
        return ""
    if math.isnan(points):
        return NOTHING
    text = f"{one_digit(Decimal(points)):+}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def csv_lines(grid: Grid) -> list[dict[str, Any]]:
    """One dict of CSV_COLUMNS for each cell and average, in the order of the table."""
    return [
        dict.fromkeys(CSV_COLUMNS) | _csv_entry(line.entries[column], column == AVERAGE)
        | {"table": grid.name, "row": line.row, "label": line.label, "venue": line.venue, "dataset": column}
        | {"demo": "demo" in grid.collection, "limit": _limit(grid.collection), **_p_to_best(grid, column, line.row)}
        for line in grid.lines
        for column in grid.columns
    ]  # fmt: skip


def _p_to_best(grid: Grid, column: str, row: str) -> dict[str, float]:
    """Return p of the test against the best row of the column, and p by Holm; nothing where there is no test."""
    p_values = grid.undecided.p_values.get((column, row), ()) if grid.undecided else ()
    return dict(zip(("p_to_best", "p_to_best_holm"), p_values, strict=False))


def _csv_entry(entry: TableEntry, is_average: bool) -> dict[str, Any]:
    score, interval = entry.score, entry.interval
    known: dict[str, Any] = {
        "measured": rounded(entry.value),
        "published": entry.published,
        "difference": rounded(entry.difference, scale=1),
        "verdict": entry.verdict,
        "mark": entry.mark,
        "published_mark": entry.published_mark,
        "status": _csv_status(entry, is_average),
    }
    if interval:
        known |= {"low": rounded(interval.low), "high": rounded(interval.high)}
        known |= {"interval_unit": interval.unit, "interval_units": interval.scenes}
    if score is None:
        return known
    of_images = {"images": entry.counted, "images_total": entry.total, "boundary_iou": rounded(score.boundary)}
    return known | {"metric": score.metric, **of_images, **score.said}


def cost_lines(collection: Collection) -> list[dict[str, Any]]:
    """One dict of COST_COLUMNS for each cell that says what it took."""
    return [
        {
            "row": score.row,
            "dataset": score.dataset,
            "seconds_per_image": score.seconds_per_image,
            "peak_memory_mib": score.peak_memory and round(score.peak_memory / 2**20),
        }
        for score in collection.scores.values()
        if score.seconds_per_image is not None
    ]


def _csv_status(entry: TableEntry, is_average: bool) -> str:
    """Return the status of an entry that has no score."""
    if is_average and (entry.counted or math.isnan(entry.value)):
        return f"{entry.counted}/{entry.total}"
    return "not run" if math.isnan(entry.value) else "computed from the labels"


def _limit(collection: str) -> int | None:
    _, _, number = collection.partition("limited-")
    return int(number) if number else None


def gains_table(pairs: Sequence[tuple[Gain, Gain]], collection: str) -> str:
    """Render the abstract's improvements over the best previous method, measured and published."""
    from tabulate import tabulate

    lines = [[mine.task, _gain(mine), _means(mine), _gain(published), _means(published)] for mine, published in pairs]
    headers = ["task", "measured", "means", "published", "means"]
    table = tabulate(lines, headers=headers, tablefmt="pipe", disable_numparse=True)
    heading = title("Headline gains: SegEarth-OV over the best previous method (points)", collection)
    return "\n\n".join([f"# {heading}", *_warnings(collection), table]) + "\n"


def _gain(gain: Gain) -> str:
    return f"{signed(gain.gain) or NOTHING} ({gain.counted}/{gain.datasets})"


def _means(gain: Gain) -> str:
    if gain.proposed is None or gain.previous is None:
        return ""
    return f"{one_digit(gain.proposed)} against {one_digit(gain.previous)} ({gain.best_previous})"


METRIC_NAMES = {
    "miou": "mIoU",
    "miou_labelled": "mIoU over the labelled classes",
    "foreground_iou": "IoU of the foreground class",
}
"""Metrics of cards as a caption names them."""


def latex(grid: Grid, intervals: bool = False) -> str:
    """Render the table for a paper: caption, label, booktabs; published numbers in grey below the measured ones.

    Best bold and second best underlined, of those that may be ranked.
    intervals: with the 95 % interval below each number. A number that may not be ranked is a dash; the marks of both
    that and of numbers that may not stand beside published ones are explained below. A table that is wider than the
    text is made smaller. Needs the packages booktabs, graphicx and xcolor.
    """
    heads = [grid.head(column) for column in grid.columns]
    lines, notes = [], list[str]()
    for before, line in zip([None, *grid.lines], grid.lines, strict=False):
        entries = [line.entries[column] for column in grid.columns]
        name = tex_text(f"{line.label} ({line.venue})" if line.venue else line.label)
        if line.is_guess and before and not before.is_guess:
            lines.append(r"\midrule")
        lines.append(_tex_line(name, [_tex_number(entry, grid, notes) for entry in entries]))
        if intervals and any(map(_interval, entries)):
            ends = [_interval(entry).replace(" to ", "--") for entry in entries]
            lines.append(_tex_line(r"\quad 95\,\%", [rf"{{\scriptsize {one}}}" if one else "" for one in ends]))
        if any(entry.published is not None for entry in entries):
            published = [rf"\textcolor{{gray}}{{{e.published}}}" if e.published is not None else "" for e in entries]
            lines.append(_tex_line(r"\quad\textcolor{gray}{published}", published))
    marks = [text.replace("**", "") for text in _warnings(grid.collection)]
    told = [*marks, *_undecided(grid, grid.head), *(_images(grid, grid.head) if intervals else [])]
    below = [tex_text(text) for text in [*told, *_differences(grid)]]
    below += [rf"$^{{{number}}}$ {tex_text(note)}" for number, note in enumerate(notes, 1)]
    images = [next((f"{n:,}" for line in grid.lines if (n := _total(line, column))), "") for column in grid.columns]
    suffix, kind = f"-{grid.collection}" if grid.collection else "", "table*" if len(heads) > 5 else "table"
    blocks = [
        r"% needs \usepackage{booktabs,graphicx,xcolor}, and its references \usepackage{url}",
        *(f"% {mark}" for mark in marks),
        rf"\begin{{{kind}}}[t]",
        r"\centering\small\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{tex_text(_caption(grid, heads))}}}",
        rf"\label{{tab:{grid.name}{suffix}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{l{'r' * len(grid.columns)}}}",
        r"\toprule",
        _tex_line("Method", map(tex_text, heads)),
        *([_tex_line(r"{\scriptsize images}", [rf"{{\scriptsize {n}}}" if n else "" for n in images])] * any(images)),
        r"\midrule",
        *lines,
        r"\bottomrule",
        r"\end{tabular}}",
        *(rf"\par{{\raggedright\footnotesize {text}\par}}" for text in below),
        rf"\end{{{kind}}}",
    ]
    return "\n".join(blocks) + "\n"


def _tex_line(name: str, cells: Iterable[str]) -> str:
    return " & ".join([name, *cells]) + r" \\"


def _total(line: Line, column: str) -> int:
    """Return how many images of a column count, by one line; 0 where it does not know."""
    entry = line.entries[column]
    return entry.total if entry.score else 0


def _caption(grid: Grid, heads: Sequence[str]) -> str:
    """Say what the numbers are: the metric of each column, and the marks."""
    columns: dict[str, list[str]] = {grid.measures: []} if grid.measures else {}
    for column, head in zip(grid.columns, heads, strict=True):
        scores = (line.entries[column].score for line in grid.lines)
        metric = next((score.metric for score in scores if score), None)
        if metric and not grid.measures:
            columns.setdefault(METRIC_NAMES.get(metric, metric), []).append(head)
    metrics = [f"{name} ({', '.join(of)})" if len(columns) > 1 else name for name, of in columns.items()]
    what = grid.title.partition(": ")[2] if grid.title.startswith("Table ") else grid.title
    what = re.sub(r"(, | \()m?IoU.*%\)$| \(%\)$", "", what)  # which is said behind it
    numbers = f" {'; '.join(metrics)}, in per cent." if metrics else ""
    marks = (
        " Best in bold, second best underlined."
        if any(e.mark for li in grid.lines for e in li.entries.values())
        else ""
    )
    return f"{what.rstrip('.')}.{numbers}{marks}"


def _tex_number(entry: TableEntry, grid: Grid, notes: list[str]) -> str:
    score = entry.score
    names = (score.label, grid.head(score.dataset)) if score else ("", "")
    shown = not math.isnan(entry.value) and (entry.complete or (score is None and not entry.total))
    told = score.verdict.footnotes(*names) if score else []
    if score and not shown and not score.verdict.why:  # what stands beside the number in other tables
        told = [f"{' on '.join(names)}: {score.verdict.text}", *told]
    marks = ",".join(_footnote(text, notes).strip("[]") for text in told)
    text = f"{entry.shown:.1f}" if shown else "--"
    text = {"best": rf"\textbf{{{text}}}", "second": rf"\underline{{{text}}}", None: text}[entry.mark]
    return f"{text}$^{{{marks}}}$" if marks else text


def to_csv(grid: Grid) -> str:
    """Return the grid as tidy CSV, columns in fixed order."""
    import pandas as pd

    lines: list[dict[str, Any]] = csv_lines(grid)
    return csv_text(pd.DataFrame(lines, columns=list(CSV_COLUMNS), dtype=object))
