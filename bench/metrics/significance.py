"""Is one row better than another, and does a score agree with the published one?

Two rows on one dataset: `permutation_test`. Many pairs of rows: `holm` over their p-values. Two rows over
datasets: `wilcoxon`. A published number: `verdict`. Intervals come from bench.metrics.bootstrap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench.metrics import Floats, score
from bench.metrics.bootstrap import Interval, Scenes, Unit, areas_from

_CHUNK = 1 << 21  # swaps, or pixel counts, at once; 16 MiB as float64


@dataclass(frozen=True)
class PermutationTest:
    """Paired test of two rows on one dataset.

    difference: first - second, a fraction. p_value: two-sided. permutations: how many were tried; exact:
    whether those were all there are. clusters: how many units (scenes or images) were swapped.
    """

    difference: float
    p_value: float
    permutations: int
    exact: bool
    unit: Unit
    clusters: int


def permutation_test(
    first: Scenes, second: Scenes, metric: str, permutations: int = 10_000, seed: int = 0
) -> PermutationTest:
    """How often would chance alone, deciding which row made which prediction, give as large a difference?

    Each permutation swaps the two rows' counts of every scene with probability 1/2 and recomputes both
    metrics from the sums. With few scenes (2**S <= permutations) all swaps are tried. p is never 0: the
    observed assignment is among those counted; it is nan where the difference is. Raises ValueError when the
    two rows were not counted on the same images in the same order.
    """
    if not np.array_equal(first.label_counts, second.label_counts):
        raise ValueError("the two rows were not counted on the same images in the same order")
    ours, theirs, units = first.flat, second.flat, len(first)
    totals, moved = (ours.sum(0), theirs.sum(0)), theirs - ours

    def difference(swap: Floats) -> Floats:
        """Difference of the metrics (b,) when the scenes with swap 1 (b, S) change sides."""
        change = swap @ moved
        return score(areas_from(totals[0] + change), metric) - score(areas_from(totals[1] - change), metric)

    exact = 2**units <= permutations
    tried = 2**units if exact else permutations
    observed = float(difference(np.zeros((1, units)))[0])
    least = abs(observed) - 1e-12  # equal differences from other scenes may be rounded otherwise
    chunk = max(1, _CHUNK // max(moved.shape))
    swaps = _all_swaps(units, chunk) if exact else _random_swaps(units, permutations, chunk, seed)
    extreme = sum(int((np.abs(difference(swap)) >= least).sum()) for swap in swaps)
    observed_too = 0 if exact else 1  # all swaps include the observed assignment, random ones need not
    p_value = (extreme + observed_too) / (tried + observed_too)
    if np.isnan(observed):
        p_value = float("nan")
    return PermutationTest(observed, p_value, tried, exact, first.unit, units)


def _all_swaps(units: int, chunk: int) -> Iterator[Floats]:
    """All 2**units ways to let units change sides (1) or stay (0), as arrays (up to chunk, units)."""
    for start in range(0, 2**units, chunk):
        number = np.arange(start, min(start + chunk, 2**units))
        yield (number[:, None] >> np.arange(units) & 1).astype(np.float64)


def _random_swaps(units: int, permutations: int, chunk: int, seed: int) -> Iterator[Floats]:
    """As many random ways as `permutations`."""
    generator = np.random.default_rng(seed)
    for start in range(0, permutations, chunk):
        rows = min(chunk, permutations - start)
        yield generator.integers(2, size=(rows, units), dtype=np.uint8).astype(np.float64)


def holm(p_values: Sequence[float]) -> Floats:
    """Adjusted p-values of a family of tests, in the order given (Holm 1979); reject where one is <= alpha.

    Controls the chance of any false rejection in the family, whatever the dependence between the tests.
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return np.minimum(adjusted, 1.0)


@dataclass(frozen=True)
class Wilcoxon:
    """Signed-rank test of two rows over datasets; the difference is first - second, the p-value two-sided."""

    datasets: int
    wins: int
    losses: int
    median_difference: float
    p_value: float


def wilcoxon(first: Sequence[float], second: Sequence[float]) -> Wilcoxon:
    """Does one row beat the other over datasets? One score of each row per dataset, in the same order.

    Datasets on which the two are equal carry no information and are left out of the test; if there are no
    others, p is 1. Raises ValueError for sequences of unequal length, for none, and for nan.
    """
    from scipy import stats

    difference = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    if not difference.size or np.isnan(difference).any():
        raise ValueError("Wilcoxon's test needs a score of both rows on each dataset, and one dataset at least")
    unequal = difference[difference != 0]
    return Wilcoxon(
        datasets=len(difference),
        wins=int((difference > 0).sum()),
        losses=int((difference < 0).sum()),
        median_difference=float(np.median(difference)),
        p_value=float(stats.wilcoxon(unequal).pvalue) if unequal.size else 1.0,
    )


@dataclass(frozen=True)
class Verdict:
    """A published number against ours; fractions.

    status: "inside" our interval, or "above" or "below": where *our* interval is, seen from the published number;
    "unknown" where we have no interval. difference: ours - published. off: signed gap between the published
    number and the nearer end of our interval, 0 inside, nan if unknown.
    """

    published: float
    difference: float
    status: Literal["inside", "above", "below", "unknown"]
    off: float

    def __str__(self) -> str:
        """For a table, in points: "inside", "off by +1.3", "no interval"."""
        if self.status == "unknown":
            return "no interval"
        return "inside" if self.status == "inside" else f"off by {100 * self.off:+.1f}"


def verdict(published: float, interval: Interval, rounding: float = 0.0005) -> Verdict:
    """Does our interval hold the published number, which was rounded by up to `rounding` (to 0.1 points)?"""
    difference = interval.estimate - published
    if np.isnan(interval.low):
        return Verdict(published, difference, "unknown", float("nan"))
    if interval.low - rounding > published:
        return Verdict(published, difference, "above", interval.low - published)
    if interval.high + rounding < published:
        return Verdict(published, difference, "below", interval.high - published)
    return Verdict(published, difference, "inside", 0.0)
