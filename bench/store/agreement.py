"""How far two runs of one cell are apart: pixels that moved, and the scores on the images that both counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from bench.metrics import BINS, Areas, Ints, SparseCounts, areas_at, label_area, moved_pixels, score
from bench.paths import EARLIER_HASHES, shipped
from bench.runtime.provenance import differing
from bench.runtime.sources import shipped_codes
from bench.store.history import changes_for_recount, setting_changes
from bench.store.record import SCORING
from bench.store.result import TIES, StoredResult, sparse_counts

ROUNDED = 50_000
"""Pixels in a million in another class, at the most, between results in less than float32: of bf16, 8 times what is
measured against float32 (docs/performance.md)."""


class Agreement(NamedTuple):
    """Two runs of one row on one dataset.

    images, alone: how many images both counted, and how many only one of them did.
    labels: of how many images the label pixels differ.
    bins, classes: pixels per million in another hundredth of probability, and in another class.
    first, second: scores on the images that both counted; fractions.
    changed: settings and inputs in which they differ, without which they are two runs of the same thing.
    machines: in what their machines differ, as far as both are known.
    rounded: whether both computed in less than float32, where ties explain little.
    """

    row: str
    dataset: str
    images: int = 0
    alone: int = 0
    labels: int = 0
    bins: float = 0.0
    classes: float = 0.0
    first: float = float("nan")
    second: float = float("nan")
    changed: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()
    rounded: bool = False

    @property
    def points(self) -> float:
        """Distance of the scores in points."""
        return 100 * abs(self.second - self.first)

    @property
    def good(self) -> bool:
        """Whether two runs of the same thing agree as far as machines do; nothing is expected of other settings."""
        tied = self.classes <= ROUNDED if self.rounded else self.bins <= TIES and 4 * self.classes <= TIES
        return bool(self.changed) or (self.images > 0 and not self.labels and tied)

    @property
    def words(self) -> str:
        """The distance in one phrase."""
        if self.changed:
            return f"not the same thing: {', '.join(self.changed)}"
        if not self.images:
            return "no image that both counted"
        if self.labels:
            return f"other labels in {self.labels:,} of {self.images:,} images"
        if not self.bins:
            return "equal counts"
        by = "rounding moves" if self.rounded else "ties move"
        how = f", more than {by}" if not self.good else ", rounded" if self.rounded else ""
        return f"{self.classes:.1f} pixels in a million in another class, {self.bins:.1f} in another hundredth{how}"


def agreement(one: StoredResult, other: StoredResult) -> Agreement:
    """Hold two stored results of one row and dataset against each other, on the images that both counted."""
    record, inputs = other.record, _named_alike(other.record.inputs, one.record.inputs)
    changed = [*changes_for_recount(one, other.settings, inputs)]
    changed += setting_changes(one.settings, other.settings, only=SCORING)
    changed += [] if one.classes == other.classes else ["classes changed"]
    found = Agreement(
        one.row,
        one.dataset,
        changed=tuple(changed),
        machines=tuple(differing(one.record.made_with, record.made_with)),
        rounded=one.record.inputs.get("dtype", "fp32") != "fp32",
    )
    shared = sorted(set(one.ids) & set(other.ids))
    if not shared or len(one.classes) != len(other.classes):
        return found
    (counts, areas), (of_other, areas_of_other) = (_of_images(cell, shared) for cell in (one, other))
    bins, classes = _moved(counts, of_other)
    return found._replace(
        images=len(shared),
        alone=one.counted + other.counted - 2 * len(shared),
        labels=int((label_area(areas) != label_area(areas_of_other)).any(axis=1).sum()),
        bins=bins,
        classes=classes,
        first=float(score(areas.total, one.metric)),
        second=float(score(areas_of_other.total, other.metric)),
    )


def _named_alike(inputs: Mapping[str, str], others: Mapping[str, str]) -> dict[str, str]:
    """Return inputs, those as another run has them that differ in nothing but the version that hashed the code."""
    codes = shipped_codes(shipped(EARLIER_HASHES))

    def now(value: str | None) -> tuple[str, str]:
        weights, _, code = (value or "").rpartition(", ")  # of an upsampler; else the code alone
        return weights, codes.get(code, code)

    alike = {name: value for name, value in others.items() if now(inputs.get(name)) == now(value)}
    return {name: alike.get(name, value) for name, value in inputs.items()}


def agreements(some: Iterable[StoredResult], others: Iterable[StoredResult]) -> list[Agreement]:
    """Hold all cells that are in both against each other; those of different limits are different cells."""
    known = {(cell.row, cell.dataset, cell.record.limit): cell for cell in some}
    pairs = [(known.get((cell.row, cell.dataset, cell.record.limit)), cell) for cell in others]
    return [agreement(one, other) for one, other in pairs if one is not None]


def _of_images(cell: StoredResult, ids: list[str]) -> tuple[SparseCounts, Areas]:
    """Return the counts of the images with these ids, in this order, and the areas at the cell's own threshold."""
    places = {name: place for place, name in enumerate(cell.ids)}
    counts = sparse_counts(cell.images.take(pa.array([places[name] for name in ids])), len(cell.classes))
    return counts, areas_at(counts, cell.settings.threshold, cell.settings.background)


def _moved(one: SparseCounts, other: SparseCounts) -> tuple[float, float]:
    """Return how many pixels per million are in another bin of probability, and in another class, image by image."""
    parts = []
    for keys, _, offsets, classes in (one, other):
        image = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        parts.append(image * (classes + 1) * classes * BINS + keys)
    places = np.concatenate(parts)
    order = np.argsort(places, kind="stable")  # which is quick, for each part is sorted
    places = places[order]
    found = np.concatenate([one.counts, np.zeros_like(other.counts)])[order]
    expected = np.concatenate([np.zeros_like(one.counts), other.counts])[order]

    def moved(groups: Ints) -> float:
        starts = np.flatnonzero(np.diff(groups, prepend=-1))
        return moved_pixels(*(np.add.reduceat(of, starts) if starts.size else of for of in (found, expected)))

    return moved(places), moved(places // BINS)
