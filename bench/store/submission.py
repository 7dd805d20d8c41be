"""A board: a repository with the results of several people, a folder each, which is read as whatever it may be.

submissions/<name>/cells/<dataset>/<row>/…    cell.json and counts.parquet, as an archive has them: the folder of a
                                              name is a results folder
submissions/<name>/methods/<method>/….py      source of a method, refinement or upsampler that does not ship
submissions/<name>/datasets/<dataset>.yaml    card of a dataset that does not ship, and the lists that it names
submissions/<name>/environment.txt            packages that were installed where the results were submitted from
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from bench.errors import BenchError, one_line, reading
from bench.runtime.atomic import write_atomic
from bench.runtime.sources import hash_of
from bench.settings import EXTERNAL
from bench.store.agreement import agreement
from bench.store.bundle import checked
from bench.store.count_files import COUNTS, IMPORTED
from bench.store.record import RECORD
from bench.store.result import StoredResult, cell_folder
from bench.store.store import Store

SUBMISSIONS: Final = "submissions"
ENVIRONMENT: Final = "environment.txt"
NAME: Final = re.compile(r"[a-z0-9]+([-_.][a-z0-9]+)*")  # as accounts are called, in lower case
LARGEST: Final = {COUNTS: 100 << 20}  # bytes; what git hosts take
LARGE: Final = 1 << 20  # bytes of any other file
MOST_FILES: Final = 20_000
_LAYOUT: Final = re.compile(
    rf"{ENVIRONMENT}|cells/[^/]+/[^/]+/({RECORD}|{COUNTS})|methods/[^/]+/.+\.py|datasets/.+\.(yaml|txt)"
)

_OWN_UPSAMPLER: Final = re.compile(r".*, ([0-9a-f]{64})")  # its weights, whatever made them, and its code


def check_name(name: str) -> None:
    """Raise BenchError for what is no name of a submission."""
    if len(name) > 39 or not NAME.fullmatch(name):
        raise BenchError(f"--name {name}: the name of your account is needed, in lower case, as in ada or ada-b")


def submissions(board: Path) -> dict[str, Path]:
    """Return the folders of a board's submissions by name. BenchError where it is no board, or one is no folder."""
    folder = board / SUBMISSIONS
    if folder.is_symlink() or not folder.is_dir():
        raise BenchError(f"{board}: is no board, for it has no folder {SUBMISSIONS}/; clone the board's repository")
    found = {}
    with reading(folder, "correct its permissions"):
        for entry in sorted(folder.iterdir()):
            if entry.is_symlink() or not entry.is_dir() or not NAME.fullmatch(entry.name):
                if entry.name == "README.md" and entry.is_file() and not entry.is_symlink():
                    continue
                raise BenchError(f"{SUBMISSIONS}/{shown(entry.name)}: is no folder of a submission; remove it")
            found[entry.name] = entry
    return found


def shown(name: str) -> str:
    """Return a name that may be anything as text for one line."""
    return one_line(os.fsencode(name).decode(errors="replace"))


def out_of_place(folder: Path) -> Iterator[str]:
    """Say what of a submission is not where it belongs, is no file, or is too large; nothing is read or followed."""
    count = 0
    for root, folders, files in os.walk(folder):
        if not folders and not files:
            yield f"{shown(str(Path(root).relative_to(folder)))}: an empty folder or another repository; remove it"
        for name in sorted([*folders, *files]):
            count += 1
            if count > MOST_FILES:
                yield f"more than {MOST_FILES:,} files and folders"
                return
            path = Path(root, name)
            place, status = PurePosixPath(path.relative_to(folder)), path.lstat()
            is_folder = stat.S_ISDIR(status.st_mode)
            known = is_folder or _LAYOUT.fullmatch(str(place))
            if name.startswith(".") or not known or not name.isprintable():
                yield f"{shown(str(place))}: no part of a submission is called so; remove it"
            elif not is_folder and not stat.S_ISREG(status.st_mode):
                yield f"{shown(str(place))}: is a link or no file; put the file itself there"
            elif not is_folder and status.st_size > LARGEST.get(name, LARGE):
                yield f"{shown(str(place))}: {status.st_size:,} bytes, at most {LARGEST.get(name, LARGE):,} are taken"


def read_cells(name: str, folder: Path, demo: bool = False) -> tuple[list[StoredResult], list[str]]:
    """Return the cells of a submission that are sound, and what is wrong with the others, a line each.

    Nothing is read where a file is out of place.
    """
    where = Path(SUBMISSIONS, name)
    if odd := [f"{where}/{fault}" for fault in out_of_place(folder)]:
        return [], odd
    store, cells, faults = Store(folder, demo=demo), [], []
    for place in sorted(path for path in folder.glob("cells/*/*") if path.is_dir()):
        files = {file.name: file.read_bytes() for file in sorted(place.iterdir())}
        try:
            record = checked(where, f"{place.parent.name}/{place.name}", files, store)
        except BenchError as error:
            faults.append(one_line(str(error)))
            continue
        cell = store.cell(record.row, record.dataset)
        assert cell is not None
        cells.append(cell)
    return cells, faults


def accepted_cells(folder: Path) -> list[StoredResult]:
    """Return the cells of a submission that was checked when it came; their counts may be damaged."""
    return [] if any(out_of_place(folder)) else Store(folder).cells()


def codes(cell: StoredResult) -> dict[str, str]:
    """Return the hashes of the code that counted a cell, by the name of its method, refinement or own upsampler.

    "" where it does not say.
    """
    settings, inputs = cell.settings, cell.record.inputs
    found = {settings.method: inputs.get("plug-in", ""), settings.refine: inputs.get("refinement", "")}
    if own := _OWN_UPSAMPLER.fullmatch(inputs.get("upsampler", "")):
        found[settings.upsampler] = own[1]
    return {name: code for name, code in found.items() if name not in (EXTERNAL, "none")}


def carried_code(folder: Path, name: str) -> str | None:
    """Return the hash of the source that a submission carries of a plug-in, which is parsed and never run; or None."""
    place = folder / cell_folder(name, "methods")
    files = sorted(file for file in place.rglob("*.py") if file.is_file())
    return hash_of([file.read_bytes() for file in files]) if files else None


def gather(named: Mapping[str, Path], store: Store) -> int:
    """Write the cells of all submissions into one results folder; return how many there are.

    Of several runs of a cell the first submission's is taken. Beside it stands who ran it as well, with which score,
    and how far the two are apart (`StoredResult.runs`).
    """
    taken: dict[Path, tuple[str, StoredResult]] = {}
    runs: dict[Path, list[str]] = {}
    for name, folder in named.items():
        for cell in Store(folder, demo=store.demo).cells():
            target = store.place(cell.row, cell.dataset)
            if cell.damage:
                continue
            if target in taken:
                found = agreement(taken[target][1], cell)
                runs[target].append(f"{name}: {100 * found.second:.2f}, {found.points:.2f} points apart; {found.words}")
            else:
                taken[target], runs[target] = (name, cell), []
    for target, (name, cell) in taken.items():
        shutil.copytree(cell.pieces[0].folder, target)
        origin = {"archive": f"{SUBMISSIONS}/{name}", "counts_sha256": cell.record.counts_sha256, "runs": runs[target]}
        write_atomic(target / IMPORTED, json.dumps(origin).encode())
    return len(taken)
