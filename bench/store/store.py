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

import re
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import quote, unquote

from bench.errors import BenchError
from bench.runtime.atomic import write_atomic
from bench.runtime.provenance import differing
from bench.settings import Settings
from bench.store.history import changes_for_recount, history_of, history_of_gap, setting_changes
from bench.store.lock import folder_lock
from bench.store.record import RECORD, SCORING, Record, ResultSpec
from bench.store.result import COUNTS, StoredResult, load_result
from bench.store.writer import ResultWriter, naming


class Changes(NamedTuple):
    """What differs between a stored cell and a run: "debias 0.0 -> 0.3", "weights changed".

    recount: the cell is stale, its images have to be done again. rescore: `open` and `finish` alone bring it
    up to date, because counts do not depend on the threshold.
    """

    recount: list[str]
    rescore: list[str]


class Store:
    """A results folder.

    limit: results of the first N images only live apart from full ones, in limited-<N>/. demo: results of the
    embedded demo, which never replace real ones. shard: (i, n) for one of n processes that share a run; each
    writes files of its own and readers put them together.
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
        self._cells = (self.folder / f"limited-{limit}" if limit else self.folder) / "cells"

    @property
    def cells_folder(self) -> Path:
        """Where the folders of the cells are."""
        return self._cells

    def lock(self) -> AbstractContextManager[None]:
        """To be held while writing; a shard locks out its like only. BenchError if another process has it."""
        return folder_lock(self.folder, f".lock-{self.shard}" if self.shard else ".lock")

    def open(
        self, spec: ResultSpec, indices: Collection[int] | None = None, *, boundary: bool = False, fresh: bool = False
    ) -> ResultWriter:
        """The writer of one result, which knows what is on the disk already.

        indices: which images fall to this process; all by default. boundary: images without boundary counts are to
        be done again. fresh: forget what is stored.
        """
        record = self._record(spec)
        planned = range(len(spec.images)) if indices is None else indices
        record.images.planned = len(planned)
        old = self._guarded(spec.settings)
        if old is None and not fresh and not self.shard:
            self._take_counts(spec.settings, record.fingerprint)
        record.history = history_of(old, record, spec.contents, fresh)
        if old and not fresh and old.record.fingerprint == record.fingerprint:
            record.cost = old.record.cost
            earlier = [old.record.made_with, *old.record.earlier]
            record.earlier = [made for made in earlier if differing(record.made_with, made)]
        return ResultWriter(self._place(spec.settings), record, spec, planned, boundary, fresh)

    def record_gap(self, spec: ResultSpec, status: Literal["failed", "no data"], reason: str) -> None:
        """Notes that a cell could not even be started; missing data never hide what was stored before."""
        old = self._guarded(spec.settings)
        if status == "no data" and old and old.counted:
            return
        record = self._record(replace(spec, inputs={}))  # so that counts of earlier runs are not taken for its own
        record.status, record.reason = status, reason
        record.history = history_of_gap(old, f"{status}: {reason}")
        folder = self._place(spec.settings)
        with naming(folder):
            folder.mkdir(parents=True, exist_ok=True)
            record.write(folder)

    def changes(self, settings: Settings, inputs: Mapping[str, str]) -> Changes | None:
        """What changed since the cell was stored; None where nothing is stored."""
        old = self.cell(settings.row, settings.dataset)
        if old is None:
            return None
        recount = changes_for_recount(old, settings, inputs)
        return Changes(recount, setting_changes(old.settings, settings, only=SCORING))

    def cell(self, row: str, dataset: str) -> StoredResult | None:
        """One stored cell; None where there is none, or a damaged one."""
        try:
            return load_result(self._cells / dataset / quote(row, safe="+@"))
        except BenchError:
            return None

    def cells(self) -> list[StoredResult]:
        """All stored cells, by dataset and row; without those that `damaged` names."""
        return self._sorted()[0]

    def damaged(self) -> dict[tuple[str, str], str]:
        """(row, dataset) -> why, of cells whose cell.json cannot be read; a run counts them again."""
        return self._sorted()[1]

    def _sorted(self) -> tuple[list[StoredResult], dict[tuple[str, str], str]]:
        records = [*self._cells.glob(f"*/*/{RECORD}"), *self._cells.glob(f"*/*/shard-*/{RECORD}")]
        depth = len(self._cells.parts) + 2
        cells, damaged = [], {}
        for folder in sorted({Path(*record.parts[:depth]) for record in records}):
            try:
                cell = load_result(folder)
            except BenchError as error:
                damaged[unquote(folder.name), folder.parent.name] = str(error)
            else:
                cells += [cell] if cell is not None else []
        return cells, damaged

    def twin(self, settings: Settings, identity: str) -> StoredResult | None:
        """A whole result of the same dataset and identity that another row has, such as one with another threshold."""
        for folder in sorted((self._cells / settings.dataset).glob("*")):
            other = self.cell(unquote(folder.name), settings.dataset)
            if other is None or other.row == settings.row or other.record.fingerprint != identity:
                continue
            if other.record.demo == self.demo and other.status in ("ok", "incomplete"):
                return other
        return None

    def _take_counts(self, settings: Settings, identity: str) -> None:
        """Copies the counts of a twin, if there is one."""
        twin = self.twin(settings, identity)
        if twin is None or len(twin.pieces) > 1:
            return
        folder = self._place(settings)
        with naming(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(folder / COUNTS, (twin.pieces[0].folder / COUNTS).read_bytes())

    def place(self, row: str, dataset: str) -> Path:
        """The folder of a cell."""
        return self._cells / dataset / quote(row, safe="+@")

    def _place(self, settings: Settings) -> Path:
        return self.place(settings.row, settings.dataset) / self.shard

    def _guarded(self, settings: Settings) -> StoredResult | None:
        """What is stored of a cell; BenchError where a demo's result would meet a real one."""
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


def limits(folder: str | Path) -> list[int]:
    """The N of all limited-<N> folders below a results folder, ascending."""
    found = (re.fullmatch(r"limited-(\d+)", path.name) for path in Path(folder).glob("limited-*"))
    return sorted(int(match[1]) for match in found if match)
