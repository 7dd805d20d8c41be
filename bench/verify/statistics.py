"""Simulated scenes that show how often intervals hold the truth and tests find a difference that is not there.

Two worlds of six classes. "easy": scenes of equal size that hold all classes. "hard": sizes are log-normal, two classes
are in one scene of eight each, and what makes a class hard differs between scenes. Two rows find the classes of a scene
with a common difficulty and separate luck, so they are equally good. The truth is the score of very many scenes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from bench.metrics import Areas, Floats
from bench.metrics.intervals import LEAST, Interval, Scenes, average, interval
from bench.metrics.significance import permutation_test

WORLDS: Final = ("easy", "hard")
SIZES: Final = (3, 5, 6, 8, 14, 25, 60, 400)  # scenes
DATASETS: Final = (3, 4, 6, 10, 25)  # scenes of those whose scores are averaged
PERMUTATIONS: Final = 999
MANY: Final = 100_000  # scenes of the truth
CLASSES, RARE = 6, 2


class Coverage(NamedTuple):
    """Shares of the trials, 0..1; nan where there are too few scenes.

    row, pair: the 95 % interval of a score, and of a difference, holds the truth. false_positives: p <= 0.05 for rows
    that are equally good. half_row, half_pair: half the width of the middle interval.
    """

    world: str
    scenes: str
    row: float
    pair: float
    half_row: float
    half_pair: float
    false_positives: float


def simulate(trials: int, seed: int = 0) -> Iterator[Coverage]:
    """Yield a line for each world and number of scenes, and one for the mean over datasets of each world."""
    for number, world in enumerate(WORLDS):
        generator = np.random.default_rng((seed, number))
        truth = _rows(world, MANY, generator)[0].score
        for scenes in (*SIZES, DATASETS):
            sizes = scenes if isinstance(scenes, tuple) else (scenes,)
            name = f"mean of {', '.join(map(str, sizes))}" if isinstance(scenes, tuple) else str(scenes)
            yield _line(world, name, truth, sizes, trials, generator)


def good(line: Coverage, trials: int) -> bool:
    """Return True where intervals of differences and tests keep their promise, up to the noise of so many trials."""
    noise = 3 * math.sqrt(0.05 * 0.95 / trials)
    return not (line.pair < 0.93 - noise or line.false_positives > 0.05 + noise)


def _line(
    world: str,
    name: str,
    truth: float,
    sizes: tuple[int, ...],
    trials: int,
    generator: np.random.Generator,
) -> Coverage:
    rows, pairs, p_values = [], [], []
    for _ in range(trials):
        first, second = zip(*(_rows(world, size, generator) for size in sizes), strict=True)
        rows.append(average([interval(one) for one in first]))
        pairs.append(average([interval(one, other) for one, other in zip(first, second, strict=True)]))
        if sum(sizes) >= LEAST:
            seed = int(generator.integers(2**31))
            p_values.append(permutation_test(first, second, PERMUTATIONS, seed).p_value)
    return Coverage(
        world=world,
        scenes=name,
        row=_covered(rows, truth),
        pair=_covered(pairs, 0.0),
        half_row=_half(rows),
        half_pair=_half(pairs),
        false_positives=float(np.mean(np.array(p_values) <= 0.05)) if p_values else math.nan,
    )


def _covered(found: list[Interval], truth: float) -> float:
    known = [one.low <= truth <= one.high for one in found if one.known]
    return float(np.mean(known)) if known else math.nan


def _half(found: list[Interval]) -> float:
    widths = [(one.high - one.low) / 2 for one in found if one.known]
    return float(np.median(widths)) if widths else math.nan


def _rows(world: str, scenes: int, generator: np.random.Generator) -> tuple[Scenes, Scenes]:
    """Simulate counts of two rows on so many scenes."""
    pixels = np.full((scenes, 1), 1e6)
    shares = generator.dirichlet(np.full(CLASSES, 2.0), scenes)
    difficulty = np.linspace(1.5, -0.5, CLASSES) + generator.normal(0, 0.7, (scenes, 1))
    if world == "hard":
        pixels *= generator.lognormal(0, 1, (scenes, 1))
        shares[:, -RARE:] *= generator.random((scenes, RARE)) < 1 / 8
        difficulty = difficulty + generator.normal(0, 1.5, shares.shape)
    labelled = np.round(pixels * shares / shares.sum(1, keepdims=True))
    first, second = (_found(labelled, difficulty + generator.normal(0, 0.6, labelled.shape)) for _ in range(2))
    return Scenes(Areas(first), "scene", "miou"), Scenes(Areas(second), "scene", "miou")


def _found(labelled: Floats, ease: Floats) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """(S, 3, K) areas: of each class a share is right, what is missed goes to the other classes evenly."""
    missed = np.floor(labelled / (1 + np.exp(ease)) / (CLASSES - 1))  # to each other class
    right = labelled - missed * (CLASSES - 1)
    predicted = right + missed.sum(1, keepdims=True) - missed
    return np.stack([right, labelled, predicted], axis=1).astype(np.int64)
