"""Results put onto a branch of a board's clone: with their source, cards and environment, checked as the board will."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.config import Config
from bench.data.cards import is_shipped
from bench.errors import BenchError
from bench.models.upsamplers import find_kind, kind_file
from bench.registry import load_methods, source_hash
from bench.runtime.atomic import write_asked
from bench.runtime.git import git
from bench.runtime.provenance import installed
from bench.runtime.sources import sources
from bench.runtime.yaml_files import read_yaml
from bench.store.bundle import packed
from bench.store.result import StoredResult, cell_folder
from bench.store.store import Store
from bench.store.submission import ENVIRONMENT, SUBMISSIONS, check_name, codes, submissions
from bench.verify.board import Board, check, file_of, shipped_hashes


class Own(NamedTuple):
    """Where what does not ship is found: files of plug-ins, which are imported, folders of cards, configuration."""

    plugins: Sequence[Path]
    cards: Sequence[Path]
    config: Config


class Submitted(NamedTuple):
    """What was done. faults: why nothing was, a line each. branch: of the commit. cells, bytes: of this submission."""

    faults: list[str]
    branch: str
    cells: int
    bytes: int


def submit(clone: Path, name: str, store: Store, wanted: Callable[[StoredResult], bool], own: Own) -> Submitted:
    """Commit stored results that were counted to a new branch of a board's clone, beside what `name` has there.

    The clone is changed where nothing is wrong alone. Raises BenchError for what is no board, for results, source and
    cards that are not there, and where git fails.
    """
    check_name(name)
    submissions(clone)  # is it a board?
    place, target = f"{SUBMISSIONS}/{name}", clone / SUBMISSIONS / name
    git(clone, "var", "GIT_AUTHOR_IDENT")
    if git(clone, "status", "--porcelain", "--", place):
        raise BenchError(f"{clone}: {place} has changes that are not committed; commit them, or `git restore` it")
    cells, files = packed(store, lambda cell: cell.counted > 0 and wanted(cell))
    files = {f"cells/{file}": data for file, data in files.items()} | _carried(cells, own)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / name
        if target.is_dir():
            shutil.copytree(target, draft, symlinks=True)
        for source in {Path(*Path(file).parts[:2]) for file in files if file.startswith("methods/")}:
            shutil.rmtree(draft / source, ignore_errors=True)
        for file, data in files.items():
            write_asked(draft / file, data)
        faults = check(Board(clone, cells[0].record.demo, {name: draft}), [name]).faults
        if faults:
            return Submitted(faults, "", 0, 0)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(draft, target)
    git(clone, "add", "-A", "-f", "--", place)  # whatever the user's git ignores
    if not git(clone, "status", "--porcelain", "--", place):
        raise BenchError(f"{clone}: {place} holds all of it already")
    branch, taken = f"submit-{name}", git(clone, "branch", "--format=%(refname:short)").split()
    branch = next(one for one in (branch, *(f"{branch}-{n}" for n in range(2, len(taken) + 3))) if one not in taken)
    git(clone, "switch", "-q", "-c", branch)
    git(clone, "commit", "-q", "-m", f"Results of {name}: {len(cells)} cells", "--", place)
    return Submitted([], branch, len(cells), sum(map(len, files.values())))


def _carried(cells: Sequence[StoredResult], own: Own) -> dict[str, bytes]:
    """Return what a submission carries besides its cells, by name: source and cards that do not ship, environment.

    Raises BenchError for source that is not what counted the cells.
    """
    files = {ENVIRONMENT: "".join(f"{line}\n" for line in installed()).encode()}
    methods = load_methods(own.plugins)
    for cell in cells:
        where = f"{cell.row} on {cell.dataset}"
        for name, code in codes(cell).items():
            if shipped_hashes(name, methods):
                continue
            file = file_of(name, methods)
            if file is None and name in own.config.upsamplers:
                file = kind_file(find_kind(own.config.upsamplers[name].kind))
            if file is None or not file.is_file():
                raise BenchError(f"{where}: the source of '{name}' belongs to it; give its file with --plugin")
            if source_hash(file) != code:
                raise BenchError(f"{where}: {file} changed since; run it again, or give what counted it with --plugin")
            place = cell_folder(name, "methods")
            files |= {str(place / one.relative_to(file.parent)): one.read_bytes() for one in sources(file)}
        if not is_shipped(cell.dataset):
            files |= _card_files(cell.dataset, own.cards)
    return files


def _card_files(dataset: str, folders: Sequence[Path]) -> dict[str, bytes]:
    """Return the card of a dataset and the lists that it names."""
    file = next((file for folder in folders if (file := folder / f"{dataset}.yaml").is_file()), None)
    if file is None:
        raise BenchError(f"{dataset}: its card belongs to its results; give its folder with --cards")
    content = read_yaml(file, "a dataset card")
    splits = [part.get("split") for part in (content, *content.get("layouts", {}).values())]
    lists = [split["file"] for split in splits if split and "file" in split]
    for name in lists:
        if not (file.parent / name).resolve().is_relative_to(file.parent.resolve()) or not name.endswith(".txt"):
            raise BenchError(f"{file}: split.file {name}: a text file (.txt) beside the card is needed to share it")
    return {f"datasets/{name}": (file.parent / name).read_bytes() for name in (file.name, *lists)}
