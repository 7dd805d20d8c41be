"""Datasets on disk, found by names of files alone: quick however big they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tabulate import tabulate

from bench.data.cards import Card
from bench.data.layouts import DatasetMissing, dataset_folders, locate
from bench.data.prepared import PreparedManifest, prepared_folder, read_manifest
from bench.errors import BenchError
from bench.runtime.room import size_text
from bench.settings import miscount


@dataclass(frozen=True, kw_only=True)
class DatasetStatus:
    """State of one dataset on disk.

    images: samples found, or the scenes that they are yet to be cut from (`whole_scenes`)
    direct: whether `bench download` can fetch all of it
    to_fetch: bytes of the archives that are not there yet; None where a size is not known
    problem: why it is incomplete
    """

    name: str
    title: str
    task: str
    state: Literal["found", "incomplete", "missing"] = "missing"
    folder: str | None = None
    layout: str | None = None
    prepared: bool = False
    images: int = 0
    whole_scenes: bool = False
    expected: int | None
    licence: str
    access: str
    sources: tuple[str, ...]
    direct: bool
    to_fetch: int | None
    problem: str | None = None

    @property
    def how(self) -> str:
        """How to get it, in a line."""
        return f"bench download {self.name}" if self.direct else f"{self.access}: {next(iter(self.sources), '')}"


def datasets_table(entries: Iterable[DatasetStatus], wide: bool = False) -> str:
    """Write a line for each dataset: what is on the disk, what there is to fetch, and how.

    wide: with task, layout and licence.
    """
    lines = []
    for one in entries:
        found = one.state == "found"
        line = {"dataset": one.name, "task": one.task, "state": one.state}
        line["layout"] = f"{one.layout or ''}{' (shards)' if one.prepared else ''}"
        line["images"] = f"{one.images:,}{' scenes, uncut' if one.whole_scenes else ''}"
        if one.expected:
            line["images"] += f" of {one.expected:,}"
        line["to fetch"] = "" if found else size_text(one.to_fetch)
        line["licence"] = one.licence
        line["where it is, or how to get it"] = one.problem or (found and one.folder) or one.how
        lines.append({name: text for name, text in line.items() if wide or name not in ("task", "layout", "licence")})
    widths = {"layout": 16, "licence": 32, "where it is, or how to get it": 44 if wide else 80}
    return tabulate(
        lines, "keys", maxcolwidths=[widths.get(name) for name in next(iter(lines), {})], disable_numparse=True
    )


def look(card: Card, data_root: Path) -> DatasetStatus:
    """Look for a dataset below the data root. Raises nothing for what is wrong with it."""
    shards, folders = prepared_folder(card, data_root), dataset_folders(card, data_root)
    status = DatasetStatus(
        name=card.name,
        title=card.title,
        task=card.task,
        expected=card.expected_count,
        licence=card.licence,
        access=card.access,
        sources=card.sources,
        direct=bool(card.downloads) and all(item.url for item in card.downloads if item.needed),
        to_fetch=_to_fetch(card, folders),
    )
    try:
        manifest = read_manifest(shards)
        if manifest is not None and not folders and not manifest.fits(card):
            raise BenchError(f"{shards} was prepared with another version of the card; run `bench prepare` again")
        if manifest is not None and not _outgrown(card, folders, manifest):
            status = replace(status, folder=str(shards), prepared=True)
            layout, images, absent = manifest.layout, len(manifest.ids), manifest.absent
        elif folders:
            found = locate(card, folders)
            status = replace(status, folder=str(found.root), whole_scenes=card.layouts[found.layout].cut)
            layout, images, absent = found.layout, len(found.pairs), found.absent
        else:
            return status
    except DatasetMissing:
        problem: str | None = f"{folders[0]} has no layout of the card; see `bench datasets check {card.name}`"
        return replace(status, state="incomplete", folder=str(folders[0]), problem=problem)
    except BenchError as error:
        return replace(status, state="incomplete", problem=str(error))
    problem = None if status.whole_scenes else miscount(images, card.expected_count)
    if absent:
        problem = f"{len(absent)} names of the split have no file, e.g. {absent[0]}"
    if problem:
        return replace(status, state="incomplete", layout=layout, images=images, problem=problem)
    return replace(status, state="found", layout=layout, images=images, to_fetch=0)


def _to_fetch(card: Card, folders: Sequence[Path]) -> int | None:
    """Bytes of the needed archives that no folder holds; None where the card lists none or lacks a size."""
    absent = [
        item for item in card.downloads if item.needed and not any((folder / item.file).exists() for folder in folders)
    ]
    sizes = [item.bytes for item in absent if item.bytes]
    return sum(sizes) if card.downloads and len(sizes) == len(absent) else None


def _outgrown(card: Card, folders: Sequence[Path], manifest: PreparedManifest) -> bool:
    """Return whether the original files are there and are more or fewer than those that the shards were made of."""
    try:
        return bool(folders) and manifest.pairs not in (None, len(locate(card, folders, manifest.layout).pairs))
    except BenchError:
        return False


def count_is_unverified(card: Card) -> bool:
    """Return whether the card doubts its number of images: an `unverified` statement begins with "the count"."""
    return any(statement.startswith("the count") for statement in card.unverified)
