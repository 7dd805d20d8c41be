"""Datasets on disk, found by names of files alone: quick however big they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from bench.data.cards import Card
from bench.data.layouts import DatasetMissing, dataset_folders, locate
from bench.data.prepared import PreparedManifest, prepared_folder, read_manifest
from bench.errors import BenchError


@dataclass(frozen=True)
class DatasetStatus:
    """State of one dataset on disk.

    images: samples found, or the scenes that they are yet to be cut from (`whole_scenes`). direct: whether
    `bench download` can fetch all of it. problem: why it is incomplete.
    """

    name: str
    title: str
    task: str
    state: Literal["found", "incomplete", "missing"]
    folder: str | None
    layout: str | None
    prepared: bool
    images: int
    whole_scenes: bool
    expected: int | None
    licence: str
    access: str
    sources: tuple[str, ...]
    direct: bool
    problem: str | None


def look(card: Card, data_root: Path) -> DatasetStatus:
    """Look for a dataset below the data root. Raises nothing for what is wrong with it."""
    folder = prepared_folder(card, data_root)
    folders = dataset_folders(card, data_root)
    try:
        manifest = read_manifest(folder)
        if manifest is not None and not _outgrown(card, folders, manifest):
            shards = _There(folder, manifest.layout, len(manifest.ids), manifest.absent, prepared=True)
            return _status(card, shards)
        if not folders:
            return _status(card, _There())
        found = locate(card, folders)
    except DatasetMissing:
        problem = f"{folders[0]} has no layout of the card; see `bench datasets check {card.name}`"
        return _status(card, _There(folders[0], problem=problem))
    except BenchError as error:
        return _status(card, _There(problem=str(error)))
    scenes = card.layouts[found.layout].cut
    return _status(card, _There(found.root, found.layout, len(found.pairs), found.absent, whole_scenes=scenes))


def _outgrown(card: Card, folders: Sequence[Path], manifest: PreparedManifest) -> bool:
    """Return whether the original files are there and are more or fewer than those that the shards were made of."""
    try:
        return bool(folders) and manifest.pairs not in (None, len(locate(card, folders, manifest.layout).pairs))
    except BenchError:
        return False


def shortfall(card: Card, images: int) -> str | None:
    """ "4 of 1,669 images" where there are fewer than the card expects; None where there are enough, or no number."""
    if card.expected_count is None or images >= card.expected_count:
        return None
    return f"{images:,} of {card.expected_count:,} images"


def count_is_unverified(card: Card) -> bool:
    """Return whether the card doubts its number of images: an `unverified` statement begins with "the count"."""
    return any(statement.startswith("the count") for statement in card.unverified)


class _There(NamedTuple):
    """Findings about a dataset's files; see `DatasetStatus`. absent: names of the split without a file."""

    folder: Path | None = None
    layout: str | None = None
    images: int = 0
    absent: tuple[str, ...] = ()
    prepared: bool = False
    whole_scenes: bool = False
    problem: str | None = None


def _status(card: Card, there: _There) -> DatasetStatus:
    folder, problem = there.folder, there.problem
    if there.absent:
        problem = f"{len(there.absent)} names of the split have no file, e.g. {there.absent[0]}"
    elif not problem and folder and not there.whole_scenes:
        problem = shortfall(card, there.images)
    return DatasetStatus(
        name=card.name,
        title=card.title,
        task=card.task,
        state="incomplete" if problem else "found" if folder else "missing",
        folder=str(folder) if folder else None,
        layout=there.layout,
        prepared=there.prepared,
        images=there.images,
        whole_scenes=there.whole_scenes,
        expected=card.expected_count,
        licence=card.licence,
        access=card.access,
        sources=card.sources,
        direct=bool(card.downloads) and all(item.url for item in card.downloads if item.needed),
        problem=problem,
    )
