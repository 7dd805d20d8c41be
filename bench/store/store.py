"""The results folder: one folder a cell, see docs/results.md.

    store = Store("results")
    with store.lock():
        writer = store.open(ResultSpec(settings, inputs, images, card.classes, card.metric))
        for index in range(len(images)):
            if index not in writer.done:
                writer.add(index, *count(label, predicted, bins, len(card.classes)))
        writer.finish(seconds=…)
    store.cell("sclip", "loveda").status

Counts do not depend on the threshold, so a cell is identified by what decides its counts: the settings
without the scoring ones, and the hashes of its inputs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from bench.errors import BenchError
from bench.metrics import score
from bench.runtime.atomic import write_atomic
from bench.settings import Settings
from bench.store.count_files import COUNTS, part_file, sound_counts
from bench.store.history import history_of, history_of_gap
from bench.store.lock import folder_lock
from bench.store.record import DONE, Damaged, Record, ResultSpec
from bench.store.result import StoredResult, cell_folder, load_result
from bench.store.writer import ResultWriter, naming


class Store:
    """A results folder.

    cells_folder: where the folders of the cells are.
    limit: results of the first N images only live apart from full ones, in limited-<N>/.
    demo: results of the embedded demo, which never replace real ones.
    shard: (i, n) for one of n processes that share a run; each writes separate files and readers put them together.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        limit: int | None = None,
        demo: bool = False,
        shard: tuple[int, int] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.limit = limit
        self.demo = demo
        self.shard = f"shard-{shard[0]}-of-{shard[1]}" if shard else ""
        self.cells_folder = (self.folder / f"limited-{limit}" if limit else self.folder) / "cells"

    def lock(self) -> AbstractContextManager[None]:
        """Return the lock to hold while writing; a shard excludes only other processes of the same shard.

        Raises BenchError if another process has it.
        """
        return folder_lock(self.folder, f".lock-{self.shard}" if self.shard else ".lock")

    def open(
        self, spec: ResultSpec, indices: Collection[int] | None = None, *, boundary: bool = False, fresh: bool = False
    ) -> ResultWriter:
        """Return the writer of one result, which knows what is on the disk already.

        indices: which images this process has to do; all by default.
        boundary: images without boundary counts are to be done again.
        fresh: forget what is stored.
        """
        record = self._record(spec)
        planned = range(len(spec.images)) if indices is None else indices
        record.images.planned = len(planned)
        old = self._guarded(spec.settings)
        place, counted_by = self._place(spec.settings), None
        if old is None and not fresh and not self.shard:
            counted_by = self._take_counts(spec.settings, record.fingerprint)
        record.history = history_of(old, record, spec.contents, fresh)
        if old and not fresh and old.record.fingerprint == record.fingerprint:
            record.cost = old.record.cost
            counted_by = next((piece.record for piece in old.pieces if piece.folder == place), None)
        return ResultWriter(place, record, spec, planned, boundary, fresh, counted_by)

    def record_gap(self, spec: ResultSpec, status: Literal["failed", "no data"], reason: str) -> None:
        """Record that a cell could not even be started; missing data never hide what was stored before."""
        old = self._guarded(spec.settings)
        if status == "no data" and old and old.counted:
            return
        record = self._record(replace(spec, inputs={}))  # so that counts of earlier runs are not taken for its own
        record.status, record.reason = status, reason
        record.history = history_of_gap(old, f"{status}: {reason}")
        folder = self._place(spec.settings)
        with naming(folder):
            folder.mkdir(parents=True, exist_ok=True)
            record.counts_sha256 = sound_counts(folder)
            record.write(folder)

    def seal(self, row: str, dataset: str) -> None:
        """Give a whole cell of a version without checksums its checksum, if its score is that of its counts."""
        cell = self.cell(row, dataset)
        if cell is None or cell.status not in DONE or len(cell.pieces) > 1 or cell.record.checksum:
            return
        record, areas = cell.record, cell.areas().total
        now, then = float(score(areas, cell.metric)), record.metrics.get("score")
        same = then is None if math.isnan(now) else isinstance(then, float) and math.isclose(now, then)
        if record.counts_sha256 and same:
            with naming(cell.pieces[0].folder):
                record.write(cell.pieces[0].folder, record.written)

    def cell(self, row: str, dataset: str) -> StoredResult | None:
        """Return one stored cell; None where there is none, or one whose cell.json is damaged."""
        return self._load(self.place(row, dataset))

    def _load(self, folder: Path) -> StoredResult | None:
        try:
            return load_result(folder, self.limit)
        except Damaged:
            return None

    def damage(self, row: str, dataset: str) -> str | None:
        """Say what is damaged of a cell, its cell.json or its counts; None where all is sound, or nothing is stored."""
        try:
            cell = load_result(self.place(row, dataset), self.limit)
        except Damaged as error:
            return str(error)
        return cell.damage if cell is not None else None

    def cells(self) -> list[StoredResult]:
        """Return all stored cells, by dataset and row; without those that `damaged` names."""
        return self.listing()[0]

    def damaged(self) -> dict[tuple[str, str], str]:
        """Return why cells are damaged or misplaced, by (row, dataset); a run counts the damaged ones again."""
        return self.listing()[1]

    def listing(self) -> tuple[list[StoredResult], dict[tuple[str, str], str]]:
        """Return `cells` and `damaged`, from one look at the folder.

        Raises BenchError for folders that may not be read.
        """
        cells, damaged = [], {}
        for folder in [cell for dataset in _folders(self.cells_folder) for cell in _folders(dataset)]:
            try:
                cell = load_result(folder, self.limit)
            except BenchError as error:
                damaged[unquote(folder.name), folder.parent.name] = str(error)
            else:
                cells += [cell] if cell is not None else []
        return cells, damaged

    def twin(self, settings: Settings, identity: str) -> StoredResult | None:
        """Return a whole result of another row with the same dataset and identity, such as at another threshold."""
        for folder in _folders(self.cells_folder / settings.dataset):
            other = self._load(folder)
            if other is None or other.row == settings.row or other.record.fingerprint != identity:
                continue
            if other.record.demo == self.demo and other.status in ("ok", "incomplete"):
                return other
        return None

    def _take_counts(self, settings: Settings, identity: str) -> Record | None:
        """Copy the counts of a twin, if there is one, and return its record."""
        twin = self.twin(settings, identity)
        if twin is None or len(twin.pieces) > 1:
            return None
        folder = self._place(settings)
        with naming(folder):
            folder.mkdir(parents=True, exist_ok=True)
            data = (twin.pieces[0].folder / COUNTS).read_bytes()
            write_atomic(part_file(folder, 0, data), data)
        return twin.record

    def place(self, row: str, dataset: str) -> Path:
        """Return the folder of a cell."""
        return self.cells_folder / cell_folder(row, dataset)

    def _place(self, settings: Settings) -> Path:
        return self.place(settings.row, settings.dataset) / self.shard

    def _guarded(self, settings: Settings) -> StoredResult | None:
        """Return what is stored of a cell.

        Raises BenchError where a demo's result would meet a real one.
        """
        old = self.cell(settings.row, settings.dataset)
        if old and old.record.demo != self.demo:
            held = "results of the demo" if old.record.demo else "results of real data"
            raise BenchError(
                f"results folder {self.folder}: holds {held} for {settings.row} on {settings.dataset}; "
                "real and demo results are kept apart: choose another folder with --results"
            )
        return old

    def _record(self, spec: ResultSpec) -> Record:
        record = spec.record()
        record.demo, record.limit, record.shard = self.demo, self.limit, self.shard or None
        return record


def _folders(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted; none where it is not there.

    Raises BenchError where it may not be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except PermissionError as error:
        raise BenchError(f"{folder}: cannot be read ({error.strerror}); correct its permissions") from None
    except (FileNotFoundError, NotADirectoryError):
        return []


def limits(folder: str | Path) -> list[int]:
    """Return the N of all limited-<N> folders below a results folder, ascending."""
    found = (re.fullmatch(r"limited-(\d+)", path.name) for path in Path(folder).glob("limited-*"))
    return sorted(int(match[1]) for match in found if match)
