"""A stored cell, read back. Nothing here writes, and every number is computed from the counts."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from bench.metrics import (
    Areas,
    Ints,
    SparseCounts,
    areas_at,
    confusions_at,
    mean_over_classes,
    probability_histogram,
    summary,
)
from bench.metrics.boundary import boundary_iou
from bench.runtime.provenance import differing
from bench.settings import Settings
from bench.store.count_table import boundary_lines, counted, decode, flat, merge
from bench.store.record import RECORD, Info, Numbers, Record, Status, read_record

COUNTS, PARTS = "counts.parquet", "part-*.parquet"

TIES = 200
"""Pixels in a million that fall into another bin of probability, at the most, where a float32 result was computed with
other threads, on another CPU or on a GPU; a quarter of these into another class (docs/performance.md)."""


class Piece(NamedTuple):
    """A folder that one process wrote: the whole cell, or one shard of it."""

    folder: Path
    record: Record


@dataclass(frozen=True, eq=False)
class StoredResult:
    """One row on one dataset. `record` is the newest cell.json, see docs/results.md."""

    pieces: tuple[Piece, ...]
    settings: Settings
    notes: tuple[str, ...] = ()  # what was left out, and why

    @property
    def record(self) -> Record:
        return self.pieces[0].record

    @property
    def row(self) -> str:
        return self.settings.row

    @property
    def dataset(self) -> str:
        return self.settings.dataset

    @property
    def metric(self) -> str:
        return self.record.metric

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.record.classes)

    @property
    def info(self) -> Info:
        """What the run recorded about itself: label, venue, device …"""
        return self.record.info

    @property
    def total(self) -> int:
        """Images that the cell should hold."""
        return self.record.images.total

    @functools.cached_property
    def table(self) -> pa.Table:
        """Columns of bench.store.count_table, one line an image, by index; images that were not reached are absent."""
        return self._read()

    @functools.cached_property
    def images(self) -> pa.Table:
        """The lines of `table` that have counts: everything below follows their order."""
        return counted(self.table)

    @functools.cached_property
    def _outline(self) -> pa.Table:
        """The narrow columns of `table`: what is there, without its counts."""
        narrow = ["index", "id", "error"]
        return self.table.select(narrow) if "table" in vars(self) else self._read(narrow)

    def _read(self, columns: list[str] | None = None) -> pa.Table:
        return read_counts([piece.folder for piece in self.pieces], self.record.fingerprint, columns)

    @property
    def counted(self) -> int:
        """Images that have counts."""
        return int(self._outline.column("error").null_count)

    @property
    def indices(self) -> list[int]:
        return list(self.images.column("index").to_pylist())

    @property
    def ids(self) -> list[str]:
        return list(self.images.column("id").to_pylist())

    @property
    def contents(self) -> dict[int, str]:
        """Index -> checksum of the files of the images that have counts, as far as it is known."""
        table = counted(self._read(["index", "error", "content"]))
        pairs = zip(table.column("index").to_pylist(), table.column("content").to_pylist(), strict=True)
        return {index: content for index, content in pairs if content is not None}

    @property
    def scenes(self) -> list[str | None]:
        return list(self.images.column("scene").to_pylist())

    @property
    def failures(self) -> dict[str, str]:
        """Id -> reason of the images that could not be evaluated."""
        lines = self._outline.to_pylist()
        return {line["id"]: line["error"] for line in lines if line["error"] is not None}

    @property
    def status(self) -> Status:
        """Whatever cell.json says, a cell is "ok" when all of its images are counted, and only then; "incomplete" where
        the dataset has fewer images than its card expects.
        """
        if self.total and self.counted == self.total:
            return "incomplete" if self.total < (self.record.images.expected or 0) else "ok"
        recorded = {piece.record.status for piece in self.pieces}
        if "failed" in recorded:
            return "failed"
        return "no data" if recorded == {"no data"} else "partial"

    @property
    def mixture(self) -> str | None:
        """How the machines differ that counted this cell, in one line; None where it is one machine, as far as known.

        A cell's images may come from several runs and shards; cell.json keeps what each was made with.
        """
        known = [made for piece in self.pieces for made in (piece.record.made_with, *piece.record.earlier)]
        found = list(dict.fromkeys(change for made in known[1:] for change in differing(known[0], made)))
        if not found:
            return None
        return f"counted on different machines ({'; '.join(found)}): ties may move {TIES} pixels in a million"

    @property
    def reason(self) -> str | None:
        """Why the cell is not "ok"; None where it is, or where nothing but time is missing."""
        if self.status == "ok":
            return None
        if self.status == "incomplete":
            return f"{self.total:,} of {self.record.images.expected:,} images"
        recorded = [piece.record.reason for piece in self.pieces if piece.record.reason]
        return "; ".join([*dict.fromkeys(recorded), *self.notes]) or None

    def confusion(self, threshold: float | None = None) -> Ints:
        """(n, K + 1, K) of the n counted images; at the cell's own threshold unless another is given.

        For COCO-Stuff that is a gigabyte; metrics are satisfied with `areas`.
        """
        return confusions_at(self._counts, *self._final(threshold))

    def areas(self, threshold: float | None = None) -> Areas:
        """Areas (n) of the same."""
        return areas_at(self._counts, *self._final(threshold))

    def _final(self, threshold: float | None) -> tuple[float, int]:
        return self.settings.threshold if threshold is None else threshold, self.settings.background

    @property
    def _counts(self) -> SparseCounts:
        return sparse_counts(self.images, len(self.classes))

    def histogram(self) -> Ints:
        """(K + 1, K, 100) counts over the winning probability of all images, for `bench.metrics.sweep`."""
        return probability_histogram(self._counts.keys, self._counts.counts, len(self.classes))

    def boundary(self) -> Ints | None:
        """Boundary counts (n, K, 2) of the counted images, or None where they were not asked for."""
        return boundary_counts(self.images, self.settings, len(self.classes))


def sparse_counts(images: pa.Table, classes: int) -> SparseCounts:
    """The counts of a table whose lines all have some."""
    keys, offsets = flat(images, "keys")
    return SparseCounts(keys, flat(images, "counts")[0], offsets, classes)


def boundary_counts(images: pa.Table, settings: Settings, classes: int) -> Ints | None:
    """(n, K, 2) of a table of counted images; None unless all have boundary counts at this threshold."""
    found = boundary_lines(images, classes, settings.threshold, settings.background)
    return np.stack(list(found.values())) if found and len(found) == images.num_rows else None


def numbers(images: pa.Table, settings: Settings, classes: int, metric: str) -> Numbers:
    """The metrics of cell.json: `bench.metrics.summary` and, if counted, boundary IoU; {} for no images."""
    if not images.num_rows:
        return {}
    found = summary(areas_at(sparse_counts(images, classes), settings.threshold, settings.background), metric)
    boundary = boundary_counts(images, settings, classes)
    if boundary is not None:
        of_class = boundary_iou(boundary.sum(0))
        found |= {"boundary_iou": of_class.tolist(), "mean_boundary_iou": float(mean_over_classes(of_class))}
    return found


def read_counts(folders: Sequence[Path], fingerprint: str, columns: list[str] | None = None) -> pa.Table:
    """What the folders hold under this fingerprint; a damaged file or one of other settings is absent."""
    files = [file for folder in folders for file in count_files(folder)]
    tables = (decode(file, fingerprint, columns) for file in files)
    return merge([table for table in tables if table is not None])


def count_files(folder: Path) -> list[Path]:
    """The merged file, then the parts, oldest first."""
    return [folder / COUNTS, *sorted(folder.glob(PARTS))]


def load_result(folder: Path) -> StoredResult | None:
    """The cell stored in a folder, its shards put together; None where there is none.

    Shards of other settings than the newest piece are left out and named in `notes`.
    """
    found = [
        Piece(file.parent, read_record(file))
        for file in [folder / RECORD, *sorted(folder.glob(f"shard-*/{RECORD}"))]
        if file.exists()
    ]
    if not found:
        return None
    newest = max(found, key=lambda piece: piece.record.written)
    fitting = [piece for piece in found if piece.record.fingerprint == newest.record.fingerprint]
    others = [piece.folder.name for piece in found if piece not in fitting and piece.folder != folder]
    notes = (f"{', '.join(others)}: of other settings or inputs, left out",) if others else ()
    pieces = (newest, *(p for p in fitting if p is not newest))
    return StoredResult(pieces, newest.record.settings, notes)
