"""Small hand-made cells for the tests of store, tables and compare."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np

import bench.store.record
import bench.store.writer
from bench.metrics import BINS
from bench.runtime.checksum import sealed
from bench.settings import ResizeRule, Settings
from bench.store.record import Info, ResultSpec
from bench.store.result import StoredResult
from bench.store.store import Store
from bench.store.writer import ResultWriter

CLASSES = ("background", "roof", "road")
INPUTS = {"weights": "aa", "card": "bb", "plug-in": "cc", "data list": "dd", "vocabulary": "ee"}


def settings(row: str = "sclip", dataset: str = "loveda", **changes: Any) -> Settings:
    defaults: dict[str, Any] = {
        "row": row,
        "dataset": dataset,
        "method": row.partition("+")[0],
        "options": {},
        "backbone": "clip-vit-b16",
        "upsampler": "none",
        "debias": 0.0,
        "debias_on": "scores",
        "resize": ResizeRule(long_side=448),
        "window": 224,
        "stride": 112,
        "scale": 50.0,
        "vocabulary": "cvpr2025",
        "threshold": 0.0,
        "background": 0,
    }
    return Settings(**{**defaults, **changes})


def names(count: int) -> list[tuple[str, str | None]]:
    """Ids and scenes: two images a scene."""
    return [(f"img{i:03d}", f"scene{i // 2}") for i in range(count)]


def random_counts(index: int, classes: int = len(CLASSES)) -> tuple[np.ndarray, np.ndarray]:
    """Keys and counts of one image, the same in every process."""
    generator = np.random.default_rng(index)
    keys = np.flatnonzero(generator.random((classes + 1) * classes * BINS) < 0.05)
    return keys.astype(np.int32), generator.integers(1, 5000, len(keys))


def certain(confusion: Sequence[Sequence[int]], probability_bin: int = 99) -> tuple[np.ndarray, np.ndarray]:
    """Keys and counts of an image with this (K, K) confusion, all pixels in one bin of probability."""
    flat = np.asarray(confusion, np.int64).ravel()
    keys = np.flatnonzero(flat)
    return (keys * BINS + probability_bin).astype(np.int32), flat[keys]


def opened(store: Store, images: int = 6, **options: Any) -> ResultWriter:
    said = {name: options.pop(name) for name in ("settings", "inputs", "classes", "metric", "info") if name in options}
    return store.open(spec(images, **said), **options)


def spec(images: int = 6, **changes: Any) -> ResultSpec:
    """Of `images` images of one scene for two."""
    info = Info(**changes.pop("info", None) or {})
    defaults = {"settings": settings(), "inputs": INPUTS, "classes": CLASSES, "metric": "miou"}
    return ResultSpec(images=names(images), info=info, **{**defaults, **changes})


def stored(
    folder: Path,
    row: str,
    dataset: str,
    images: Sequence[Sequence[Sequence[int]]],
    total: int | None = None,
    **options: Any,
) -> None:
    """A cell whose images have the given confusions; `total` beyond their number leaves it partial."""
    size = options.pop("size", None) or len(images[0])
    contents = options.pop("contents", None) or [None] * len(images)
    store = Store(folder, limit=options.pop("limit", None), demo=options.pop("demo", False))
    writer = opened(
        store,
        total or len(images),
        settings=settings(row, dataset, **options.pop("changes", {})),
        classes=tuple(f"class{k}" for k in range(size)),
        **options,
    )
    for index, (confusion, content) in enumerate(zip(images, contents, strict=True)):
        writer.add(index, *certain(confusion), content=content)
    writer.finish(seconds=1.5)


def write_until_killed(folder: Path, images: int, started: Event) -> None:
    """One life of a cell after the other: counted, merged, forgotten …; each image a part of its own."""
    bench.store.writer.FLUSH_SECONDS = 0.0
    bench.store.record.provenance = dict  # it asks git, which takes longer than the process lives
    store = Store(folder)
    with store.lock():
        opened(store, images)
        started.set()
        while True:
            write(store, images)
            opened(store, images, fresh=True)


def write(store: Store, images: int, **options: Any) -> None:
    """A whole cell of random counts, or what is missing of it."""
    writer = opened(store, images, **options)
    for index in range(images):
        if index not in writer.done:
            writer.add(index, *random_counts(index))
    writer.finish()


def the_cell(store: Store) -> StoredResult:
    cell = store.cell("sclip", "loveda")
    assert cell is not None
    return cell


def record(folder: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((folder / "cells/loveda/sclip/cell.json").read_text())
    return content


def edit(file: Path, **changes: object) -> None:
    """Changes keys of a cell.json and gives it the checksum that belongs to them."""
    file.write_text(json.dumps(sealed(json.loads(file.read_text()) | changes)))


def as_before_checksums(file: Path, without: str = "checksum") -> None:
    """Makes a cell.json what versions without checksums wrote; another key is taken away as well."""
    content = json.loads(file.read_text())
    file.write_text(json.dumps({key: content[key] for key in content if key not in ("checksum", without)}))


def counts_file(folder: Path) -> bytes:
    return (folder / "cells/loveda/sclip/counts.parquet").read_bytes()


def full_disk(descriptor: int) -> None:
    """In place of `os.fsync`."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
