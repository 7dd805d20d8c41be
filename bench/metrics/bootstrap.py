"""How far a score would move with other images of the same kind: the bootstrap over scenes.

mIoU is no mean over images, so it has no closed-form error. Scenes (groups of images that are not
independent, such as the tiles of one aerial photograph) are drawn with replacement, their counts
added, and the metric taken of the sum; the spread of many such draws is the spread of the score. The standard
error is the standard deviation of the draws as it is: it does not shrink with their number.

The weights of a draw depend on the seed and on the labels of the images alone, never on predictions: two rows
counted on the same images are resampled together, so that their draws can be subtracted; two datasets are
resampled independently.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from bench.metrics import Areas, Floats, Ints, label_area, predicted_area, score

Unit: TypeAlias = Literal["scene", "image"]

_CHUNK = 1 << 21  # weights, or pixel counts, at once; 16 MiB as float64


@dataclass(frozen=True, eq=False)
class Scenes:
    """Counts of one row on one dataset, added up within each unit of resampling.

    areas: (S), int64. unit: "scene", or "image" where a scene is unknown; then intervals are
    optimistic, because neighbouring tiles count as independent.
    """

    areas: Areas
    unit: Unit

    def __len__(self) -> int:
        return len(self.areas.stack)

    @property
    def flat(self) -> Floats:
        """(S, 3 * K): whole numbers below 2**53, so sums of them stay exact."""
        return self.areas.stack.reshape(len(self), -1).astype(np.float64)

    @property
    def label_counts(self) -> Ints:
        """(S, K + 1) pixels of each label, out of range last: the same for every row counted on the same images."""
        labelled, all_pixels = label_area(self.areas), predicted_area(self.areas).sum(-1, keepdims=True)
        counts: Ints = np.concatenate([labelled, all_pixels - labelled.sum(-1, keepdims=True)], axis=-1)
        return counts


def areas_from(sums: Floats) -> Areas:
    """Weighted sums (b, 3 * K) of `Scenes.flat` as areas (b)."""
    return Areas(sums.reshape(len(sums), 3, -1))


def by_scene(images: Areas, scenes: Sequence[str | None]) -> Scenes:
    """Add up the areas of N images by the N scene names; in order of first appearance.

    An image without a name (None) is a unit of its own, and the unit is "scene" only if every image has a
    name.
    """
    if len(scenes) != len(images.stack):
        raise ValueError(f"{len(images.stack)} images, {len(scenes)} scene names")
    places: dict[str | int, int] = {}
    place = [places.setdefault(image if name is None else name, len(places)) for image, name in enumerate(scenes)]
    total = np.zeros((len(places), *images.stack.shape[1:]), np.int64)
    np.add.at(total, place, images.stack)
    return Scenes(Areas(total), "image" if None in scenes else "scene")


@dataclass(frozen=True)
class Interval:
    """A number and its percentile interval; fractions 0..1, of a difference -1..1.

    low and high are nan where there are fewer than two units to draw from. clusters: how many units (scenes
    or images).
    """

    estimate: float
    low: float
    high: float
    standard_error: float
    level: float
    draws: int
    unit: Unit
    clusters: int


@dataclass(frozen=True, eq=False)
class Draws:
    """Bootstrap distribution of a number. values: (B,) float64, nan where the metric of a draw is 0/0.

    resample: names the weights; draws of equal `resample` belong together draw by draw.
    """

    estimate: float
    values: Floats
    unit: Unit
    clusters: int
    resample: tuple[int, ...]

    def interval(self, level: float = 0.95) -> Interval:
        """Percentile interval over the draws in which the number is defined."""
        defined = self.values[~np.isnan(self.values)]
        low = high = error = float("nan")
        if defined.size > 1:
            low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2]).tolist()
            error = float(defined.std(ddof=1))
        return Interval(self.estimate, low, high, error, level, defined.size, self.unit, self.clusters)


def bootstrap(scenes: Scenes, metric: str, draws: int = 10_000, seed: int = 0) -> Draws:
    """Draws of a metric (a key of bench.metrics.METRICS) of one row on one dataset.

    Deterministic in the arguments. All draws are nan when there is one unit only. Memory does not grow with
    the number of draws.
    """
    units, flat = len(scenes), scenes.flat
    estimate = float(score(scenes.areas.total, metric))
    stream = zlib.crc32(scenes.label_counts.tobytes())
    values = np.full(draws, np.nan)
    if units > 1:
        generator = np.random.default_rng((seed, stream))
        chunk = max(1, _CHUNK // max(flat.shape))
        values = np.concatenate(
            [score(areas_from(weights @ flat), metric) for weights in _weights(units, draws, chunk, generator)]
        )
    return Draws(estimate, values, scenes.unit, units, (seed, stream))


def _weights(units: int, draws: int, chunk: int, generator: np.random.Generator) -> Iterator[Floats]:
    """Multinomial weights (chunk, units), `draws` rows in all: how often each unit was drawn.

    Counting `units` uniform picks is several times as fast as Generator.multinomial with many categories.
    """
    for start in range(0, draws, chunk):
        rows = min(chunk, draws - start)
        picks = generator.integers(units, size=(rows, units)) + units * np.arange(rows)[:, None]
        yield np.bincount(picks.ravel(), minlength=rows * units).reshape(rows, units).astype(np.float64)


def average(parts: Sequence[Draws]) -> Draws:
    """Draws of the mean of several numbers, such as a row's scores over datasets.

    Each dataset was resampled on its own; draw b of the mean is the mean of their draws b. The unit is
    "scene" only if it is so in every part. Raises ValueError for no parts or unequal numbers of draws.
    """
    if not parts:
        raise ValueError("no average of nothing")
    return Draws(
        estimate=float(np.mean([part.estimate for part in parts])),
        values=np.mean([part.values for part in parts], axis=0),
        unit="scene" if all(part.unit == "scene" for part in parts) else "image",
        clusters=sum(part.clusters for part in parts),
        resample=tuple(number for part in parts for number in part.resample),
    )


def difference(first: Draws, second: Draws) -> Draws:
    """Draws of first - second, paired: the weights are the same, so what the two rows share cancels out.

    Raises ValueError when the two were not drawn together (other images, another order of images, another
    seed).
    """
    _check_paired([first, second])
    return Draws(
        estimate=first.estimate - second.estimate,
        values=first.values - second.values,
        unit=first.unit,
        clusters=first.clusters,
        resample=first.resample,
    )


@dataclass(frozen=True)
class RankInterval:
    """Rank of a row among others: 1 is best, equals share the better one; low..high: of the draws."""

    rank: int
    low: int
    high: int
    level: float


def rank_intervals(rows: Mapping[str, Draws], level: float = 0.95) -> dict[str, RankInterval]:
    """How firm a ranking is: the rows are ranked again in every draw.

    Raises ValueError for rows that were not drawn together, or of which one is undefined in every draw.
    """
    _check_paired(list(rows.values()))
    values = np.stack([row.values for row in rows.values()])  # (rows, B)
    values = values[:, ~np.isnan(values).any(axis=0)]
    if not values.shape[1]:
        raise ValueError("a row is undefined in every draw: no ranks")
    ranks = _ranks(values)
    quantiles = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(ranks, quantiles, axis=1, method="inverted_cdf")
    rank = _ranks(np.array([[row.estimate] for row in rows.values()]))[:, 0]
    return {name: RankInterval(int(rank[row]), int(low[row]), int(high[row]), level) for row, name in enumerate(rows)}


def _ranks(values: Floats) -> Ints:
    """1 + the number of rows that are better, of (rows, B) values within each column."""
    return np.stack([1 + (values > row).sum(axis=0) for row in values])


def _check_paired(rows: Sequence[Draws]) -> None:
    for row in rows[1:]:
        if row.resample != rows[0].resample or len(row.values) != len(rows[0].values):
            raise ValueError("not the same images, seed or number of draws: the draws are not paired")
