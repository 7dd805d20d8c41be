"""The count files of a cell: which of them hold, which are damaged, and how parts become one file.

    counts.parquet               the images of a finished run; cell.json names its SHA-256
    part-<number>-<sha256>.parquet   what a running one added; its name holds the SHA-256 of its bytes

A run ends in four steps: all images go into one more part, cell.json names its hash, the part becomes counts.parquet,
the other parts are deleted. So after a kill at any moment, each file can be held against its hash.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from bench.runtime.atomic import sync
from bench.store.count_table import SCHEMA, check, decode, merge
from bench.store.record import AGAIN, DONE, RECORD, Record

COUNTS, PARTS = "counts.parquet", "part-*.parquet"
IMPORTED = "imported.json"  # which archive the counts of a cell were taken from


class Piece(NamedTuple):
    """A folder that one process wrote: the whole cell, or one shard of it."""

    folder: Path
    record: Record


class Reading(NamedTuple):
    """Content of the files of a cell. damaged: file -> why it is left out, and what to do."""

    table: pa.Table
    damaged: dict[Path, str]


def read_counts(pieces: Sequence[Piece], columns: Sequence[str] = tuple(SCHEMA.names)) -> Reading:
    """Read one line per image that the pieces hold, by index; files of other settings are absent."""
    tables, damaged = [], {}
    for piece in pieces:
        for file in count_files(*piece):
            try:
                tables.append(read_file(file, piece.record, columns))
            except OSError as error:
                advice = "correct its permissions" if isinstance(error, PermissionError) else AGAIN
                damaged[file] = f"cannot be read ({error.strerror}); {advice}"
            except ValueError as error:
                damaged[file] = f"{error}; {AGAIN}"
    return Reading(merge([table for table in tables if table is not None]), damaged)


def count_files(folder: Path, record: Record) -> list[Path]:
    """Return the files that a record speaks of: the merged one, then the parts, oldest first.

    Where the record is done, parts beside its merged file were left by a kill; they are in it.
    """
    parts = sorted(folder.glob(PARTS))
    whole = [part for part in parts if record.counts_sha256 and _named_hash(part) == record.counts_sha256]
    merged = folder / COUNTS
    there = [merged] if merged.exists() or merged.is_symlink() or record.counts_sha256 else []
    if record.status in DONE:
        return whole[:1] or there
    return parts if whole else [*there, *parts]


def read_file(file: Path, record: Record, columns: Sequence[str] = tuple(SCHEMA.names)) -> pa.Table | None:
    """Read the columns of one count file; None where it is of other settings.

    All columns are read and checked when a content is first seen in a process. Raises OSError for a file that is not
    there, ValueError for one that is damaged.
    """
    data = file.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    named = record.counts_sha256 if file.name == COUNTS else _named_hash(file)
    unknown = named is None and (file.name != COUNTS or record.checksum is None)  # versions without checksums
    if not unknown and digest != named:
        raise ValueError("not as it was written: its SHA-256 is another one")
    key = (digest, record.fingerprint, len(record.classes), record.images.total)
    table = decode(data, record.fingerprint, columns if key in _checked else SCHEMA.names)
    if table is None:
        return None
    if key not in _checked:
        check(table, len(record.classes), record.images.total)
        if file.name == COUNTS and (np.diff(table.column("index").to_numpy()) <= 0).any():
            raise ValueError("its indices are not ascending")
        _checked.add(key)
    return table.select(list(columns))


_checked: set[tuple[str, str, int, int]] = set()


def sound_counts(folder: Path) -> str | None:
    """Return the SHA-256 of counts.parquet, after finishing an interrupted merge; None unless cell.json vouches for it.

    A damaged cell.json vouches for the hash that is still found in its bytes. One without checksum and hash, as
    versions without checksums left it when they were killed, vouches for any file.
    """
    raw = _bytes(folder / RECORD)
    record: Record | None = None
    with contextlib.suppress(ValueError):
        record = Record.parse(raw)
    if record is not None:
        finish_merge(folder, record)
    counts = _bytes(folder / COUNTS)
    digest = hashlib.sha256(counts).hexdigest()
    if record is None:
        vouched = digest.encode() in raw
    else:
        vouched = digest == record.counts_sha256 or (record.counts_sha256, record.checksum) == (None, None)
    return digest if counts and vouched else None


def finish_merge(folder: Path, record: Record) -> None:
    """Turn the part that holds all images into counts.parquet, if cell.json names it and this was not done yet."""
    for part in folder.glob(PARTS):
        if record.counts_sha256 and _named_hash(part) == record.counts_sha256:
            part.replace(folder / COUNTS)
            sync(folder)


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except PermissionError:
        raise
    except OSError:
        return b""


def part_file(folder: Path, number: int, data: bytes) -> Path:
    """Return where a part with this content belongs."""
    return folder / f"part-{number:06d}-{hashlib.sha256(data).hexdigest()}.parquet"


def part_number(part: Path) -> int:
    return int(part.stem.split("-")[1])


def _named_hash(part: Path) -> str | None:
    """Return the hash in a part's name; None in those of versions without checksums."""
    names = part.stem.split("-")
    return names[2] if len(names) > 2 else None
