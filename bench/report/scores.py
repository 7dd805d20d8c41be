"""Scores of stored cells as tables show them: how good, how far to be trusted, and the verdict on each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from bench.config import Config
from bench.errors import BenchError, did_you_mean
from bench.metrics import chance_score, constant_score, label_area, mean_over_classes
from bench.metrics import score as metric_of
from bench.metrics.boundary import boundary_iou
from bench.metrics.intervals import Interval, Scenes, blind_spots, by_scene, interval
from bench.metrics.significance import PERMUTATIONS, tests_of_rows
from bench.paths import demo_hint
from bench.report.verdict import Facts, Verdict, card_of, columns, damaged, facts, verdict
from bench.settings import Settings
from bench.store.history import sentence
from bench.store.result import StoredResult
from bench.store.store import Store, limits


@dataclass(frozen=True, eq=False)
class Score:
    """Score of one cell with its verdict; value and interval are fractions.

    value: nan where nothing was counted.
    constant, chance: what the best constant prediction and a random one score on the same labels.
    scenes, interval: only of whole cells.
    peak_memory: bytes.
    boundary: mean boundary IoU; nan where it was not counted.
    history: earlier scores and what changed, newest first.
    cell: what is stored, without its counts; None where cell.json cannot be read, as are the settings.
    """

    row: str
    dataset: str
    label: str
    metric: str
    verdict: Verdict
    venue: str = ""
    value: float = float("nan")
    scenes: Scenes | None = None
    interval: Interval | None = None
    constant: float = float("nan")
    chance: float = float("nan")
    seconds_per_image: float | None = None
    peak_memory: int | None = None
    boundary: float = float("nan")
    history: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    settings: Settings | None = None
    dtype: str | None = None
    cell: StoredResult | None = None

    @property
    def complete(self) -> bool:
        """Whether it may be ranked against its column and enter a mean."""
        return self.verdict.ranked

    @property
    def comparable(self) -> bool:
        """Whether it may be held against a published number."""
        return self.verdict.comparable

    @property
    def blind_spots(self) -> list[str]:
        """Limits of its interval: what it cannot see, one phrase each."""
        return blind_spots(self.scenes, self.classes) if self.scenes and self.interval and self.interval.known else []

    @property
    def said(self) -> dict[str, Any]:
        """Columns that every frame and CSV has of the cell: the verdict, and what it was counted with."""
        known, settings = self.verdict, self.settings
        return {
            "status": known.status,
            "shown": known.text,
            "reason": known.words or None,
            "stale": "; ".join(known.stale),
            "caveat": "; ".join(known.caveats),
            "ranked": known.ranked,
            "comparable": known.comparable,
            "demo": known.demo,
            "limit": known.limit,
            "dtype": self.dtype,
            "backbone": settings and settings.backbone,
            "vocabulary": settings and settings.vocabulary,
            "threshold": settings and settings.threshold,
        }


@dataclass(frozen=True, eq=False)
class Collection:
    """Cells that may stand in one table: all of full runs, of the demo, or of one --limit.

    name: "" for full runs, else what marks every file and title: "demo", "limited-20", "demo-limited-20".
    permutations: of each test.
    cards: folders of further cards.
    """

    name: str
    scores: dict[tuple[str, str], Score]
    permutations: int = PERMUTATIONS
    cards: Sequence[Path] = ()
    _tested: dict[tuple[frozenset[str], tuple[str, ...]], float | None] = field(default_factory=dict)
    _heads: dict[str, str] = field(default_factory=dict)

    @property
    def datasets(self) -> list[str]:
        return list(dict.fromkeys(dataset for _, dataset in self.scores))

    @property
    def limit(self) -> int | None:
        """N of --limit N, None for full runs."""
        return next((score.verdict.limit for score in self.scores.values()), None)

    @property
    def rows(self) -> list[str]:
        return list(dict.fromkeys(row for row, _ in self.scores))

    def head(self, dataset: str) -> str:
        """Return what a dataset is called at the head of a column: by its card, now or when it was counted."""
        if dataset not in self._heads:
            cells = (score.cell for (_, of), score in self.scores.items() if of == dataset)
            kept = next((cell.record.card for cell in cells if cell and cell.record.card), None)
            about = card_of(dataset, self.cards) or kept
            self._heads[dataset] = (about.short or about.title) if about else dataset
        return self._heads[dataset]

    def p_values(
        self, rows: Sequence[str], datasets: Sequence[str], best: str | None = None
    ) -> dict[tuple[str, str], float]:
        """Return p of the mean difference over these datasets, for all pairs of these rows or only those with `best`.

        Rows that are not complete, and pairs that were not counted on the same images, have none. What was computed
        once is remembered, for several tables show it.
        """
        of_rows = {row: [self.scores.get((row, dataset)) for dataset in datasets] for row in rows}
        counts = {
            row: [one.scenes for one in scores if one and one.complete and one.scenes]
            for row, scores in of_rows.items()
        }
        whole = [row for row in rows if len(counts[row]) == len(datasets) > 0]
        keys = {
            pair: (frozenset(pair), tuple(datasets)) for pair in combinations(whole, 2) if best is None or best in pair
        }
        missing = [pair for pair, key in keys.items() if key not in self._tested]
        found = tests_of_rows(counts, missing, self.permutations)
        self._tested.update({keys[pair]: found.get(pair) for pair in missing})
        return {pair: p for pair, key in keys.items() if (p := self._tested[key]) is not None}


def collect(
    results: Path, config: Config, permutations: int = PERMUTATIONS, cards: Sequence[Path] = ()
) -> list[Collection]:
    """Collect everything below a results folder; if that is nothing, one empty collection.

    cards: folders of further cards.
    """
    found: dict[str, dict[tuple[str, str], Score]] = {}
    for store in [Store(results, limit=limit) for limit in (None, *limits(results))]:
        for key, score in scores_of(store, config, cards).items():
            parts = ["demo"] if score.verdict.demo else []
            name = "-".join([*parts, f"limited-{store.limit}"] if store.limit else parts)
            found.setdefault(name, {})[key] = score
    named = [Collection(name, found[name], permutations, cards) for name in sorted(found)]
    return named or [Collection("", {})]


class NothingStored(BenchError):
    """No result of that row and dataset is stored."""


def stored_score(
    store: Store, row: str, dataset: str, config: Config, cards: Sequence[Path] = ()
) -> tuple[StoredResult, Score]:
    """Return a stored cell and its score; NothingStored where it is not there, BenchError where it is damaged."""
    cell = store.cell(row, dataset)
    if cell is None:
        if unreadable := store.damaged().get((row, dataset)):
            raise BenchError(unreadable)
        hint = did_you_mean(f"{row} {dataset}", [f"{one.row} {one.dataset}" for one in store.cells()])
        raise NothingStored(f"{store.folder}: nothing is stored of {row} on {dataset}; {hint}{demo_hint(store.folder)}")
    return cell, scores_of(store, config, cards, [dataset])[row, dataset]


def scores_of(
    store: Store, config: Config, cards: Sequence[Path] = (), datasets: Sequence[str] | None = None
) -> dict[tuple[str, str], Score]:
    """Return the score of each stored cell by (row, dataset) with the verdict on it, on these datasets or all."""
    stored, unread = store.listing()
    cells = [cell for cell in stored if datasets is None or cell.dataset in datasets]
    now = {name: card_of(name, cards) for name in {cell.dataset for cell in cells}}

    def read(cell: StoredResult) -> tuple[StoredResult, Facts, dict[str, Any]]:
        found = facts(cell, config, now[cell.dataset]), _numbers(cell)
        return cell.without_counts(), *found

    with ThreadPoolExecutor(2) as pool:  # of replace(cell), so that the counts it reads are freed with it
        whole = list(pool.map(lambda cell: read(replace(cell)), cells))
    judged = columns([(cell, of_cell) for cell, of_cell, _ in whole], config, now)
    found = {
        (cell.row, cell.dataset): Score(
            verdict=verdict(cell, judged[cell.dataset, cell.record.demo], of_cell), cell=cell, **numbers
        )
        for cell, of_cell, numbers in whole
    }
    demo = all(score.verdict.demo for score in found.values()) and bool(found)
    for (row, dataset), reason in unread.items():  # stands where the others of its store do
        if datasets is None or dataset in datasets:
            found[row, dataset] = Score(row, dataset, row, "miou", damaged(reason, demo, store.limit))
    return found


def readable(known: Mapping[tuple[str, str], Score]) -> dict[tuple[str, str], StoredResult]:
    """Return the stored results whose counts can be read, which are freed with them."""
    sound = {key: one.cell for key, one in known.items() if one.verdict.images != "damaged"}
    return {key: cell.without_counts() for key, cell in sound.items() if cell}


def _numbers(cell: StoredResult) -> dict[str, Any]:
    """Compute what a `Score` holds besides the verdict, from one cell's counts."""
    info, cost = cell.info, cell.record.cost
    found: dict[str, Any] = {
        "row": cell.row,
        "dataset": cell.dataset,
        "label": info.label or cell.row,
        "metric": cell.metric,
        "classes": cell.classes,
        "venue": info.venue,
        "history": tuple(sentence(previous) for previous in reversed(cell.record.history)),
        "seconds_per_image": cost.seconds / cost.images if cost else None,
        "peak_memory": cost.peak_memory_bytes if cost else None,
        "settings": cell.settings,
        "dtype": info.dtype,
    }
    if not cell.images.num_rows:
        return found
    images = cell.areas()
    labels = label_area(images.total)
    found["value"] = float(metric_of(images.total, cell.metric))
    if labels.any():
        found["constant"], found["chance"] = constant_score(labels, cell.metric), chance_score(labels, cell.metric)
    if (of_boundary := cell.boundary()) is not None:
        found["boundary"] = float(mean_over_classes(boundary_iou(of_boundary.sum(0))))
    if cell.counted == cell.total:
        found["scenes"] = by_scene(images, cell.scenes, cell.metric)
        found["interval"] = interval(found["scenes"])
    return found


def rounded(value: float | None, digits: int = 4, scale: float = 100) -> float | None:
    """Return a fraction in per cent for files and pages; None where there is no number."""
    return None if value is None or math.isnan(value) else round(scale * float(value), digits)
