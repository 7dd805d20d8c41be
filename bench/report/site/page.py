"""The data of the page and the page itself: ``bench report``. Needs no torch."""

from __future__ import annotations

import html
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from bench import __version__
from bench.config import Config
from bench.data.cards import Card
from bench.data.samples import SampleSet
from bench.metrics import class_parts, label_area, summary
from bench.metrics.significance import ahead, holm, mean_ranks
from bench.report.analysis import threshold_curve
from bench.report.details import blocks_of, command_of, shown_blocks
from bench.report.published import TOLERANCE, load_published, method_facts
from bench.report.render import WARNINGS, csv_lines, to_csv
from bench.report.scores import Collection, Score, readable, rounded
from bench.report.site.blocks import confusion_shares, image_scores, objects, paired
from bench.report.site.pictures import pictures
from bench.report.tables import AVERAGE, Grid, Line, common_datasets, leaderboard
from bench.report.verdict import card_of, differences
from bench.settings import EXTERNAL
from bench.store.result import StoredResult

HERE: Final = Path(__file__).resolve().parent
SCRIPTS: Final = ("state", "board", "grid", "export", "charts", "pair", "result", "start")
GROUPS: Final = ("semantic", "building", "road", "water")  # tasks, in the order of the page's columns


class Page(NamedTuple):
    """The text of a page, and the pictures by name that belong in the folder beside it; none where it holds them."""

    text: str
    pictures: Mapping[str, bytes]


def page(
    collection: Collection,
    config: Config,
    cards: Sequence[Path] = (),
    samples_of: Callable[[str], SampleSet | None] = lambda name: None,
    folder: str = "report_pictures",
) -> Page:
    """Render the page of one collection of cells, with scripts, styles and data inside.

    samples_of: finds images and labels of a dataset, for pictures beside label maps that were kept. folder: what the
    folder of the pictures will be called.
    """
    data = page_data(collection, config, cards)
    stored = readable(collection.scores)
    found = pictures(stored.values(), samples_of)
    inside = found.inside()
    data |= {"shown": found.shown, "inside": inside or {}, "folder": folder}
    data["objects"] = objects(stored.values(), samples_of)
    text = (HERE / "page.html").read_text(encoding="utf-8")
    parts = {
        "/*CHART*/": (HERE / "chart.umd.min.js").read_text(encoding="utf-8"),
        "/*SCRIPT*/": "\n".join((HERE / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS),
        "/*STYLE*/": (HERE / "page.css").read_text(encoding="utf-8"),
        "{}/*DATA*/": json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        "<!--TITLE-->": html.escape(data["head"]["title"]),
    }
    for mark, part in parts.items():
        text = text.replace(mark, part)
    return Page(text, found.files if inside is None else {})


def page_data(collection: Collection, config: Config, cards: Sequence[Path] = ()) -> dict[str, Any]:
    """Collect all that the page shows but pictures: per cent, rounded to hundredths; None for what is not known."""
    stored = readable(collection.scores)
    published = _published(config)
    board = leaderboard(config, collection)
    now = {name: card_of(name, cards) for name in board.columns if name != AVERAGE}
    about = {name: _dataset(name, card, collection, stored) for name, card in now.items()}
    groups = list(dict.fromkeys([*GROUPS, *(one["task"] for one in about.values())]))
    datasets = sorted(about, key=lambda name: groups.index(about[name]["task"]))
    values, facts = _Values(), method_facts()
    cells = []
    for key, score in collection.scores.items():
        cell = stored[key].without_counts() if key in stored else None  # its counts are freed with it
        found = _cell(score, cell, published.get(key), about[score.dataset])
        if cell is not None:
            blocks = shown_blocks(blocks_of(cell, score, config, now[cell.dataset]))
            found["told"] = [[values.place(part) for part in (title, *sum(of, ()))] for title, of in blocks.items()]
            found["command"] = command_of(cell, config, now[cell.dataset])
        cells.append(found)
    ranked = [line.row for line in board.lines if line.entries[AVERAGE].counted and not line.row.startswith("(")]
    tasks = {task: [name for name in datasets if about[name]["task"] == task] for task in groups}
    return {
        "head": _head(collection, stored),
        "datasets": [about[name] for name in datasets],
        "differences": differences({key: score.verdict for key, score in collection.scores.items()}),
        "rows": [_row(line, collection, facts) for line in board.lines],
        "guesses": {
            line.row: {name: rounded(line.entries[name].value, 6) for name in datasets} for line in board.lines[-2:]
        },
        "cells": cells,
        "values": values.known,
        "paired": paired(collection, ranked, datasets),
        "tested": [_tested(board, collection, names) for names in (datasets, *tasks.values()) if names],
        "ranks": _mean_ranks(board, ranked),
        "tolerance": TOLERANCE,
        "csv": _csv(board),
    }


class _Values:
    """Texts that many cells share, each kept once and named by its place."""

    def __init__(self) -> None:
        self.known: list[str] = []
        self._places: dict[str, int] = {}

    def place(self, text: str) -> int:
        if text not in self._places:
            self._places[text] = len(self.known)
            self.known.append(text)
        return self._places[text]


def _row(line: Line, collection: Collection, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a row by the settings of its results; several values of one setting stand side by side."""
    scores = [score for (row, _), score in collection.scores.items() if row == line.row]
    of_row = [score.settings for score in scores if score.settings]
    own = [one for one in of_row if one.method != EXTERNAL]
    known = facts.get(of_row[0].method, {}) if of_row else {}
    year = re.search(r"\b(20)?(\d\d)$", line.venue)

    def joined(*found: str) -> str:
        return ", ".join(dict.fromkeys(found))

    return {
        "row": line.row,
        "label": line.label,
        "venue": line.venue,
        "backbone": joined(*(Path(one.backbone).name for one in own)),
        "second": joined(*(Path(name).name for one in own for name in one.models.values())),
        "upsampler": joined(*(Path(one.upsampler).name for one in own if one.upsampler != "none")),
        "year": 2000 + int(year[2]) if year else None,
        "paper": known.get("paper"),
        "code": known.get("code"),
    }


def _tested(board: Grid, collection: Collection, columns: Sequence[str]) -> dict[str, Any]:
    """Return the tests of the mean over these columns: the datasets that count, and which row is ahead of which."""
    lines = [line for line in board.lines if not line.row.startswith("(")]
    names = common_datasets(lines, columns)
    means = {
        line.row: float(np.mean([line.entries[name].value for name in names]))
        for line in lines
        if names and all(line.entries[name].complete for name in names)
    }
    p_values = collection.p_values(list(means), names)
    adjusted = dict(zip(p_values, holm(list(p_values.values())).tolist(), strict=True))
    return {"datasets": names, "ahead": ahead(means, adjusted)}


def _mean_ranks(board: Grid, ranked: Sequence[str]) -> dict[str, Any] | None:
    """Return the mean ranks of all rows that were measured, on the datasets that all of them have."""
    lines = {line.row: line for line in board.lines}
    columns = [name for name in board.columns if name != AVERAGE]
    names = [name for name in columns if all(lines[row].entries[name].complete for row in ranked)]
    found = mean_ranks({row: [lines[row].entries[name].value for name in names] for row in ranked})
    if found is None:
        return None
    return {
        "ranks": {row: round(rank, 3) for row, rank in found.ranks.items()},
        "ranges": {row: [round(low, 3), round(high, 3)] for row, (low, high) in found.ranges.items()},
        "datasets": found.datasets,
        "p": None if np.isnan(found.p_value) else round(found.p_value, 4),
        "critical": found.critical and round(found.critical, 3),
    }


def _csv(board: Grid) -> dict[str, Any]:
    """Return the table as `to_csv` writes it: its head, [row, column, text] of each line, and what all lines share."""
    (head, *texts), lines = to_csv(board).splitlines(), csv_lines(board)
    return {
        "head": head,
        "lines": [[of["row"], of["dataset"], text] for of, text in zip(lines, texts, strict=True)],
        "shared": {key: "" if (value := lines[0][key]) is None else str(value) for key in ("table", "demo", "limit")},
    }


def _head(collection: Collection, stored: dict[tuple[str, str], StoredResult]) -> dict[str, Any]:
    scores = list(collection.scores.values())
    cells = [stored[key] for key in collection.scores if key in stored]
    made = [cell.record.made_with for cell in cells]
    return {
        "title": "ovss-bench" + (f" [{collection.name}]" if collection.name else ""),
        "version": __version__,
        "flags": ["--demo"] if "demo" in collection.name else [],
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
    name: str, card: Card | None, collection: Collection, stored: dict[tuple[str, str], StoredResult]
) -> dict[str, Any]:
    """Describe a dataset: by its card, else by what the newest result that may be ranked kept of it."""
    of_name = [(collection.scores[key].complete, cell.record.written, key, cell) for key, cell in stored.items()]
    newest = max((one for one in of_name if one[-1].dataset == name), default=(*[None] * 3, None))[-1]
    about = card.facts() if card else newest.record.card if newest else None
    return {
        "name": name,
        "title": about.title if about else name,
        "short": (about.short or about.title) if about else name,
        "task": about.task if about else "other",
        "metric": newest.metric if newest else "",
        "classes": list(card.classes if card else newest.classes if newest else ()),
        "palette": [list(colour) for colour in about.palette] if about else [],
        "unverified": list(about.unverified) if about else [],
        "labelled": [],
        "ids": [],
    }


def _cell(score: Score, cell: StoredResult | None, published: float | None, about: dict[str, Any]) -> dict[str, Any]:
    """Describe a result, and note in `about` what its counts say of its dataset: ids of images, shares of labels."""
    interval, known = score.interval, score.verdict
    found: dict[str, Any] = {
        "row": score.row,
        "dataset": score.dataset,
        "status": known.status,
        "text": known.text,
        "complete": score.complete,
        "comparable": score.comparable,
        "score": rounded(score.value, 6),  # means of them print as those of the tables
        "low": rounded(interval.low, 2) if interval else None,
        "high": rounded(interval.high, 2) if interval else None,
        "units": interval.sample if interval else None,
        "images": known.counted,
        "total": known.expected,
        "published": published,
        "boundary": rounded(score.boundary, 2),
        "seconds": score.seconds_per_image and round(score.seconds_per_image, 4),
        "origin": known.origin,
        "notes": [text for text in known.sentences if text != known.origin]
        + [f"not seen by the interval: {spot}" for spot in score.blind_spots],
    }
    if cell is None or not cell.counted or len(cell.classes) != len(about["classes"]):
        return found
    areas = cell.areas().total
    about["ids"] += [""] * (1 + max(cell.indices) - len(about["ids"]))
    for index, name in zip(cell.indices, cell.ids, strict=True):
        about["ids"][index] = name
    if score.complete or not about["labelled"]:
        pixels = label_area(areas)
        about["labelled"] = [rounded(share, 3) for share in pixels / max(1, pixels.sum())]
    numbers = summary(areas, cell.metric)
    found["iou"] = [rounded(value, 2) for value in np.asarray(numbers["iou"], float)]
    found["acc"] = [rounded(value, 2) for value in np.asarray(numbers["acc"], float)]
    found["parts"] = [rounded(value, 2) for value in class_parts(areas, cell.metric)]
    found["threshold"] = cell.settings.threshold
    if score.settings and score.settings.method != EXTERNAL:  # there are no probabilities in others' label maps
        found["curve"] = [rounded(value, 2) for value in threshold_curve(cell)]
    found["confusion"] = confusion_shares(cell)
    found["each"] = image_scores(cell)
    return found


def _published(config: Config) -> dict[tuple[str, str], float]:
    """Return the paper's number for each (row, dataset), of whichever table has it first."""
    found: dict[tuple[str, str], float] = {}
    for table in config.tables.values():
        for row, line in load_published(table.published).items():
            for dataset, value in line.values.items():
                found.setdefault((row, dataset), float(value))
    return found
