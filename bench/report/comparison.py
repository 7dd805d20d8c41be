"""Two rows against each other: the same images, dataset by dataset, and over datasets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bench.errors import BenchError, did_you_mean
from bench.metrics import Areas
from bench.metrics.bootstrap import Interval, Scenes, bootstrap, by_scene, difference
from bench.metrics.significance import PermutationTest, Wilcoxon, holm, permutation_test, wilcoxon
from bench.report.scores import DRAWS
from bench.store.result import StoredResult
from bench.store.store import Store

PERMUTATIONS = 10_000


@dataclass(frozen=True)
class Pair:
    """One dataset. first, second: scores, fractions. images of total were counted for both rows.

    interval: of first - second, paired bootstrap. adjusted: the test's p-value, by Holm over the datasets.
    """

    dataset: str
    metric: str
    images: int
    total: int
    first: float
    second: float
    interval: Interval
    test: PermutationTest
    adjusted: float


@dataclass(frozen=True)
class Comparison:
    """pairs: one a dataset. left_out: dataset -> why. over_datasets: None for no pair. demo: no real data."""

    first: str
    second: str
    pairs: list[Pair]
    left_out: dict[str, str]
    over_datasets: Wilcoxon | None
    demo: bool


def compare(
    store: Store, first: str, second: str, datasets: Sequence[str] | None = None, draws: int = DRAWS
) -> Comparison:
    """Paired differences first - second of two stored rows, on these datasets or all that hold one of them.

    Each cell is scored at its own threshold, on the images that both have. Raises BenchError for a row of
    which nothing is stored.
    """
    cells = {(cell.row, cell.dataset): cell for cell in store.cells()}
    for row in (first, second):
        if row not in {name for name, _ in cells}:
            hint = did_you_mean(row, {name for name, _ in cells})
            raise BenchError(f"nothing is stored of row '{row}' in {store.folder}; {hint}")
    known = dict.fromkeys(dataset for row, dataset in cells if row in (first, second))
    pairs, left_out = [], {}
    for dataset in datasets or known:
        outcome = _pair(dataset, cells.get((first, dataset)), cells.get((second, dataset)), draws)
        if isinstance(outcome, Pair):
            pairs.append(outcome)
        else:
            left_out[dataset] = outcome
    adjusted = holm([pair.test.p_value for pair in pairs])
    pairs = [replace(pair, adjusted=float(p)) for pair, p in zip(pairs, adjusted, strict=True)]
    summary = wilcoxon([pair.first for pair in pairs], [pair.second for pair in pairs]) if pairs else None
    demo = any(cell.record.demo for cell in cells.values())
    return Comparison(first, second, pairs, left_out, summary, demo)


def against_all(
    store: Store, row: str, datasets: Sequence[str] | None = None, draws: int = DRAWS
) -> list[tuple[Comparison, float]]:
    """A stored row against each other one that shares a dataset with it, and the p-values over datasets by Holm.

    The p-value is nan where there is no test over datasets. Raises BenchError as `compare` does.
    """
    others = list(dict.fromkeys(cell.row for cell in store.cells() if cell.row != row))
    found = [compare(store, row, other, datasets, draws) for other in others]
    found = [one for one in found if one.pairs]
    if not found:
        compare(store, row, row)  # says so where nothing is stored of the row
        raise BenchError(f"{store.folder}: no other row shares a dataset with '{row}'; run others first")
    tested = [one.over_datasets.p_value if one.over_datasets else float("nan") for one in found]
    known = [p for p in tested if not np.isnan(p)]
    adjusted = iter(holm(known)) if known else iter(())
    return [(one, float("nan") if np.isnan(p) else float(next(adjusted))) for one, p in zip(found, tested, strict=True)]


def _pair(dataset: str, first: StoredResult | None, second: StoredResult | None, draws: int) -> Pair | str:
    """The paired numbers of one dataset, or why there are none."""
    for cell in (first, second):
        if cell is not None and cell.status == "incomplete":
            return f"{cell.row}: incomplete ({cell.reason})"
        if cell is not None and not cell.counted:
            return f"{cell.row}: {cell.status}" + (f" ({cell.reason})" if cell.reason else "")
    if first is None or second is None:
        return "not stored for both rows"
    shared = sorted(set(first.indices) & set(second.indices))
    if not shared:
        return "no image was counted for both rows"
    ours, theirs = _scenes(first, shared), _scenes(second, shared)
    if first.metric != second.metric or not np.array_equal(ours.label_counts, theirs.label_counts):
        return "the two rows were not counted on the same images and labels"
    of_first, of_second = bootstrap(ours, first.metric, draws), bootstrap(theirs, first.metric, draws)
    if np.isnan(of_first.estimate - of_second.estimate):
        return "a score is undefined: no pixel of any class"
    return Pair(
        dataset=dataset,
        metric=first.metric,
        images=len(shared),
        total=max(first.total, second.total),
        first=of_first.estimate,
        second=of_second.estimate,
        interval=difference(of_first, of_second).interval(),
        test=permutation_test(ours, theirs, first.metric, PERMUTATIONS),
        adjusted=float("nan"),
    )


def _scenes(cell: StoredResult, indices: Sequence[int]) -> Scenes:
    """Counts of the images of these indices, by scene."""
    place = {index: line for line, index in enumerate(cell.indices)}
    lines = [place[index] for index in indices]
    scenes = cell.scenes
    return by_scene(Areas(cell.areas().stack[lines]), [scenes[line] for line in lines])
