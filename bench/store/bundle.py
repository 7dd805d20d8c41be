"""Results that travel: stored cells as one archive with a manifest, out of a results folder and into another one."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from bench import __version__
from bench.errors import BenchError, check_known, one_line, reading, writing
from bench.paths import demo_hint
from bench.runtime.atomic import write_asked, write_atomic
from bench.runtime.provenance import differing
from bench.store.count_files import COUNTS, IMPORTED, PARTS
from bench.store.count_table import encode
from bench.store.record import FORMAT, RECORD, Part, Record, reason_of
from bench.store.result import StoredResult, load_result, numbers
from bench.store.store import Store

MANIFEST = "manifest.json"
# An archive is refused that would be unpacked to more than this; real ones hold counts, which are packed already.
_ROOM, _PACKED = 8 << 20, 32  # bytes, and times its size
_UNREADABLE = (OSError, EOFError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)  # not a whole zip
NOTE = (
    "Counts of pixels by label, predicted class and probability, image by image. The images and labels that they were "
    "made from have licences of their own, which their datasets state."
)


class Manifest(Part):
    """``manifest.json`` of an archive. files: name -> sha256 of all others."""

    format: int
    files: dict[str, str]


def export(store: Store, file: Path, wanted: Callable[[StoredResult], bool] = lambda _: True) -> list[StoredResult]:
    """Write the stored cells to an archive (.zip), shards put together; equal cells give equal bytes.

    Returns what was written. Raises BenchError where there is nothing, and where the file cannot be written.
    """
    cells, files = packed(store, wanted)
    manifest = {
        "format": FORMAT,
        "made_with": f"ovss-bench {__version__}",
        "newest": max(cell.record.written for cell in cells),
        "note": NOTE,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())},
    }
    archived = io.BytesIO()
    with zipfile.ZipFile(archived, "w", zipfile.ZIP_DEFLATED) as archive:
        text = json.dumps(manifest, indent=1) + "\n"
        for name, data in [(MANIFEST, text.encode()), *sorted(files.items())]:
            archive.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    write_asked(file, archived.getvalue())
    return cells


def packed(store: Store, wanted: Callable[[StoredResult], bool]) -> tuple[list[StoredResult], dict[str, bytes]]:
    """Return the stored cells that travel, and their files by name, shards put together. BenchError for none."""
    stored, damaged = store.listing()
    reasons = [*damaged.values(), *(cell.damage for cell in stored if cell.damage)]
    for reason in reasons:
        warnings.warn(f"not in the archive: {reason}", stacklevel=2)
    cells = [cell for cell in stored if not cell.damage and wanted(cell)]
    if not cells:
        raise BenchError(f"{store.folder}: nothing to export; run something first{demo_hint(store.folder)}")
    files: dict[str, bytes] = {}
    for cell in cells:
        place = store.place(cell.row, cell.dataset)
        record, counts = _whole(cell, place)
        files[f"{cell.dataset}/{place.name}/{RECORD}"] = record
        if counts is not None:
            files[f"{cell.dataset}/{place.name}/{COUNTS}"] = counts
    return cells, files


def _whole(cell: StoredResult, place: Path) -> tuple[bytes, bytes | None]:
    """Return cell.json and counts of a cell; of one in shards as if one process had written it."""
    counts = place / COUNTS
    whole = [piece.folder for piece in cell.pieces] == [place] and not any(place.glob(PARTS))
    if whole and counts.is_file() == bool(cell.record.counts_sha256):
        return (place / RECORD).read_bytes(), counts.read_bytes() if counts.is_file() else None
    data = encode(cell.table, cell.record.fingerprint)
    record = cell.record.model_copy(update={"shard": None, "status": cell.status, "reason": cell.reason}, deep=True)
    record.images.planned, record.images.counted, record.images.failed = cell.total, cell.counted, len(cell.failures)
    record.metrics = numbers(cell.images, cell.settings, len(cell.classes), cell.metric)
    record.counts_sha256 = hashlib.sha256(data).hexdigest()
    machines = [made for piece in cell.pieces for made in (piece.record.made_with, *piece.record.earlier)]
    record.earlier = [made for made in machines if differing(record.made_with, made)]
    return record.encoded(), data


def take_in(store: Store, archives: Sequence[Path], replace: bool = False) -> list[Record]:
    """Put the cells of archives into a results folder; return their records.

    All of it is checked first. A cell that is there with other content is refused unless `replace`. Raises BenchError
    for what does not fit; nothing is written then.
    """
    taken: dict[Path, tuple[Record, dict[str, bytes]]] = {}
    origins: dict[Path, bytes] = {}
    for file in archives:
        for folder, (record, files) in _cells(file, store).items():
            target = store.cells_folder / folder
            if target in taken and taken[target][1] != files:
                raise BenchError(f"{file}: {record.row} on {record.dataset} is in another archive with other content")
            if not replace and _differs(target, files):
                raise BenchError(
                    f"{target}: is there with other content; --replace takes the archive's, or choose another --results"
                )
            taken[target] = record, files
            origin = {"archive": file.name, "counts_sha256": record.counts_sha256}
            origins[target] = json.dumps(origin).encode()
    for target, (_, files) in taken.items():
        with writing(target, ""):
            target.mkdir(parents=True, exist_ok=True)
            for name in (COUNTS, RECORD):
                if name in files:
                    write_atomic(target / name, files[name])
                else:
                    (target / name).unlink(missing_ok=True)
            write_atomic(target / IMPORTED, origins[target])
            for part in target.glob(PARTS):
                part.unlink()
            for shard in target.glob("shard-*"):
                shutil.rmtree(shard)
    return [record for record, _ in taken.values()]


def _differs(target: Path, files: dict[str, bytes]) -> bool:
    """Whether a cell is in the folder already that is not the archive's to the byte."""
    there = [file for file in target.glob("*") if file.name in (RECORD, COUNTS) or file.match(PARTS)]
    there += target.glob(f"shard-*/{RECORD}")
    with reading(target, "correct its permissions"):
        return any(files.get(str(file.relative_to(target))) != file.read_bytes() for file in there)


def _cells(file: Path, store: Store) -> dict[str, tuple[Record, dict[str, bytes]]]:
    """Return record and files of the archive's cells by folder; each could be read back if it were in `store`."""
    cells: dict[str, dict[str, bytes]] = {}
    for name, data in _read(file).items():
        folder, _, name = name.rpartition("/")
        cells.setdefault(folder, {})[name] = data
    if not cells:
        raise BenchError(f"{file}: holds no results; `bench export` writes archives")
    return {folder: (checked(file, folder, files, store), files) for folder, files in cells.items()}


def checked(file: Path, folder: str, files: Mapping[str, bytes], store: Store) -> Record:
    """Return the record of a cell that somebody else made, from its files by name.

    file: the archive, or whatever holds it, for errors. folder: of the cell, "<dataset>/<row>".
    Raises BenchError where it disagrees with its folder, its counts, the numbers that it states, or the store.
    """
    try:
        record = Record.parse(files[RECORD])
        place = str(store.place(record.row, record.dataset).relative_to(store.cells_folder))
    except (KeyError, ValueError, BenchError) as error:
        raise BenchError(f"{file}: {folder} has no {RECORD} that can be read ({reason_of(error)})") from None
    named = f"{record.row} on {record.dataset}"
    if place != folder:
        raise BenchError(f"{file}: {folder} holds {named}; get it again")
    if record.demo != store.demo:
        kind, advice = ("of the demo", "give --demo") if record.demo else ("of real data", "leave --demo out")
        raise BenchError(f"{file}: {named} is {kind}; real and demo results are kept apart: {advice}")
    if record.limit != store.limit:
        advice = f"--limit {record.limit}" if record.limit else "import it without --limit"
        images = f"the first {record.limit} images" if record.limit else "all images"
        raise BenchError(f"{file}: {named} is of {images}, which are kept apart: {advice}")
    counts = files.get(COUNTS)
    sha256 = None if counts is None else hashlib.sha256(counts).hexdigest()
    if record.shard or record.counts_sha256 not in (None, sha256) or (counts is None and record.images.counted):
        raise BenchError(f"{file}: {named}: its counts are not those that {RECORD} names; get it again")
    try:
        if counts is not None:
            _check_counts(counts, folder, files, record.limit)
    except Exception as error:  # of bytes that may be anything, by way of several libraries
        reason = one_line(str(error)) or type(error).__name__
        raise BenchError(f"{file}: {named}: its counts are no result ({reason}); get it again") from None
    return record


def _check_counts(counts: bytes, folder: str, files: Mapping[str, bytes], limit: int | None) -> None:
    """Raise where counts are far larger than their file, give no result, or another one than cell.json states."""
    with pq.ParquetFile(io.BytesIO(counts)) as file:
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    columns = [group.column(number) for group in groups for number in range(group.num_columns)]
    values = sum(column.num_values + column.total_uncompressed_size for column in columns)
    if values > _ROOM + _PACKED * len(counts):
        raise ValueError(f"{values:,} values in {len(counts):,} bytes")
    with tempfile.TemporaryDirectory() as root:
        place = Path(root) / folder
        place.mkdir(parents=True)
        for name, data in files.items():
            (place / name).write_bytes(data)
        cell = load_result(place, limit)
        assert cell is not None
        if cell.damage:
            raise ValueError(cell.damage.removeprefix(root))
        if cell.counted != cell.record.images.counted:
            raise ValueError(f"{cell.counted} images, not {cell.record.images.counted}")
        given = numbers(cell.images, cell.settings, len(cell.classes), cell.metric)
        for name, number in cell.record.metrics.items():
            if name not in given or not _equal(number, given[name]):
                raise ValueError(f"{RECORD} states another {name} than they give")


def _equal(stated: object, found: object) -> bool:
    """Whether a number of cell.json, or a list of them, is the one that its counts give; null stands for 0/0."""
    one, other = (np.atleast_1d(np.array(value, float)) for value in (stated, found))
    return one.shape == other.shape and np.allclose(one, other, rtol=1e-9, atol=0, equal_nan=True)


def _read(file: Path) -> dict[str, bytes]:
    """Return the archive's files by name, without the manifest, which they agree with.

    Sizes are looked at before any file.
    """
    if not file.is_file():
        raise BenchError(f"{file}: no such file; give an archive of `bench export`")
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > _ROOM + _PACKED * file.stat().st_size:
                raise ValueError("it would be unpacked to far more than it has room for")
            found = {}
            for member in members:
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise ValueError(f"{member.filename} is packed in another way")
                with archive.open(member) as stream:
                    found[member.filename] = stream.read(member.file_size)
        manifest = Manifest.model_validate_json(found.pop(MANIFEST))
    except _UNREADABLE as error:
        reason = one_line(reason_of(error)) or type(error).__name__
        raise BenchError(f"{file}: no archive of `bench export` ({reason}); get it again") from None
    if manifest.format > FORMAT:
        raise BenchError(f"{file}: of format {manifest.format}; this version reads up to {FORMAT}, install a newer one")
    for name, data in found.items():
        parts = name.split("/")
        if len(parts) != 3 or any(part[:1] in ("", ".") for part in parts) or parts[2] not in (RECORD, COUNTS):
            raise BenchError(f"{file}: holds '{one_line(name)}', which is no part of a result")
        if manifest.files.get(name) != hashlib.sha256(data).hexdigest():
            raise BenchError(f"{file}: {name} is not what the manifest says; get it again")
    if missing := sorted(set(manifest.files) - set(found)):
        raise BenchError(f"{file}: lacks {one_line(missing[0])}; get it again")
    return found


def chosen(store: Store, rows: Sequence[str] | None, datasets: Sequence[str] | None) -> Callable[[StoredResult], bool]:
    """Return the test whether a cell is of these rows and datasets; None for all. BenchError for names of no cell."""
    for names, of, kind in ((rows, "row", "--methods"), (datasets, "dataset", "--datasets")):
        stored = {getattr(cell, of) for cell in store.cells()}
        for name in names or () if stored else ():
            check_known(name, stored, f"{kind}: nothing is stored of {of} '{name}' in {store.folder}")
    return lambda cell: (rows is None or cell.row in rows) and (datasets is None or cell.dataset in datasets)
