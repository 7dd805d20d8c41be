"""Tests of whether one row is better than another.

Two rows on one dataset, or averaged over several: `permutation_tests`. Many pairs of rows: `holm` over their p-values,
and `ahead`. Datasets to come: `wilcoxon`, `mean_ranks`. Intervals come from bench.metrics.intervals.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.metrics import Floats
from bench.metrics.intervals import LEAST, Scenes, Unit, check_paired

PERMUTATIONS = 20_000
"""Nine rows on 17 datasets are 612 pairs, and Holm's correction of so many needs p-values below 0.00008."""
_CHUNK = 1 << 21  # swaps, or pixel counts, at once; 16 MiB as float64


@dataclass(frozen=True)
class PermutationTest:
    """Paired test of two rows on one dataset, or of their mean difference over several.

    difference: first - second, a fraction. p_value: two-sided; nan for fewer than LEAST scenes. permutations: how many
    were tried; exact: whether those were all there are. scenes: how many units were swapped, of all datasets together.
    """

    difference: float
    p_value: float
    permutations: int
    exact: bool
    unit: Unit
    scenes: int

    @property
    def least(self) -> float:
        """The smallest p-value that any two rows could have here."""
        return 2 / self.permutations if self.exact else 1 / (self.permutations + 1)


def permutation_test(
    first: Sequence[Scenes],
    second: Sequence[Scenes],
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> PermutationTest:
    """Test two rows, counted on one dataset or several; see `permutation_tests`.

    >>> from bench.metrics.intervals import Areas, by_scene
    >>> right = np.full((6, 1, 2), 8), np.full((6, 1, 2), 5)
    >>> rows = [Areas(np.concatenate([of, np.full((6, 2, 2), 10)], axis=1)) for of in right]
    >>> first, second = (by_scene(row, list("abcdef"), "aacc") for row in rows)
    >>> found = permutation_test([first], [second])
    >>> f"{found.difference:.1f}", found.p_value, found.exact
    ('0.3', 0.03125, True)
    """
    datasets = [{"first": one, "second": other} for one, other in zip(first, second, strict=True)]
    return permutation_tests(datasets, [("first", "second")], permutations, seed)[0]


def permutation_tests(
    datasets: Sequence[Mapping[str, Scenes]],
    pairs: Sequence[tuple[str, str]],
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> list[PermutationTest]:
    """Test pairs of rows: how often does chance alone, deciding which row predicted what, give as large a difference.

    Each permutation swaps the two rows' counts of every scene of every dataset with probability 1/2, recomputes the
    scores from the sums, and averages their differences over the datasets. Where there are few scenes
    (2**S <= permutations) all swaps are tried. p is never 0: the observed assignment is among those counted.

    datasets: row -> counts, of each dataset. A pair's result depends on its two rows and the seed, neither on the
    other pairs nor on the order of rows and datasets: every output prints the same p. Raises ValueError when rows of a
    dataset were not counted on the same images in the same order.

    >>> permutation_tests([{}], pairs=[])
    []
    """
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    if not names:
        return []
    stacks = [_Stack(rows, names) for rows in datasets]
    sizes = [stack.scenes for stack in stacks]
    chunk = max(1, _CHUNK // max(max(stack.flat.shape) for stack in stacks))
    exact = 2 ** sum(sizes) <= permutations
    tried = 2 ** sum(sizes) if exact else permutations

    def differences(swaps: Sequence[Floats]) -> Floats:
        """Mean differences (pairs, b) when the scenes with swap 1, (b, S) of each dataset, change sides."""
        parts = (stack.differences(pairs, swap) for stack, swap in zip(stacks, swaps, strict=True))
        mean: Floats = sum(parts, np.float64(0)) / len(stacks)
        return mean

    observed = differences([np.zeros((1, size)) for size in sizes])
    least = np.abs(observed) - 1e-12  # equal differences from other scenes may be rounded otherwise
    found: Sequence[float] = [math.nan] * len(pairs)
    if sum(sizes) >= LEAST:
        swaps = _all_swaps(sizes, chunk) if exact else _random_swaps(stacks, permutations, chunk, seed)
        extreme = sum((np.abs(differences(swap)) >= least).sum(1) for swap in swaps)
        itself = 0 if exact else 1  # all swaps include the observed assignment, random ones need not
        found = np.where(np.isnan(observed[:, 0]), np.nan, (extreme + itself) / (tried + itself)).tolist()
    unit: Unit = "scene" if all(stack.unit == "scene" for stack in stacks) else "image"
    return [
        PermutationTest(float(difference), p, tried, exact, unit, sum(sizes))
        for difference, p in zip(observed[:, 0], found, strict=True)
    ]


def tests_of_rows(
    rows: Mapping[str, Sequence[Scenes]],
    pairs: Sequence[tuple[str, str]],
    permutations: int = PERMUTATIONS,
) -> dict[tuple[str, str], float]:
    """p-value of each pair of rows that were counted on the same images; rows: counts, one for each dataset.

    >>> from bench.metrics.intervals import Areas, by_scene
    >>> rows = {name: [by_scene(Areas(np.ones((6, 3, 2), int)), list("abcdef"), "miou")] for name in ("clip", "gem")}
    >>> tests_of_rows(rows, [("clip", "gem")])
    {('clip', 'gem'): 1.0}
    """
    groups: dict[tuple[tuple[str, bytes], ...], list[str]] = {}
    for row in dict.fromkeys(row for pair in pairs for row in pair):
        images = tuple((scenes.metric, scenes.label_counts.tobytes()) for scenes in rows[row])
        groups.setdefault(images, []).append(row)
    found: dict[tuple[str, str], float] = {}
    for names in groups.values():
        datasets = [dict(zip(names, scenes, strict=True)) for scenes in zip(*(rows[row] for row in names), strict=True)]
        inside = [pair for pair in pairs if pair[0] in names and pair[1] in names]
        tests = permutation_tests(datasets, inside, permutations)
        found |= {pair: test.p_value for pair, test in zip(inside, tests, strict=True)}
    return found


class _Stack:
    """Counts of several rows on one dataset, side by side, so that a swap of scenes is added up once for all pairs."""

    def __init__(self, rows: Mapping[str, Scenes], names: Sequence[str]) -> None:
        self.first = rows[names[0]]
        for name in names[1:]:
            check_paired(self.first, rows[name])
        self.places = {name: place for place, name in enumerate(names)}
        self.flat = np.concatenate([rows[name].flat for name in names], axis=1)  # (S, rows * 3 * K)
        self.totals = self.flat.sum(0).reshape(len(names), -1)
        self.scenes, self.unit = len(self.first), self.first.unit
        self.stream = zlib.crc32(self.first.label_counts.tobytes())

    def differences(self, pairs: Sequence[tuple[str, str]], swap: Floats) -> Floats:
        """Differences (pairs, b) when the scenes with swap 1 (b, S) change sides."""
        swapped = (swap @ self.flat).reshape(len(swap), *self.totals.shape)
        found = []
        for first, second in ((self.places[one], self.places[other]) for one, other in pairs):
            change = swapped[:, second] - swapped[:, first]
            score = self.first.scores_of
            found.append(score(self.totals[first] + change) - score(self.totals[second] - change))
        return np.stack(found)


def _all_swaps(sizes: Sequence[int], chunk: int) -> Iterator[list[Floats]]:
    """Yield all ways to let scenes change sides (1) or stay (0): (up to chunk, S) of each dataset."""
    scenes = sum(sizes)
    for start in range(0, 2**scenes, chunk):
        number = np.arange(start, min(start + chunk, 2**scenes))
        swaps = (number[:, None] >> np.arange(scenes) & 1).astype(np.float64)
        yield np.split(swaps, np.cumsum(sizes)[:-1], axis=1)


def _random_swaps(stacks: Sequence[_Stack], permutations: int, chunk: int, seed: int) -> Iterator[list[Floats]]:
    """Yield as many random ways as `permutations`; a dataset's depend on the seed and its labels alone."""
    seen: Counter[int] = Counter()
    generators = []
    for stack in stacks:
        generators.append(np.random.default_rng((seed, stack.stream, seen[stack.stream])))
        seen[stack.stream] += 1
    for start in range(0, permutations, chunk):
        rows = min(chunk, permutations - start)
        yield [_bits(generator, rows, stack.scenes) for generator, stack in zip(generators, stacks, strict=True)]


def _bits(generator: np.random.Generator, rows: int, scenes: int) -> Floats:
    """Random zeros and ones (rows, scenes); each row takes whole words, so that chunks do not change them."""
    words = generator.integers(2**64, size=(rows, -(-scenes // 64)), dtype=np.uint64).astype("<u8")
    return np.unpackbits(words.view(np.uint8), axis=1, count=scenes).astype(np.float64)


def holm(p_values: Sequence[float], among: int = 0) -> Floats:
    """Adjust p-values of a family of tests, in the order given (Holm 1979); reject where one is <= alpha.

    Controls the chance of any false rejection in the family, whatever the dependence between the tests. nan stays nan
    and belongs to no family. among: how many tests the family has, where more were looked at than are given; then the
    result is never smaller than that of the whole family.

    >>> holm([0.01, 0.04, np.nan, 0.03]).round(2).tolist()
    [0.03, 0.06, nan, 0.06]
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p)  # nan last
    family = max(among, int(np.count_nonzero(~np.isnan(p))))
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(family, family - len(p), -1))
    return np.minimum(adjusted, 1.0)


def ahead(
    scores: Mapping[str, float], adjusted: Mapping[tuple[str, str], float], level: float = 0.05
) -> dict[str, list[str]]:
    """Return the rows that each row is ahead of, by the tests of pairs of rows.

    adjusted: (row, row) -> p-value by Holm; a pair without one is undecided. The rank of a row of n is from 1 + those
    ahead of it to n - those that it is ahead of: all true ranks are in these ranges with a probability of 1 - level
    (Mogstad et al. 2024).

    >>> ahead({"clip": 0.2, "gem": 0.3, "sclip": 0.4}, {("clip", "sclip"): 0.01})
    {'clip': [], 'gem': [], 'sclip': ['clip']}
    """
    apart = {frozenset(pair) for pair, p in adjusted.items() if p <= level}
    return {
        row: [other for other in scores if scores[other] < value and frozenset((row, other)) in apart]
        for row, value in scores.items()
    }


@dataclass(frozen=True)
class Wilcoxon:
    """Signed-rank test of two rows over datasets; the difference is first - second, the p-value two-sided.

    p_value: nan for fewer than LEAST datasets, which cannot reach 0.05.
    """

    datasets: int
    wins: int
    losses: int
    median_difference: float
    p_value: float


def wilcoxon(first: Sequence[float], second: Sequence[float]) -> Wilcoxon:
    """Test whether one row tends to win, also on datasets to come: one score of each per dataset, in the same order.

    Datasets on which the two are equal carry no information and are left out of the test; if there are no
    others, p is 1. Raises ValueError for sequences of unequal length, for none, and for nan.

    >>> found = wilcoxon([0.2, 0.3, 0.4, 0.5, 0.6, 0.7], [0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
    >>> found.wins, found.losses, found.p_value
    (6, 0, 0.03125)
    """
    from scipy import stats

    difference = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    if not difference.size or np.isnan(difference).any():
        raise ValueError("Wilcoxon's test needs a score of both rows on each dataset, and one dataset at least")
    unequal = difference[difference != 0]
    p_value = float(stats.wilcoxon(unequal).pvalue) if unequal.size else 1.0
    return Wilcoxon(
        datasets=len(difference),
        wins=int((difference > 0).sum()),
        losses=int((difference < 0).sum()),
        median_difference=float(np.median(difference)),
        p_value=p_value if len(difference) >= LEAST else math.nan,
    )


@dataclass(frozen=True)
class MeanRanks:
    """Mean rank of each row over datasets, 1 is best.

    ranges: the least and the greatest mean rank when one dataset is left out. p_value: Friedman's test that the rows
    rank alike; nan for fewer than three rows. critical: Nemenyi's difference of mean ranks (Demšar, JMLR 2006, section
    3.2.2); None where Friedman's test finds nothing, for then no pair is decided.
    """

    ranks: dict[str, float]
    ranges: dict[str, tuple[float, float]]
    datasets: int
    p_value: float
    critical: float | None


def mean_ranks(values: Mapping[str, Sequence[float]], level: float = 0.05) -> MeanRanks | None:
    """Mean ranks of rows with scores on the same datasets; None for fewer than two rows or datasets.

    >>> mean_ranks({"clip": [0.1, 0.4], "gem": [0.2, 0.3], "sclip": [0.3, 0.5]}).ranks
    {'clip': 2.5, 'gem': 2.5, 'sclip': 1.0}
    """
    from scipy.stats import friedmanchisquare, rankdata, studentized_range

    table = np.array(list(values.values()), float)  # (rows, datasets)
    if table.ndim != 2 or min(table.shape) < 2:
        return None
    ranks = rankdata(-table, axis=0)
    rows, datasets = table.shape
    without = (ranks.sum(1, keepdims=True) - ranks) / (datasets - 1)  # column d: dataset d left out
    varied = rows > 2 and bool((ranks != ranks[:1]).any())
    p_value = float(friedmanchisquare(*table).pvalue) if varied else math.nan
    quantile = float(studentized_range.ppf(1 - level, rows, np.inf)) / math.sqrt(2)
    critical = quantile * math.sqrt(rows * (rows + 1) / (6 * datasets))
    return MeanRanks(
        ranks=dict(zip(values, ranks.mean(1).tolist(), strict=True)),
        ranges=dict(zip(values, zip(without.min(1).tolist(), without.max(1).tolist(), strict=True), strict=True)),
        datasets=datasets,
        p_value=p_value,
        critical=critical if p_value <= level else None,
    )
