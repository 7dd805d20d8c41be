"""Two rows against each other: the same images, dataset by dataset, and over datasets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from bench.config import load_config
from bench.data.cards import card_names
from bench.errors import BenchError, check_known, did_you_mean
from bench.metrics.intervals import Interval, Scenes, average, blind_spots, improvement, interval
from bench.metrics.significance import PERMUTATIONS, PermutationTest, Wilcoxon, holm, permutation_test, wilcoxon
from bench.paths import demo_hint
from bench.report.breakdown import Breakdown, breakdown
from bench.report.scores import Score, scores_of
from bench.store.result import StoredResult
from bench.store.store import Store

Scores: TypeAlias = Mapping[tuple[str, str], Score]  # by row and dataset


@dataclass(frozen=True)
class Pair:
    """Two rows on one dataset.

    first, second: their scores, as fractions.
    interval: of first - second.
    adjusted: the test's p-value, by Holm over all pairs of rows and datasets that are shown.
    improvement: share of the scenes on which the first is ahead.
    blind_spots: what the interval cannot see.
    cells: what is stored of both.
    """

    dataset: str
    metric: str
    images: int
    first: float
    second: float
    interval: Interval
    test: PermutationTest
    improvement: float
    blind_spots: tuple[str, ...]
    scenes: tuple[Scenes, Scenes]
    cells: tuple[StoredResult, StoredResult]
    adjusted: float = math.nan

    @property
    def breakdown(self) -> Breakdown:
        """Where the difference comes from: by class, by image, and which confusion changed."""
        return breakdown(*self.cells)


@dataclass(frozen=True)
class OverDatasets:
    """Mean difference over the datasets of a comparison, and whether the first row tends to win.

    interval, test: about these datasets, the scenes of all swapped at once.
    adjusted: by Holm over the rows that are shown.
    wilcoxon: about datasets to come.
    """

    interval: Interval
    test: PermutationTest
    wilcoxon: Wilcoxon
    adjusted: float


@dataclass(frozen=True, repr=False)
class Comparison:
    """Two stored rows on all datasets that both have; printed, it is the text of ``python -m bench compare``.

    pairs: one for each dataset.
    left_out: dataset -> why.
    over_datasets: None for no pair.
    demo: no real data.
    family: over how many tests of single datasets Holm's correction goes.
    """

    first: str
    second: str
    pairs: list[Pair]
    left_out: dict[str, str]
    over_datasets: OverDatasets | None
    demo: bool
    family: int = 0

    def __repr__(self) -> str:
        from bench.report.comparison_text import markdown

        return markdown(self)


def compare(
    store: Store,
    first: str,
    second: str,
    datasets: Sequence[str] | None = None,
    permutations: int = PERMUTATIONS,
    scores: Scores | None = None,
) -> Comparison:
    """Return the paired differences first - second of two stored rows, on these datasets or all that hold one of them.

    Each cell is scored at its own threshold; one that may not be ranked is left out with what its verdict says.
    scores: of `scores_of`, where they are known.
    Raises BenchError for a row of which nothing is stored.
    """
    found = scores_of(store, load_config(), datasets=datasets) if scores is None else scores
    return _adjusted([_compared(store, found, first, second, datasets, permutations)])[0]


def against_all(
    store: Store,
    row: str,
    datasets: Sequence[str] | None = None,
    permutations: int = PERMUTATIONS,
    scores: Scores | None = None,
) -> list[Comparison]:
    """Compare a stored row with each other one that shares a dataset with it.

    Raises BenchError as `compare` does.
    """
    known = scores_of(store, load_config(), datasets=datasets) if scores is None else scores
    others = list(dict.fromkeys(name for name, _ in known if name != row))
    found = [_compared(store, known, row, other, datasets, permutations) for other in others]
    found = [one for one in found if one.pairs]
    if not found:
        compare(store, row, row, datasets, scores=known)  # says so where nothing is stored of the row
        raise BenchError(f"{store.folder}: no other row shares a dataset with '{row}'; run others first")
    return _adjusted(found)


def _compared(
    store: Store, scores: Scores, first: str, second: str, datasets: Sequence[str] | None, permutations: int
) -> Comparison:
    cells = store.cells()
    for name in datasets or ():
        known_datasets = {*card_names(), *(cell.dataset for cell in cells)}
        check_known(name, known_datasets, f"--datasets: nothing is stored on '{name}' in {store.folder}")
    rows = {cell.row for cell in cells}
    for row in (first, second):
        if row not in rows:
            hint = did_you_mean(row, rows) + demo_hint(store.folder)
            raise BenchError(f"nothing is stored of row '{row}' in {store.folder}; {hint}")
    known = dict.fromkeys(dataset for row, dataset in scores if row in (first, second))
    pairs, left_out = [], {}
    for dataset in datasets or known:
        outcome = _pair(dataset, scores.get((first, dataset)), scores.get((second, dataset)), permutations)
        if isinstance(outcome, Pair):
            pairs.append(outcome)
        else:
            left_out[dataset] = outcome
    demo = any(score.verdict.demo for score in scores.values())
    return Comparison(first, second, pairs, left_out, _over_datasets(pairs, permutations), demo)


def _over_datasets(pairs: Sequence[Pair], permutations: int) -> OverDatasets | None:
    if not pairs:
        return None
    scenes = [pair.scenes[0] for pair in pairs], [pair.scenes[1] for pair in pairs]
    return OverDatasets(
        interval=average([pair.interval for pair in pairs]),
        test=permutation_test(*scenes, permutations),
        wilcoxon=wilcoxon([pair.first for pair in pairs], [pair.second for pair in pairs]),
        adjusted=math.nan,
    )


def _adjusted(found: Sequence[Comparison]) -> list[Comparison]:
    """Correct the p-values by Holm: one family of all rows and datasets, and one of all rows' means."""
    tests = [pair.test.p_value for one in found for pair in one.pairs]
    single = iter(holm(tests).tolist())
    means = iter(holm([one.over_datasets.test.p_value for one in found if one.over_datasets]).tolist())
    return [
        replace(
            one,
            pairs=[replace(pair, adjusted=next(single)) for pair in one.pairs],
            over_datasets=one.over_datasets and replace(one.over_datasets, adjusted=next(means)),
            family=int(np.count_nonzero(~np.isnan(tests))),
        )
        for one in found
    ]


def _pair(dataset: str, first: Score | None, second: Score | None, permutations: int) -> Pair | str:
    """Return the paired numbers of one dataset, or why there are none."""
    barred = [f"{score.row}: {score.verdict.words}" for score in (first, second) if score and not score.complete]
    if barred:
        return "; ".join(dict.fromkeys(barred))
    if first is None or second is None or first.scenes is None or second.scenes is None:
        return "not stored for both rows"
    assert first.cell is not None and second.cell is not None  # for they have scenes
    ours, theirs = first.scenes, second.scenes
    if first.metric != second.metric:
        return f"scored by {first.metric} and by {second.metric}"
    if math.isnan(ours.score - theirs.score):
        return "a score is undefined: no pixel of any class"
    spots = dict.fromkeys(spot for scenes in (ours, theirs) for spot in blind_spots(scenes, first.classes))
    return Pair(
        dataset=dataset,
        metric=first.metric,
        images=first.verdict.counted,
        first=ours.score,
        second=theirs.score,
        interval=interval(ours, theirs),
        test=permutation_test([ours], [theirs], permutations),
        improvement=improvement(ours, theirs),
        blind_spots=tuple(spots),
        scenes=(ours, theirs),
        cells=(first.cell, second.cell),
    )
