"""Writing one cell, image by image, so that a crash at any moment costs seconds."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Sequence
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from bench.errors import writing
from bench.metrics import Int32s, Ints
from bench.runtime.atomic import TEMPORARY, write_atomic
from bench.runtime.provenance import differing
from bench.store.count_files import (
    COUNTS,
    PARTS,
    Piece,
    finish_merge,
    part_file,
    part_number,
    read_counts,
    read_file,
    sound_counts,
)
from bench.store.count_table import (
    SCHEMA,
    ImageCounts,
    boundary_line,
    boundary_lines,
    counted,
    encode,
    renamed,
    to_table,
)
from bench.store.history import without_repeats
from bench.store.record import RECORD, Cost, Record, ResultSpec, Status
from bench.store.result import numbers

FLUSH_SECONDS = 5.0


class ResultWriter:
    """Takes the counts of images in any order; made by `Store.open`.

    done: indices whose counts are on the disk, from this run or an earlier one; the others are to be done.
    background: writes part files while others count, so that a slow disk keeps nobody waiting; None at first.

    Every few seconds, what was added goes to the disk as a separate part file; `finish` puts all parts together.
    Every method raises BenchError naming the folder when the disk is full or not writable; what was stored before
    stays valid.
    """

    def __init__(  # noqa: PLR0913 (made by `Store.open` alone)
        self,
        folder: Path,
        record: Record,
        spec: ResultSpec,
        indices: Collection[int],
        boundary: bool,
        fresh: bool,
        counted_by: Record | None = None,
    ) -> None:
        """counted_by: record of the counts that are in the folder."""
        self._folder = folder
        self._record = record
        self._settings = record.settings
        self._images = spec.images
        self._contents = spec.contents
        self._planned = set(indices)
        self._buffer: list[ImageCounts] = []
        self.background: Executor | None = None
        self._writing: tuple[Future[None], list[ImageCounts]] | None = None
        self._added = 0
        self._flushed = time.monotonic()
        with naming(folder):
            self._parts = self._clear(fresh)
        self.done = self._on_disk(boundary) & self._planned
        if counted_by is not None and self.done:
            self._enter_machines(counted_by)
        with naming(folder):
            self._write_record("partial", None)

    def add(
        self, index: int, keys: Int32s, counts: Ints, boundary: Ints | None = None, content: str | None = None
    ) -> None:
        """Add the counts of one image.

        index: of the image.
        keys, counts: of `bench.metrics.count`.
        boundary: (K, 2), of `bench.metrics.boundary.boundary_counts`.
        content: checksum of its files.
        """
        if boundary is not None:
            boundary = boundary_line(boundary, self._settings.threshold, self._settings.background)
        self.take(ImageCounts(index, keys, counts, boundary, content=content))

    def flush(self) -> None:
        """Put on the disk what was added since the last time; it is there when this returns."""
        self._wait()
        self._flushed = time.monotonic()
        if self._buffer:
            self._write_part(self._next_number(), self._buffer)
            self._buffer.clear()

    def finish(self, seconds: float = 0.0, peak_memory: int | None = None, reason: str | None = None) -> None:
        """Merge the parts and write cell.json; to be called last, even if there was nothing to do.

        seconds: what the images added by this run took.
        peak_memory: bytes.
        reason: why the cell as a whole failed; without one it is "ok", or "partial" if images are missing.
        """
        self.flush()
        table = renamed(self._read(), self._images)
        data = encode(table, self._record.fingerprint)
        if self._added:
            self._record.cost = Cost(images=self._added, seconds=seconds, peak_memory_bytes=peak_memory)
        failed = self._enter_numbers(table)
        whole = part_file(self._folder, self._next_number(), data)
        before, self._record.counts_sha256 = self._record.counts_sha256, hashlib.sha256(data).hexdigest()
        self._record.history = without_repeats(self._record.history, self._record.counts_sha256)
        status: Status = "failed" if reason else "ok" if self.done == self._planned else "partial"
        with naming(self._folder):
            if self._record.counts_sha256 != before:
                write_atomic(whole, data)
            self._write_record(status, reason or failed)
            finish_merge(self._folder, self._record)
            for part in self._folder.glob(PARTS):
                part.unlink()

    def take(self, image: ImageCounts) -> None:
        """Take one image: its counts, or the error for which a later run tries it again."""
        self._buffer.append(image)
        self._added += 1
        if time.monotonic() - self._flushed < FLUSH_SECONDS:
            return
        if self.background is None:
            self.flush()
            return
        self._wait()
        self._flushed = time.monotonic()
        number, images, self._buffer = self._next_number(), self._buffer, []
        self._writing = self.background.submit(self._write_part, number, images), images

    def _wait(self) -> None:
        """Wait until the part that is being written is on the disk.

        Where it cannot be written, its images are due again.
        """
        if self._writing is None:
            return
        written, images = self._writing
        try:
            written.result()
        except Exception:  # of the thread; an interrupt of the wait itself leaves it to the next one
            self._writing, self._buffer = None, images + self._buffer
            raise
        self._writing = None

    def _next_number(self) -> int:
        self._parts += 1
        return self._parts - 1

    def _write_part(self, number: int, images: Sequence[ImageCounts]) -> None:
        data = encode(to_table(images, self._images), self._record.fingerprint)
        with naming(self._folder):
            write_atomic(part_file(self._folder, number, data), data)
        self.done.update(image.index for image in images if image.error is None)

    def _clear(self, fresh: bool) -> int:
        """Remove what is torn, damaged, or a part of other settings; return the number of the next part."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for name in (RECORD, COUNTS):
            if (self._folder / name).is_dir():  # nothing of ours, but not ours to delete either
                (self._folder / name).rename(self._folder / f"{name}.not-a-file")
        for torn in self._folder.glob(TEMPORARY):
            torn.unlink()
        self._record.counts_sha256 = None if fresh else sound_counts(self._folder)
        if self._record.counts_sha256 is None:
            (self._folder / COUNTS).unlink(missing_ok=True)
        for part in self._folder.glob(PARTS):
            if fresh or not self._is_sound(part):
                part.unlink()
        return max(map(part_number, self._folder.glob(PARTS)), default=-1) + 1

    def _is_sound(self, part: Path) -> bool:
        try:
            return read_file(part, self._record, ["index"]) is not None
        except ValueError:
            return False

    def _read(self, columns: Sequence[str] = tuple(SCHEMA.names)) -> pa.Table:
        return read_counts([Piece(self._folder, self._record)], columns).table

    def _on_disk(self, boundary: bool) -> set[int]:
        columns = ["index", "error", "content", "boundary"]
        table = counted(self._read(columns))
        if self._contents is not None:
            table = table.filter(pa.array(unchanged(table, self._contents), pa.bool_()))
        if not boundary:
            return set(table.column("index").to_pylist())
        classes = len(self._record.classes)
        return set(boundary_lines(table, classes, self._settings.threshold, self._settings.background))

    def _enter_machines(self, before: Record) -> None:
        """Put into the record what counted the images that are there; this run as well only if it counts others."""
        record, known = self._record, [before.made_with, *before.earlier]
        if self.done == self._planned:
            record.made_with, *known = known
            record.info = record.info.model_copy(update={"device": before.info.device})
        record.earlier = [made for made in known if differing(record.made_with, made)]

    def _enter_numbers(self, table: pa.Table) -> str | None:
        """Put metrics and image numbers into the record; return what to say of images that failed."""
        images = counted(table)
        failures = table.filter(pc.is_valid(table.column("error")))
        classes, metric = len(self._record.classes), self._record.metric
        self._record.metrics = numbers(images, self._settings, classes, metric)
        self._record.images.counted, self._record.images.failed = images.num_rows, failures.num_rows
        if not failures.num_rows:
            return None
        name, error = failures.column("id")[0].as_py(), failures.column("error")[0].as_py()
        return f"{failures.num_rows} of {len(self._images)} images failed, the first: {name}: {error}"

    def _write_record(self, status: Status, reason: str | None) -> None:
        self._record.status, self._record.reason = status, reason
        self._record.write(self._folder)


def unchanged(table: pa.Table, contents: Sequence[str | None]) -> list[bool]:
    """Return for each line whether its image still holds what was counted; true where that is not known."""
    columns = (table.column(name).to_pylist() for name in ("index", "content"))
    return [
        index < len(contents) and (content is None or contents[index] in (None, content))
        for index, content in zip(*columns, strict=True)
    ]


def naming(folder: Path) -> AbstractContextManager[None]:
    """Turn an OSError into a BenchError that names the folder."""
    advice = "make room or correct the permissions and start the same command again"
    return writing(f"results folder {folder}", f"{advice}: what was stored before is still valid")
