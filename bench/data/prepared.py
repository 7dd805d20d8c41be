"""Prepared datasets: samples cut and converted once, in Parquet shards that `bench.data.prepare` writes."""

from __future__ import annotations

import bisect
import hashlib
import json
import warnings
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from bench.data.cards import Card
from bench.data.contents import ContentCache
from bench.data.layouts import DatasetMissing
from bench.data.samples import Sample, SampleSet, open_samples
from bench.errors import BenchError, reading
from bench.runtime.checksum import sealed, unsealed

MANIFEST = "manifest.json"


class Shard(BaseModel):
    """One Parquet file: a row group for each sample, so that any of them can be read alone."""

    model_config = ConfigDict(frozen=True)

    file: str
    rows: int = Field(ge=1)
    bytes: int


class PreparedManifest(BaseModel):
    """Manifest of a prepared folder. recipe: see `recipe`; samples: fingerprint of the files behind it."""

    model_config = ConfigDict(frozen=True)

    dataset: str
    layout: str
    recipe: str
    samples: str
    ids: tuple[str, ...]
    absent: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    contents: tuple[str, ...] = ()  # for each sample, see `SampleSet.content`; empty in older folders
    pairs: int | None = None  # of files that the samples are of
    shards: tuple[Shard, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> PreparedManifest:
        rows = sum(shard.rows for shard in self.shards)
        if self.shards and (rows != len(self.ids) or len(self.contents) not in (0, rows)):
            raise ValueError(f"{rows} samples in shards, {len(self.ids)} names")
        return self

    def fits(self, card: Card) -> bool:
        """Whether the card, as it is now, would make the same samples."""
        return self.layout in card.layouts and self.recipe == recipe(card, self.layout)

    def encoded(self) -> bytes:
        """Return the bytes of manifest.json, with their checksum."""
        return json.dumps(sealed(self.model_dump(mode="json")), ensure_ascii=False).encode()


class PreparedSamples(SampleSet):
    """Samples in the shards of a prepared folder: equal to the bit to the files that they were made of.

    `layout` and `fingerprint()` are the files' as well, so results do not depend on which was read.
    """

    def __init__(self, card: Card, folder: Path, manifest: PreparedManifest) -> None:
        super().__init__(card, manifest.layout, folder, [(name,) for name in manifest.ids])
        self.absent = manifest.absent
        self.warnings = manifest.warnings
        self._fingerprint = manifest.samples
        self._contents = manifest.contents
        self._files = tuple(folder / shard.file for shard in manifest.shards)
        self._starts = np.cumsum([0, *(shard.rows for shard in manifest.shards)]).tolist()

    def read_source(self, source: int) -> Iterator[Sample]:
        row = self._row(source, ["id", "image", "label"])
        if row["id"] != self.ids[source]:
            raise BenchError(f"{self.root}: holds '{row['id']}' for '{self.ids[source]}'; run `bench prepare` again")
        image = _decode(row["image"]["bytes"], cv2.IMREAD_COLOR, self.ids[source], self.root)[..., ::-1]
        yield Sample(source, self.ids[source], np.ascontiguousarray(image), self._label(row, source))

    def read_label(self, source: int) -> NDArray[np.uint8]:
        return self._label(self._row(source, ["label"]), source)

    def fingerprint(self) -> str:
        return self._fingerprint

    def content(self, source: int) -> str:
        return self._contents[source] if self._contents else ""

    def stamp(self, source: int) -> str:
        return self.content(source)

    def _label(self, row: dict[str, Any], source: int) -> NDArray[np.uint8]:
        return _decode(row["label"]["bytes"], cv2.IMREAD_UNCHANGED, self.ids[source], self.root)

    def _row(self, source: int, columns: list[str]) -> dict[str, Any]:
        shard = bisect.bisect_right(self._starts, source) - 1
        file = self._files[shard]
        try:
            table = _opened(file, file.stat().st_mtime_ns).read_row_group(
                source - self._starts[shard], columns=columns, use_threads=False
            )
        except Exception as error:  # damaged Parquet raises errors of many kinds
            raise BenchError(f"{file}: cannot be read ({error}); run `bench prepare` again") from None
        row: dict[str, Any] = table.to_pylist()[0]
        return row


def find_samples(card: Card, data_root: Path, layout: str | None = None) -> SampleSet:
    """Find the samples of a dataset: its prepared shards if they fit the card as it is, else its files.

    Raises DatasetMissing where there is neither, BenchError for damaged shards and for what `open_samples`
    refuses.
    """
    folder = prepared_folder(card, data_root, layout)
    manifest = read_manifest(folder)
    if manifest is None or layout not in (None, manifest.layout):
        return open_samples(card, data_root, layout)
    if manifest.fits(card):
        originals = _other_originals(card, data_root, manifest)
        if originals is not None:
            warnings.warn(
                f"{folder} was prepared from other files than there are now; the original files are used instead; "
                f"run `bench prepare {card.name}` again",
                stacklevel=2,
            )
            return originals
        _check_shards(folder, manifest)
        return PreparedSamples(card, folder, manifest)
    stale = f"{folder} was prepared with another version of the card"
    try:
        samples = open_samples(card, data_root, layout)
    except DatasetMissing:
        raise BenchError(f"{stale}, and the original files are gone; run `bench prepare {card.name}` again") from None
    warnings.warn(f"{stale}, the original files are used instead; run `bench prepare {card.name}` again", stacklevel=2)
    return samples


def _other_originals(card: Card, data_root: Path, manifest: PreparedManifest) -> SampleSet | None:
    """Return the dataset's original files, where they are there and not those that the shards were made of."""
    try:
        samples = open_samples(card, data_root, manifest.layout)
    except BenchError:
        return None
    if samples.fingerprint() != manifest.samples:
        return samples
    if manifest.contents and ContentCache(samples).all() != manifest.contents:
        return samples
    return None


def prepared_folder(card: Card, data_root: Path, layout: str | None = None) -> Path:
    """Return the folder of a dataset's shards; layouts that are only used on request have a separate one."""
    on_request = layout in card.layouts and card.layouts[layout].on_request
    return data_root / "prepared" / (f"{card.name}@{layout}" if on_request else card.name)


def recipe(card: Card, layout: str) -> str:
    """Fingerprint of what decides which ids and arrays a layout gives; no title or threshold changes it."""
    content = card.model_dump(include={"id", "fields", "split", "tiling"}, mode="json")
    rules = card.layouts[layout].model_dump(
        exclude={"about", "archives", "example", "on_request", "comparable", "footnote"}, mode="json"
    )
    rules = {key: value for key, value in rules.items() if value is not None or key not in ("bands", "bits")}
    content |= {"uncounted": card.uncounted} if card.uncounted else {}
    if card.tiling and not card.tiling.fill:
        del content["tiling"]["fill"]
    text = json.dumps([content, rules, card.colours, len(card.classes)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_manifest(folder: Path) -> PreparedManifest | None:
    """Return the manifest of a prepared folder, None where there is none. Raises BenchError for a damaged one."""
    file = folder / MANIFEST
    with reading(file, "correct its permissions"):
        if not file.exists():
            return None
        data = file.read_bytes()
    try:
        unsealed(data, PreparedManifest.model_fields)
        return PreparedManifest.model_validate_json(data)
    except ValueError:
        raise BenchError(f"{file}: damaged; delete {folder} and run `bench prepare` again") from None


def _check_shards(folder: Path, manifest: PreparedManifest) -> None:
    if not manifest.shards:
        raise BenchError(f"{folder / MANIFEST}: names no shards; delete {folder} and run `bench prepare` again")
    for shard in manifest.shards:
        file = folder / shard.file
        if not file.exists() or file.stat().st_size != shard.bytes:
            raise BenchError(f"{file}: not as it was written; delete {folder} and run `bench prepare` again")


@lru_cache(maxsize=8)
def _opened(file: Path, changed: int) -> Any:
    """Return the shard, mapped into memory; opened again when it has changed."""
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(file, memory_map=True, page_checksum_verification=True)


def _decode(data: bytes, flags: int, name: str, folder: Path) -> NDArray[np.uint8]:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if pixels is None:
        raise BenchError(f"{folder}: sample '{name}' is damaged; delete the folder and run `bench prepare` again")
    return np.asarray(pixels, dtype=np.uint8)
