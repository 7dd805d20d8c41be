"""Results that travel: stored cells as one archive with a manifest, out of a results folder and into another one."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from bench import __version__
from bench.errors import BenchError
from bench.runtime.atomic import write_atomic
from bench.store.record import FORMAT, RECORD, Record
from bench.store.result import COUNTS, StoredResult
from bench.store.store import Store

MANIFEST = "manifest.json"
NOTE = (
    "Counts of pixels by label, predicted class and probability, image by image. The images and labels that they were "
    "made from have licences of their own, which their datasets state."
)


def export(store: Store, file: Path, wanted: Callable[[StoredResult], bool] = lambda _: True) -> list[StoredResult]:
    """Writes the stored cells to an archive (.zip); equal cells give equal bytes. Returns what was written.

    Raises BenchError where there is nothing, for a cell that is in shards, and where the file cannot be written.
    """
    cells = [cell for cell in store.cells() if wanted(cell)]
    if not cells:
        raise BenchError(f"{store.folder}: nothing to export; `bench tables` shows what is stored")
    files: dict[str, bytes] = {}
    for cell in cells:
        if len(cell.pieces) > 1:
            raise BenchError(
                f"{cell.row} on {cell.dataset}: is in shards; run it once without --shard, which joins them"
            )
        folder = cell.pieces[0].folder
        for name in (RECORD, COUNTS):
            if (folder / name).is_file():
                files[f"{cell.dataset}/{folder.name}/{name}"] = (folder / name).read_bytes()
    manifest = {
        "format": FORMAT,
        "made_with": f"ovss-bench {__version__}",
        "newest": max(cell.record.written for cell in cells),
        "note": NOTE,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())},
    }
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f".{file.name}.part")
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            text = json.dumps(manifest, indent=1) + "\n"
            for name, data in [(MANIFEST, text.encode()), *sorted(files.items())]:
                archive.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
        part.replace(file)
    except OSError as error:
        raise BenchError(f"{file}: cannot be written ({error.strerror}); give another place") from None
    return cells


def take_in(store: Store, file: Path, replace: bool = False) -> list[Record]:
    """Puts the cells of an archive into a results folder; returns their records.

    All of it is checked first: hashes, records, format. A cell that is there with other content is refused unless
    `replace`. Raises BenchError for what does not fit; nothing is written then.
    """
    files = _read(file)
    folders = sorted({str(PurePosixPath(name).parent) for name in files})
    records = []
    for folder in folders:
        record = _record(file, folder, files)
        if record.demo != store.demo:
            kind = "of the demo" if record.demo else "of real data"
            raise BenchError(
                f"{file}: {record.row} on {record.dataset} is {kind}; real and demo results are kept apart"
            )
        for name in (RECORD, COUNTS):
            target = store.cells_folder / folder / name
            data = files.get(f"{folder}/{name}")
            if not replace and target.is_file() and data is not None and target.read_bytes() != data:
                raise BenchError(
                    f"{target}: is there with other content; --replace takes the archive's, or choose another --results"
                )
        records.append(record)
    for name, data in files.items():
        target = store.cells_folder / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(target, data)
        except OSError as error:
            raise BenchError(f"{target}: cannot be written ({error.strerror})") from None
    return records


def _read(file: Path) -> dict[str, bytes]:
    """The archive's files by name, without the manifest, which they agree with."""
    try:
        with zipfile.ZipFile(file) as archive:
            found = {name: archive.read(name) for name in archive.namelist()}
        manifest = json.loads(found.pop(MANIFEST))
        listed: dict[str, str] = manifest["files"]
        version = int(manifest["format"])
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
        raise BenchError(f"{file}: no archive of `bench export` ({type(error).__name__}: {error})") from None
    if version > FORMAT:
        raise BenchError(f"{file}: of format {version}; this version reads up to {FORMAT}, install a newer one")
    for name, data in found.items():
        parts = PurePosixPath(name).parts
        if len(parts) != 3 or ".." in parts or name.startswith("/") or parts[2] not in (RECORD, COUNTS):
            raise BenchError(f"{file}: holds '{name}', which is no part of a result")
        if listed.get(name) != hashlib.sha256(data).hexdigest():
            raise BenchError(f"{file}: {name} is not what the manifest says; get the archive again")
    if missing := sorted(set(listed) - set(found)):
        raise BenchError(f"{file}: lacks {missing[0]}; get the archive again")
    return found


def _record(file: Path, folder: str, files: dict[str, bytes]) -> Record:
    try:
        record = Record.model_validate_json(files[f"{folder}/{RECORD}"])
    except (KeyError, ValueError) as error:
        raise BenchError(f"{file}: {folder} has no {RECORD} that can be read ({str(error).splitlines()[0]})") from None
    if record.dataset != PurePosixPath(folder).parts[0]:
        raise BenchError(f"{file}: {folder} holds a result on {record.dataset}")
    counts = files.get(f"{folder}/{COUNTS}")
    if counts is not None and record.counts_sha256 not in (None, hashlib.sha256(counts).hexdigest()):
        raise BenchError(f"{file}: {folder}: its counts are not those that {RECORD} names")
    return record


def chosen(rows: Sequence[str] | None, datasets: Sequence[str] | None) -> Callable[[StoredResult], bool]:
    """Whether a cell is of these rows and datasets; None for all."""
    return lambda cell: (rows is None or cell.row in rows) and (datasets is None or cell.dataset in datasets)
