"""How far a score would move with other scenes of the same kind: the jackknife that leaves out one scene.

mIoU is a ratio of sums and no mean over images, so it has no closed-form error. It is computed once without each
scene (images that are not independent, such as the tiles of one photograph); the spread of these numbers is the
standard error (Tukey 1958). Student's t makes an interval of it, with Satterthwaite's degrees of freedom: a few large
scenes tell less than as many equal ones (Bell & McCaffrey 2002). The interval is centred at the score that is printed.
`python -m bench verify statistics` measures how often it holds the truth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from bench.metrics import Areas, Floats, Ints, label_area, predicted_area, score

Unit: TypeAlias = Literal["scene", "image"]

LEAST = 6  # scenes: fewer give no interval and no p-value, for with five no test can reach 0.05
FEW = 14  # scenes: an interval over fewer is marked


@dataclass(frozen=True, eq=False)
class Scenes:
    """Counts of one row on one dataset, added up within each scene, and the metric that judges them.

    areas: (S), int64. unit: "scene", or "image" where a scene is unknown; then intervals are optimistic, because
    neighbouring tiles count as independent. metric: a key of bench.metrics.METRICS.
    """

    areas: Areas
    unit: Unit
    metric: str

    def __len__(self) -> int:
        return len(self.areas.stack)

    @property
    def flat(self) -> Floats:
        """Areas as (S, 3 * K): whole numbers below 2**53, so sums of them stay exact."""
        return self.areas.stack.reshape(len(self), -1).astype(np.float64)

    @property
    def label_counts(self) -> Ints:
        """Pixels (S, K + 1) of each label, out of range last: equal for all rows counted on the same images."""
        labelled, all_pixels = label_area(self.areas), predicted_area(self.areas).sum(-1, keepdims=True)
        beyond = np.maximum(all_pixels - labelled.sum(-1, keepdims=True), 0)  # 0 where pixels were given no class
        counts: Ints = np.concatenate([labelled, beyond], axis=-1)
        return counts

    @property
    def score(self) -> float:
        """The score of all scenes together."""
        return float(score(self.areas.total, self.metric))

    def scores_of(self, sums: Floats) -> Floats:
        """Scores (b,) of sums (b, 3 * K) over some of the lines of `flat`."""
        return score(Areas(sums.reshape(len(sums), 3, -1)), self.metric)


def by_scene(images: Areas, scenes: Sequence[str | None], metric: str) -> Scenes:
    """Add up the areas of N images by the N scene names; in order of first appearance.

    An image without a name (None) is a separate unit, and the unit is "scene" only if every image has a name.

    >>> images = Areas(np.ones((3, 3, 2), int))
    >>> by_scene(images, ["a", "b", "a"], "miou").areas.stack[:, 0].tolist()
    [[2, 2], [1, 1]]
    """
    if len(scenes) != len(images.stack):
        raise ValueError(f"{len(images.stack)} images, {len(scenes)} scene names")
    places: dict[str | int, int] = {}
    place = [places.setdefault(image if name is None else name, len(places)) for image, name in enumerate(scenes)]
    total = np.zeros((len(places), *images.stack.shape[1:]), np.int64)
    np.add.at(total, place, images.stack)
    return Scenes(Areas(total), "image" if None in scenes else "scene", metric)


def units(count: int, unit: Unit) -> str:
    """Say a number of scenes or images in words.

    >>> units(3, "scene"), units(1, "image")
    ('3 scenes', '1 image')
    """
    return f"{count:,} {unit}{'' if count == 1 else 's'}"


@dataclass(frozen=True)
class Interval:
    """A number with its standard error and 95 % interval; fractions 0..1, of a difference -1..1.

    standard_error: nan for one scene, and where the number is undefined without one of them. scenes: how many units
    there are, of all datasets together. lowest: the least value that the number can have, 0 or -1.
    """

    estimate: float
    standard_error: float
    degrees: float
    unit: Unit
    scenes: int
    lowest: float = 0.0

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval; nan for fewer than LEAST scenes."""
        return max(self.lowest, self.estimate - self._half) if self.known else math.nan

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval; nan for fewer than LEAST scenes."""
        return min(1.0, self.estimate + self._half) if self.known else math.nan

    @property
    def known(self) -> bool:
        """True where there is an interval."""
        return self.scenes >= LEAST and not math.isnan(self.standard_error)

    @property
    def sample(self) -> str:
        """Number of scenes, marked where these are few or too few: "8 scenes: few"."""
        mark = ": no interval" if self.scenes < LEAST else ": few" if self.scenes < FEW else ""
        return units(self.scenes, self.unit) + mark

    @property
    def effect(self) -> float:
        """Standardised effect size: the estimate over its deviation between scenes; nan without an interval."""
        spread = self.standard_error * math.sqrt(self.scenes)
        return self.estimate / spread if self.known and spread > 0 else math.nan

    @property
    def _half(self) -> float:
        from scipy.special import stdtrit  # Student's t: many times as fast as scipy.stats.t.ppf

        return float(stdtrit(self.degrees, 0.975)) * self.standard_error


def interval(first: Scenes, second: Scenes | None = None) -> Interval:
    """Interval of a row's score, or of first - second, for other scenes of the same kind.

    Of two rows the same scene is left out of both, so what makes it hard for both cancels out. Raises ValueError when
    they were not counted on the same images in the same order.

    >>> right = np.array([[[n, 10 - n], [10, 10], [10, 10]] for n in range(6)])
    >>> found = interval(by_scene(Areas(right), list("abcdef"), "aacc"))
    >>> f"{found.estimate:.2f}, {found.low:.2f} to {found.high:.2f}"
    '0.50, 0.50 to 0.50'
    """
    estimate, without, scenes = first.score, _without_each(first), len(first)
    if second is not None:
        check_paired(first, second)
        estimate, without = estimate - second.score, without - _without_each(second)
    error = math.sqrt((scenes - 1) / scenes * float(((without - without.mean()) ** 2).sum()))
    return Interval(
        estimate=estimate,
        standard_error=error if scenes > 1 else math.nan,
        degrees=_degrees(first.label_counts[:, :-1].sum(-1)),
        unit=first.unit,
        scenes=scenes,
        lowest=0.0 if second is None else -1.0,
    )


def _without_each(row: Scenes) -> Floats:
    flat = row.flat
    return row.scores_of(flat.sum(0) - flat)


def _degrees(sizes: Ints) -> float:
    """Satterthwaite's degrees of freedom of a variance over scenes of these sizes; S - 1 for equal ones."""
    scenes, weights = len(sizes), sizes.astype(np.float64) ** 2
    total = float(weights.sum())
    if scenes < 2 or not total:
        return 1.0
    spread = (1 - 2 / scenes) * float((weights**2).sum()) + total**2 / scenes**2
    return max(1.0, ((1 - 1 / scenes) * total) ** 2 / spread)


def check_paired(first: Scenes, second: Scenes) -> None:
    """Raise ValueError when two rows were not counted on the same images in the same order.

    >>> row = by_scene(Areas(np.ones((2, 3, 2), int)), ["a", "b"], "miou")
    >>> check_paired(row, row)
    """
    if first.metric != second.metric or not np.array_equal(first.label_counts, second.label_counts):
        raise ValueError("the two rows were not counted on the same images in the same order")


def average(parts: Sequence[Interval]) -> Interval:
    """Interval of the mean of several numbers, one per dataset: a row's scores, or the differences of two rows.

    Datasets are independent, so their variances add up; Satterthwaite's formula gives the degrees of freedom. The unit
    is "scene" only if it is so in every part. Raises ValueError for no parts.

    >>> parts = [Interval(0.2, 0.03, 9, "scene", 10), Interval(0.4, 0.04, 9, "scene", 10)]
    >>> mean = average(parts)
    >>> f"{mean.estimate:.2f} ± {mean.standard_error:.3f}, {mean.scenes} scenes"
    '0.30 ± 0.025, 20 scenes'
    """
    if not parts:
        raise ValueError("no average of nothing")
    variances = np.array([part.standard_error**2 for part in parts])
    degrees = np.array([part.degrees for part in parts])
    total = float(variances.sum())
    return Interval(
        estimate=float(np.mean([part.estimate for part in parts])),
        standard_error=math.sqrt(total) / len(parts),
        degrees=total**2 / float((variances**2 / degrees).sum()) if total else float(degrees.sum()),
        unit="scene" if all(part.unit == "scene" for part in parts) else "image",
        scenes=sum(part.scenes for part in parts),
        lowest=min(part.lowest for part in parts),
    )


def scenes_needed(difference: float, seen: Interval, power: float = 0.8) -> int | None:
    """Estimate how many scenes a two-sided 5 % test needs for a difference in 80 % of the cases; None where unknown.

    From the standard error of the paired difference that was `seen`: with few scenes this is a rough number.

    >>> scenes_needed(0.01, Interval(0.02, 0.01, 9, "scene", 10))
    81
    """
    from scipy.special import stdtrit

    error, scenes = seen.standard_error / difference, math.inf
    if math.isnan(error):
        return None
    for _ in range(50):
        degrees = max(scenes - 1, 1.5)
        scenes = seen.scenes * float((stdtrit(degrees, 0.975) + stdtrit(degrees, power)) * error) ** 2
    return max(LEAST, math.ceil(scenes))


def improvement(first: Scenes, second: Scenes) -> float:
    """Share of the scenes on which the first row scores higher, equal ones as halves; nan where none has a score.

    >>> row = by_scene(Areas(np.ones((2, 3, 2), int)), ["a", "b"], "miou")
    >>> improvement(row, row)
    0.5
    """
    gains = first.scores_of(first.flat) - second.scores_of(second.flat)
    gains = gains[~np.isnan(gains)]
    return float(((gains > 0) + 0.5 * (gains == 0)).mean()) if gains.size else math.nan


def blind_spots(row: Scenes, classes: Sequence[str]) -> list[str]:
    """Classes by which an interval cannot see how far the score would move with other scenes, a phrase each kind.

    >>> row = by_scene(Areas(np.array([[[1, 0], [1, 0], [1, 2]]])), ["a"], "miou")
    >>> blind_spots(row, ["road", "water"])
    ['labelled in one scene only: road', 'predicted but labelled nowhere (IoU 0): water']
    """
    scenes = (label_area(row.areas) > 0).sum(0)
    predicted = predicted_area(row.areas).sum(0) > 0
    kinds = {
        f"labelled in one {row.unit} only": scenes == 1,
        "predicted but labelled nowhere (IoU 0)": (scenes == 0) & predicted,
    }
    return [f"{kind}: {', '.join(np.array(classes)[of])}" for kind, of in kinds.items() if of.any()]
