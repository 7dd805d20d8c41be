"""A stored cell, read back. Nothing here writes, and every number is computed from the counts."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from bench.errors import BenchError
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
from bench.settings import Settings, miscount
from bench.store.count_files import COUNTS, IMPORTED, Piece, Reading, read_counts
from bench.store.count_table import boundary_lines, counted, flat
from bench.store.record import RECORD, Damaged, Info, Numbers, Record, Standing, read_record

TIES = 200
"""Pixels in a million that fall into another bin of probability, at the most, where a float32 result was computed with
other threads, on another CPU or on a GPU; a quarter of these into another class (docs/performance.md)."""


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
        """Description that the run recorded: label, venue, device …, see `bench.store.record.Info`."""
        return self.record.info

    @property
    def total(self) -> int:
        """Images that the cell should hold."""
        return self.record.images.total

    @functools.cached_property
    def table(self) -> pa.Table:
        """Columns of bench.store.count_table, one line an image, by index; images that were not reached are absent.

        Empty where the cell is damaged, so that no number of it is shown.
        """
        return self._sound(self._reading)

    @functools.cached_property
    def images(self) -> pa.Table:
        """The lines of `table` that have counts: everything below follows their order."""
        return counted(self.table)

    @functools.cached_property
    def _reading(self) -> Reading:
        return read_counts(self.pieces)

    @functools.cached_property
    def _outline(self) -> Reading:
        """The narrow columns of `table`: what is there, without its counts."""
        narrow = ["index", "id", "error", "content"]
        if "_reading" in vars(self):
            return self._reading._replace(table=self.table.select(narrow))
        return read_counts(self.pieces, narrow)

    def without_counts(self) -> StoredResult:
        """Return the same result that knows which images it has, and reads their counts again when it is asked."""
        found = replace(self)
        vars(found)["_outline"] = self._outline
        return found

    def _sound(self, reading: Reading) -> pa.Table:
        return reading.table.slice(0, 0) if _damage(reading) else reading.table

    @property
    def damage(self) -> str | None:
        """Name of a file of counts that is not as it was written, and why; None where all is sound.

        A damaged part is none: its images are missing, and `reason` says so.
        """
        return _damage(self._outline)

    @property
    def counted(self) -> int:
        """Images that have counts."""
        return int(self._sound(self._outline).column("error").null_count)

    @property
    def indices(self) -> list[int]:
        return list(self.images.column("index").to_pylist())

    @property
    def ids(self) -> list[str]:
        return list(self.images.column("id").to_pylist())

    @property
    def contents(self) -> dict[int, str]:
        """Checksums of the files of the images that have counts, by index, as far as they are known."""
        table = counted(self._sound(self._outline))
        pairs = zip(table.column("index").to_pylist(), table.column("content").to_pylist(), strict=True)
        return {index: content for index, content in pairs if content is not None}

    def changed_images(self, now: Sequence[str | None] | None) -> int:
        """Count the images whose files hold something else now.

        now: checksums of the files of all images, None for those that are not known.
        """
        if now is None:
            return 0
        return sum(index >= len(now) or now[index] not in (None, content) for index, content in self.contents.items())

    @property
    def scenes(self) -> list[str | None]:
        return list(self.images.column("scene").to_pylist())

    @property
    def failures(self) -> dict[str, str]:
        """Reasons, by id, of the images that could not be evaluated."""
        lines = self._sound(self._outline).to_pylist()
        return {line["id"]: line["error"] for line in lines if line["error"] is not None}

    @property
    def status(self) -> Standing:
        """Standing of the cell: "ok" only when all of its images are counted, whatever cell.json says.

        "incomplete": the dataset has fewer or more images than its card expects.
        """
        if self.damage:
            return "damaged"
        if self.total and self.counted == self.total:
            return "ok" if miscount(self.total, self.record.images.expected) is None else "incomplete"
        recorded = {piece.record.status for piece in self.pieces}
        if "failed" in recorded:
            return "failed"
        return "no data" if recorded == {"no data"} else "partial"

    @property
    def imported(self) -> str | None:
        """The archive or submission that these counts were taken from; None for counts of this folder's own runs."""
        return str(self._origin["archive"]) if "archive" in self._origin else None

    @property
    def runs(self) -> list[str]:
        """Runs of the same cell by others: who, with which score, and how far from this one; a line each."""
        found = self._origin.get("runs", [])
        return list(map(str, found)) if isinstance(found, list) else []

    @functools.cached_property
    def _origin(self) -> dict[str, Any]:
        """Content of the file that says where these counts were taken from; empty for another cell's."""
        try:
            origin = json.loads((self.pieces[0].folder / IMPORTED).read_bytes())
            return dict(origin) if origin["counts_sha256"] == self.record.counts_sha256 else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    @property
    def mixture(self) -> str | None:
        """Differences of the machines and batches that counted this cell, in one line; None where none is known.

        A cell's images may come from several runs and shards; cell.json keeps what each was made with.
        """
        known = [made for piece in self.pieces for made in (piece.record.made_with, *piece.record.earlier)]
        found = list(dict.fromkeys(change for made in known[1:] for change in differing(known[0], made)))
        if not found:
            return None
        return f"not all counted alike ({'; '.join(found)}): ties may move {TIES} pixels in a million"

    @property
    def reason(self) -> str | None:
        """Why the cell is not "ok"; None where it is, or where nothing but time is missing."""
        if self.status == "ok":
            return None
        if self.status == "incomplete":
            return miscount(self.total, self.record.images.expected)
        if self.damage:
            return self.damage
        recorded = [piece.record.reason for piece in self.pieces if piece.record.reason]
        recorded += [f"{file}: {why}; until then its images are missing" for file, why in self._outline.damaged.items()]
        return "; ".join([*dict.fromkeys(recorded), *self.notes]) or None

    def confusion(self, threshold: float | None = None) -> Ints:
        """Return (n, K + 1, K) confusion of the n counted images; at the cell's own threshold unless another is given.

        For COCO-Stuff that is a gigabyte; metrics are satisfied with `areas`.
        """
        return confusions_at(self._counts, *self._final(threshold))

    def total_confusion(self) -> Ints:
        """Return the sum (K + 1, K) of `confusion` over the images, without making that of each."""
        one = self._counts._replace(offsets=np.array([0, len(self._counts.keys)]))
        total: Ints = confusions_at(one, *self._final(None))[0]
        return total

    def areas(self, threshold: float | None = None) -> Areas:
        """Return the areas of the n counted images; at the cell's own threshold unless another is given."""
        return areas_at(self._counts, *self._final(threshold))

    def _final(self, threshold: float | None) -> tuple[float, int]:
        return self.settings.threshold if threshold is None else threshold, self.settings.background

    @property
    def _counts(self) -> SparseCounts:
        return sparse_counts(self.images, len(self.classes))

    def histogram(self) -> Ints:
        """Return (K + 1, K, 100) counts over the winning probability of all images, for `bench.metrics.sweep`."""
        return probability_histogram(self._counts.keys, self._counts.counts, len(self.classes))

    def boundary(self) -> Ints | None:
        """Return boundary counts (n, K, 2) of the counted images, or None where they were not asked for."""
        return boundary_counts(self.images, self.settings, len(self.classes))


def sparse_counts(images: pa.Table, classes: int) -> SparseCounts:
    """Return the counts of a table whose lines all have some."""
    keys, offsets = flat(images, "keys")
    return SparseCounts(keys, flat(images, "counts")[0], offsets, classes)


def boundary_counts(images: pa.Table, settings: Settings, classes: int) -> Ints | None:
    """Return boundary counts (n, K, 2) of a table of counted images; None unless all have some at this threshold."""
    found = boundary_lines(images, classes, settings.threshold, settings.background)
    return np.stack(list(found.values())) if found and len(found) == images.num_rows else None


def numbers(images: pa.Table, settings: Settings, classes: int, metric: str) -> Numbers:
    """Return the metrics of cell.json: `bench.metrics.summary` and, if counted, boundary IoU; {} for no images."""
    if not images.num_rows:
        return {}
    found = summary(areas_at(sparse_counts(images, classes), settings.threshold, settings.background), metric)
    boundary = boundary_counts(images, settings, classes)
    if boundary is not None:
        of_class = boundary_iou(boundary.sum(0))
        found |= {"boundary_iou": of_class.tolist(), "mean_boundary_iou": float(mean_over_classes(of_class))}
    return found


def _damage(reading: Reading) -> str | None:
    merged = [f"{file}: {why}" for file, why in reading.damaged.items() if file.name == COUNTS]
    return "; ".join(merged) or None


def load_result(folder: Path, limit: int | None = None) -> StoredResult | None:
    """Load the cell stored in a folder, its shards put together; None where there is none.

    limit: of the results that it is among. Shards of other settings than the newest piece are left out and named in
    `notes`. Raises Damaged where a record is not whole or not in its place, BenchError where it may not be read.
    """
    try:
        files = [folder / RECORD, *sorted(folder.glob(f"shard-*/{RECORD}"))]
        found = [Piece(file.parent, read_record(file)) for file in files if file.exists() or file.is_symlink()]
    except PermissionError as error:
        raise BenchError(f"{folder}: cannot be read ({error.strerror}); correct its permissions") from None
    if not found:
        return None
    for piece in found:
        _check_place(piece, folder, limit)
    newest = max(found, key=lambda piece: piece.record.written)
    fitting = [piece for piece in found if piece.record.fingerprint == newest.record.fingerprint]
    others = [piece.folder.name for piece in found if piece not in fitting and piece.folder != folder]
    notes = (f"{', '.join(others)}: of other settings or inputs, left out",) if others else ()
    pieces = (newest, *(p for p in fitting if p is not newest))
    return StoredResult(pieces, newest.record.settings, notes)


def _check_place(piece: Piece, folder: Path, limit: int | None) -> None:
    """Raise Damaged for a record that was written elsewhere, so that no number is shown under another's name."""
    record, file = piece.record, piece.folder / RECORD
    home = folder.parent.parent / cell_folder(record.row, record.dataset)
    if home != folder:
        also = f", and {home} is there too" if home.is_dir() else ""
        raise Damaged(
            f"{file}: holds {record.row} on {record.dataset}, which belongs in {home}{also}; move it or delete it"
        )
    if record.limit != limit:
        of, among = (f"--limit {value}" if value else "full" for value in (record.limit, limit))
        raise Damaged(f"{file}: is a {of} result among {among} results; move it where it belongs or delete it")
    if record.shard != (None if piece.folder == folder else piece.folder.name):
        raise Damaged(f"{file}: was written as {record.shard or 'a whole cell'}; move it where it belongs or delete it")


def cell_folder(row: str, dataset: str) -> Path:
    """Return where a cell belongs below cells/.

    Raises BenchError for names that are no names of folders.
    """
    names = dataset, quote(row, safe="+@")
    for name in names:
        if name in ("", ".", "..") or "/" in name or "\0" in name or len(name.encode(errors="surrogateescape")) > 255:
            raise BenchError(
                f"'{row}' on '{dataset}': cannot be stored under this name; choose a shorter or plainer one"
            )
    return Path(*names)
