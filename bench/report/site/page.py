"""The data of the page and the page itself: ``bench report``. Needs no torch."""

from __future__ import annotations

import html
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import __version__
from bench.config import Config
from bench.metrics import summary
from bench.metrics.significance import holm, mean_ranks, rank_ranges
from bench.report.analysis import threshold_curve
from bench.report.published import TASKS, TOLERANCE, load_published
from bench.report.render import WARNINGS, latex, to_csv
from bench.report.scores import Collection, Score, readable, rounded
from bench.report.site.blocks import confusion_shares, image_scores, paired, thumbnails
from bench.report.tables import Grid, Line, leaderboard
from bench.report.verdict import card_of, differences
from bench.store.result import StoredResult

HERE = Path(__file__).resolve().parent


def page(collection: Collection, config: Config, cards: Sequence[Path] = ()) -> str:
    """Render the whole page of one collection of cells, with scripts, styles and data inside."""
    data = page_data(collection, config, cards)
    text = (HERE / "page.html").read_text(encoding="utf-8")
    parts = {
        "/*CHART*/": (HERE / "chart.umd.min.js").read_text(encoding="utf-8"),
        "/*SCRIPT*/": (HERE / "page.js").read_text(encoding="utf-8"),
        "/*STYLE*/": (HERE / "page.css").read_text(encoding="utf-8"),
        "{}/*DATA*/": json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        "<!--TITLE-->": html.escape(data["head"]["title"]),
    }
    for mark, part in parts.items():
        text = text.replace(mark, part)
    return text


def page_data(collection: Collection, config: Config, cards: Sequence[Path] = ()) -> dict[str, Any]:
    """Collect everything that the page shows: per cent, rounded to hundredths; None for what is not known."""
    stored = readable(collection.scores)
    published = _published(config)
    board = leaderboard(config, collection)
    ranks = _ranks(board, collection)
    datasets = [name for name in board.columns if name != "average"]
    about = {name: _dataset(name, collection, stored, cards) for name in datasets}
    cells = [
        _cell(score, stored.get(key), published.get(key), about[score.dataset]["classes"])
        for key, score in collection.scores.items()
        if score.dataset in datasets
    ]
    return {
        "head": _head(collection, stored),
        "datasets": list(about.values()),
        "differences": differences({key: score.verdict for key, score in collection.scores.items()}),
        "rows": [
            {
                "row": line.row,
                "label": line.label,
                "venue": line.venue,
                "mean": rounded(line.entries["average"].value, 2),
                "of": line.entries["average"].counted,
                "rank": ranks.get(line.row),
            }
            for line in board.lines
        ],
        "guesses": {
            line.row: {name: rounded(line.entries[name].value, 2) for name in datasets} for line in board.lines[-2:]
        },
        "cells": cells,
        "thumbnails": thumbnails(stored[key] for key in collection.scores if key in stored),
        "paired": paired(collection, _ranked(board), datasets),
        "ranks": _mean_ranks(board),
        "tolerance": TOLERANCE,
        "csv": to_csv(board),
        "latex": latex(board),
    }


def _ranks(board: Grid, collection: Collection) -> dict[str, list[int]]:
    """Row -> its rank by the mean, and the ranks that the tests of mean differences leave open."""
    means = {row: _line_of(board, row).entries["average"].value for row in _ranked(board)}
    p_values = collection.p_values(list(means), _common(board))
    adjusted = dict(zip(p_values, holm(list(p_values.values())).tolist(), strict=True))
    return {row: list(one) for row, one in rank_ranges(means, adjusted).items()}


def _ranked(board: Grid) -> list[str]:
    return [line.row for line in board.lines if line.entries["average"].counted and not line.row.startswith("(")]


def _mean_ranks(board: Grid) -> dict[str, Any] | None:
    """Return the mean ranks of all rows that were measured, on the datasets that all of them have."""
    names = _common(board)
    found = mean_ranks({row: [_line_of(board, row).entries[name].value for name in names] for row in _ranked(board)})
    if found is None:
        return None
    return {
        "ranks": {row: round(rank, 3) for row, rank in found.ranks.items()},
        "ranges": {row: [round(low, 3), round(high, 3)] for row, (low, high) in found.ranges.items()},
        "datasets": found.datasets,
        "p": None if np.isnan(found.p_value) else round(found.p_value, 4),
        "critical": found.critical and round(found.critical, 3),
    }


def _line_of(board: Grid, row: str) -> Line:
    return next(line for line in board.lines if line.row == row)


def _common(board: Grid) -> list[str]:
    """Datasets that all rows with a mean have."""
    ranked = [line for line in board.lines if line.entries["average"].counted]
    names = [name for name in board.columns if name != "average"]
    return [name for name in names if all(line.entries[name].complete for line in ranked)]


def _head(collection: Collection, stored: dict[tuple[str, str], StoredResult]) -> dict[str, Any]:
    scores = list(collection.scores.values())
    cells = [stored[key] for key in collection.scores if key in stored]
    made = [cell.record.made_with for cell in cells]
    return {
        "title": "ovss-bench" + (f" [{collection.name}]" if collection.name else ""),
        "version": __version__,
        "bands": [text.replace("**", "") for word, text in WARNINGS.items() if word in collection.name],
        "cells": len(scores),
        "verdicts": dict(Counter(score.verdict.status for score in scores)),
        "commits": sorted({str(one.get("commit", ""))[:9] for one in made} - {""}),
        "torch": sorted({str(one.get("torch", "")) for one in made} - {""}),
        "machines": sorted({str(one.get("cpu", "")) for one in made} - {""}),
        "weights": sorted({cell.record.inputs.get("weights", "")[:12] for cell in cells} - {""}),
        "first": min((cell.record.written for cell in cells), default=""),
        "last": max((cell.record.written for cell in cells), default=""),
    }


def _dataset(
    name: str, collection: Collection, stored: dict[tuple[str, str], StoredResult], cards: Sequence[Path]
) -> dict[str, Any]:
    """Describe a dataset: by its card, else by what the newest result that may be ranked kept of it."""
    of_name = [(collection.scores[key].complete, cell.record.written, key, cell) for key, cell in stored.items()]
    newest = max((one for one in of_name if one[-1].dataset == name), default=(*[None] * 3, None))[-1]
    card = card_of(name, cards)
    about = card.facts() if card else newest.record.card if newest else None
    task = about.task if about else "other"
    return {
        "name": name,
        "title": about.title if about else name,
        "task": next((listed for listed, names in TASKS.items() if name in names), task),
        "metric": newest.metric if newest else "",
        "classes": list(card.classes if card else newest.classes if newest else ()),
        "palette": [list(colour) for colour in about.palette] if about else [],
        "unverified": list(about.unverified) if about else [],
    }


def _cell(score: Score, cell: StoredResult | None, published: float | None, classes: Sequence[str]) -> dict[str, Any]:
    interval, known = score.interval, score.verdict
    found: dict[str, Any] = {
        "row": score.row,
        "dataset": score.dataset,
        "status": known.status,
        "text": known.text,
        "complete": score.complete,
        "comparable": score.comparable,
        "score": rounded(score.value, 2),
        "low": rounded(interval.low, 2) if interval else None,
        "high": rounded(interval.high, 2) if interval else None,
        "units": interval.sample if interval else None,
        "images": known.counted,
        "total": known.expected,
        "published": published,
        "boundary": rounded(score.boundary, 2),
        "seconds": score.seconds_per_image and round(score.seconds_per_image, 4),
        "notes": [*known.sentences, *(f"not seen by the interval: {spot}" for spot in score.blind_spots)],
    }
    if cell is None or not cell.counted or len(cell.classes) != len(classes):
        return found
    numbers = summary(cell.areas().total, cell.metric)
    found["iou"] = [rounded(value, 2) for value in np.asarray(numbers["iou"], float)]
    found["threshold"] = cell.settings.threshold
    found["curve"] = [rounded(value, 2) for value in threshold_curve(cell)]
    found["confusion"] = confusion_shares(cell)
    found |= image_scores(cell)
    return found


def _published(config: Config) -> dict[tuple[str, str], float]:
    """Return the paper's number for each (row, dataset), of whichever table has it first."""
    found: dict[tuple[str, str], float] = {}
    for table in config.tables.values():
        for row, line in load_published(table.published).items():
            for dataset, value in line.values.items():
                found.setdefault((row, dataset), float(value))
    return found
