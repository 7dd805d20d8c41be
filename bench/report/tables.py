"""Tables as data: which row and column holds which measured score and which published number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import NamedTuple

import numpy as np

from bench.config import Config, Table
from bench.metrics.intervals import Interval, average
from bench.metrics.significance import holm
from bench.report.published import (
    Gain,
    Mark,
    PublishedRow,
    agrees,
    headline_gains,
    load_published,
    marks,
    published_score,
)
from bench.report.scores import Collection, Score

AVERAGE = "average"
GUESSES = (("constant", "Best constant prediction"), ("chance", "Random prediction"))  # fields of Score


@dataclass
class TableEntry:
    """Entry of a table, where a row meets a column.

    value, interval: fractions; value is nan unless there is a number.
    published: per cent.
    counted of total: images, or datasets of an average.
    complete: the number may be ranked.
    comparable: it may be held against a published one.
    score: None for an average and where nothing is stored.
    """

    value: float = float("nan")
    interval: Interval | None = None
    counted: int = 0
    total: int = 0
    complete: bool = False
    comparable: bool = False
    published: Decimal | None = None
    score: Score | None = None
    mark: Mark | None = None
    published_mark: Mark | None = None

    @property
    def difference(self) -> float | None:
        """Measured - published in points, where the two may be compared."""
        if not self.comparable or self.published is None:
            return None
        return 100 * self.value - float(self.published)

    @property
    def verdict(self) -> str | None:
        """Whether the measured number agrees with the published one, where the two may be compared."""
        if (difference := self.difference) is None:
            return None
        return "agrees" if agrees(difference) else "off"

    @property
    def shown(self) -> float:
        """The value in points as printed; rows that print the same number are ranked the same."""
        return round(100 * self.value, 1)


@dataclass
class Line:
    row: str
    label: str
    venue: str
    entries: dict[str, TableEntry] = field(default_factory=dict)  # by column

    @property
    def is_guess(self) -> bool:
        """Whether it is of a prediction that ignores the image."""
        return self.row.startswith("(")


class Undecided(NamedTuple):
    """Tests of the rows of each column against its best.

    rows: column -> labels of the rows that no test decides.
    untested: columns whose best row has no test, with too few scenes.
    tests: how many Holm's correction is over.
    p_values: (column, row) -> p, and p by Holm.
    """

    rows: dict[str, list[str]]
    untested: list[str]
    tests: int
    p_values: dict[tuple[str, str], tuple[float, float]]


@dataclass
class Grid:
    """A table: its lines in order, its columns (datasets, then maybe "average")."""

    name: str
    title: str
    columns: list[str]
    lines: list[Line]
    collection: str
    undecided: Undecided | None = None
    called: Callable[[str], str] = str  # what a dataset is called in print
    measures: str = ""  # what the numbers are, where it is not the metric of each dataset

    def head(self, column: str) -> str:
        """Return what a column is called in print."""
        return column if column == AVERAGE else self.called(column)

    @property
    def measured(self) -> bool:
        """Whether any entry has a measured number."""
        return any(entry.counted for line in self.lines for entry in line.entries.values())


def build(name: str, table: Table, config: Config, collection: Collection, own: bool = False) -> Grid:
    """Build one table of benchmark.yaml. Lines that only the paper has stand where the paper has them.

    own: of a user's own rows, with their venues, and the predictions that ignore the image below.
    """
    published = load_published(table.published)
    lines = []
    for row in [*published, *(row for row in table.rows if row not in published)]:
        label, venue = _named(row, config, collection)
        line = published.get(row) or PublishedRow(label, venue if own else "", {}, None)
        entries = {
            dataset: _entry(collection.scores.get((row, dataset)), line.values.get(dataset))
            for dataset in table.columns
        }
        if table.average:
            entries[AVERAGE] = _average(list(entries.values()), line.average)
        lines.append(Line(row, line.label, line.venue, entries))
    columns = [*table.columns, *([AVERAGE] if table.average else [])]
    _mark(lines, columns)
    undecided = _undecided(lines, columns, collection)
    for guess in [_guesses(collection, table.columns, *of) for of in GUESSES if own]:
        values = [guess.entries[column].value for column in table.columns]
        guess.entries[AVERAGE] = TableEntry(float(np.mean(values)))  # nan unless all are known
        lines.append(guess)
    file, title = (f"table{name}", f"Table {name}: {table.title}") if name.isdigit() else (name, table.title)
    return Grid(file, title, columns, lines, collection.name, undecided, collection.head)


def _named(row: str, config: Config, collection: Collection) -> tuple[str, str]:
    """Return label and venue that the run that stored the row gave it, else the label of benchmark.yaml."""
    stored = ((score.label, score.venue) for (name, _), score in collection.scores.items() if name == row)
    return next(stored, (config.row(row).title(), ""))


def leaderboard(config: Config, collection: Collection) -> Grid:
    """Rank every stored row on every stored dataset, the highest mean at the top.

    A mean is over the datasets that all rows with a mean have, so that means can be compared; other rows stand below.
    """
    listed = list(dict.fromkeys(dataset for table in config.tables.values() for dataset in table.columns))
    stored = collection.datasets
    datasets = [d for d in listed if d in stored] + [d for d in stored if d not in listed]
    lines = []
    for row in collection.rows:
        scores = [score for (name, _), score in collection.scores.items() if name == row]
        entries = {dataset: _entry(collection.scores.get((row, dataset)), None) for dataset in datasets}
        lines.append(Line(row, scores[0].label, scores[0].venue, entries))
    common = common_datasets(lines, datasets)
    for line in lines:
        shared = [line.entries[dataset] for dataset in common]
        whole = bool(common) and all(entry.complete for entry in shared)
        line.entries[AVERAGE] = _average(shared, None) if whole else TableEntry(total=len(common))
    lines.sort(key=_standing)
    columns = [*datasets, AVERAGE]
    _mark(lines, columns)
    undecided = _undecided(lines, columns, collection, common)
    lines += [_guesses(collection, datasets, *guess) for guess in GUESSES]
    title = "Leaderboard: all that is stored (%)"
    return Grid("leaderboard", title, columns, lines, collection.name, undecided, collection.head)


def boundary_table(collection: Collection) -> Grid | None:
    """Build the table of mean boundary IoU of every stored row and dataset; None where nothing has it."""
    counted = [score for score in collection.scores.values() if not np.isnan(score.boundary)]
    if not counted:
        return None
    datasets = [name for name in collection.datasets if name in {score.dataset for score in counted}]
    lines = []
    for row in dict.fromkeys(score.row for score in counted):
        of_row = {score.dataset: score for score in counted if score.row == row}
        entries = {
            name: replace(_entry(of_row.get(name), None), value=of_row[name].boundary, interval=None)
            if name in of_row
            else TableEntry()
            for name in datasets
        }
        first = next(iter(of_row.values()))
        lines.append(Line(row, first.label, first.venue, entries))
    _mark(lines, datasets)
    title, what = "Mean boundary IoU (%)", "mean boundary IoU"
    return Grid("boundary", title, datasets, lines, collection.name, called=collection.head, measures=what)


def _guesses(collection: Collection, datasets: Sequence[str], name: str, label: str) -> Line:
    """Return the scores of a prediction that ignores the image, computed from the labels of any complete cell."""
    complete = {score.dataset: score for score in collection.scores.values() if score.complete}
    entries = {
        dataset: TableEntry(getattr(complete[dataset], name)) if dataset in complete else TableEntry()
        for dataset in datasets
    }
    return Line(f"({name})", label, "", {**entries, AVERAGE: TableEntry()})


def gains(collection: Collection) -> list[tuple[Gain, Gain]]:
    """Return the (measured, published) improvement over the best previous method for each task of the abstract."""

    def measured(row: str, dataset: str) -> Decimal | None:
        score = collection.scores.get((row, dataset))
        return Decimal(100 * score.value) if score and score.complete and not score.verdict.caveats else None

    return list(zip(headline_gains(measured), headline_gains(published_score()), strict=True))


def _entry(score: Score | None, published: Decimal | None) -> TableEntry:
    if score is None:
        return TableEntry(published=published)
    return TableEntry(
        value=score.value,
        interval=score.interval,
        counted=score.verdict.counted,
        total=score.verdict.expected,
        complete=score.complete and not np.isnan(score.value),
        comparable=score.comparable and not np.isnan(score.value),
        published=published,
        score=score,
    )


def _average(entries: Sequence[TableEntry], published: Decimal | None) -> TableEntry:
    """Return the mean over the complete cells; it may be ranked only if those are all of them."""
    done = [entry for entry in entries if entry.complete]
    complete = len(done) == len(entries)
    intervals = [entry.interval for entry in done if entry.interval]
    return TableEntry(
        value=float(np.mean([entry.value for entry in done])) if done else float("nan"),
        interval=average(intervals) if complete and intervals else None,
        counted=len(done),
        total=len(entries),
        complete=complete,
        comparable=complete and all(entry.comparable for entry in done),
        published=published,
    )


def _mark(lines: Sequence[Line], columns: Sequence[str]) -> None:
    """Mark the best and second best of each column, measured among measured and published among published."""
    for column in columns:
        entries = {line.row: line.entries[column] for line in lines}
        mine = marks({row: entry.shown for row, entry in entries.items() if entry.complete})
        theirs = marks({row: e.published for row, e in entries.items() if e.published is not None})
        for row, entry in entries.items():
            entry.mark, entry.published_mark = mine.get(row), theirs.get(row)


def _undecided(
    lines: Sequence[Line], columns: Sequence[str], collection: Collection, averaged: Sequence[str] | None = None
) -> Undecided | None:
    """Test each column's best row against the others, as if all pairs of rows had been tested.

    averaged: the datasets of the average; all of the table unless given.
    """
    datasets = [column for column in columns if column != AVERAGE]
    labels = {line.row: line.label for line in lines}
    p_values: dict[tuple[str, str], float] = {}
    family, untested = 0, []
    for column in columns:
        complete = {line.row: line.entries[column].value for line in lines if line.entries[column].complete}
        if len(complete) < 2:
            continue
        best = max(complete, key=complete.__getitem__)
        of = [column] if column != AVERAGE else averaged or datasets
        found = collection.p_values(list(complete), of, best)
        known = {one if other == best else other: p for (one, other), p in found.items() if not np.isnan(p)}
        if not known:
            untested.append(column)
            continue
        p_values |= {(column, row): known.get(row, 1.0) for row in complete if row != best}
        family += len(complete) * (len(complete) - 1) // 2
    adjusted = holm(list(p_values.values()), family).tolist()
    both = {key: (p, by_holm) for (key, p), by_holm in zip(p_values.items(), adjusted, strict=True)}
    rows: dict[str, list[str]] = {column: [] for column, _ in p_values}
    for (column, row), (_, by_holm) in both.items():
        if by_holm > 0.05:
            rows[column].append(labels[row])
    return Undecided(rows, untested, family, both) if rows or untested else None


def common_datasets(lines: Sequence[Line], datasets: Sequence[str]) -> list[str]:
    """Datasets of the means: those that all rows have which have at least half as many as the row with most."""
    done = [{dataset for dataset in datasets if line.entries[dataset].complete} for line in lines]
    most = max((len(one) for one in done), default=0)
    enough = [one for one in done if one and 2 * len(one) >= most]
    shared = set.intersection(*enough) if enough else set()
    return [dataset for dataset in datasets if dataset in shared]


def _standing(line: Line) -> tuple[int, float, str]:
    mean = line.entries[AVERAGE]
    return -mean.counted, -mean.value if mean.counted else 0.0, line.row
