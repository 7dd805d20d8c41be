"""Per-image counts as a columnar table: one line an image, stored as Parquet.

    index     int32         position in the dataset's fixed order
    id        string        the sample's name
    scene     string        what is resampled together, null where unknown
    error     string        why the image has no counts, null where it has them
    keys      list<int32>   ascending; key = (label * K + predicted) * 100 + bin, see bench.metrics.count
    counts    list<int64>   pixels of each key
    content   string        checksum of the image's files, null where it is not known
    boundary  list<int64>   threshold in hundredths and background class of the prediction, then K pairs
                            (intersection, union) of bench.metrics.boundary; null where not asked for

The bytes of a file depend on its content alone: fixed order, fixed encodings, one row group, and nothing but
the fingerprint of the cell in its metadata.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench.metrics import BINS, Int32s, Ints

SCHEMA = pa.schema(
    [
        ("index", pa.int32()),
        ("id", pa.string()),
        ("scene", pa.string()),
        ("error", pa.string()),
        ("content", pa.string()),
        ("keys", pa.list_(pa.int32())),
        ("counts", pa.list_(pa.int64())),
        ("boundary", pa.list_(pa.int64())),
    ]
)
MOST_PIXELS = 1 << 48  # of one key; sums of these are exact in float64
_FINGERPRINT = b"ovss-bench fingerprint"
# Ascending keys have small differences; the high bytes of counts are nearly all zero. Together 1.6 bytes a
# key.
_ENCODINGS = {
    "keys.list.element": "DELTA_BINARY_PACKED",
    "counts.list.element": "BYTE_STREAM_SPLIT",
    "boundary.list.element": "BYTE_STREAM_SPLIT",
}


@dataclass(frozen=True, eq=False)
class ImageCounts:
    """Stored form of one image: its counts, or the error that kept it from having any.

    boundary: as in the column of that name, see `boundary_line`. content: checksum of its files.
    """

    index: int
    keys: Int32s | None = None
    counts: Ints | None = None
    boundary: Ints | None = None
    error: str | None = None
    content: str | None = None


def to_table(images: Sequence[ImageCounts], names: Sequence[tuple[str, str | None]]) -> pa.Table:
    """Return the table of some images; `names` holds (id, scene) of every image of the dataset."""
    columns: dict[str, list[Any]] = {
        "index": [image.index for image in images],
        "id": [names[image.index][0] for image in images],
        "scene": [names[image.index][1] for image in images],
        "error": [image.error for image in images],
        "content": [image.content for image in images],
        "keys": [image.keys for image in images],
        "counts": [image.counts for image in images],
        "boundary": [image.boundary for image in images],
    }
    return pa.table(columns, schema=SCHEMA)


def encode(table: pa.Table, fingerprint: str) -> bytes:
    """Return the table as a Parquet file that carries the fingerprint of its cell."""
    buffer = io.BytesIO()
    pq.write_table(
        table.combine_chunks().replace_schema_metadata({_FINGERPRINT: fingerprint.encode()}),
        buffer,
        row_group_size=1 << 20,
        compression="zstd",
        compression_level=3,
        use_dictionary=False,
        write_statistics=False,
        column_encoding=_ENCODINGS,
    )
    return buffer.getvalue()


def decode(data: bytes, fingerprint: str, columns: Sequence[str] = tuple(SCHEMA.names)) -> pa.Table | None:
    """Read the columns of the table in a Parquet file; None where it is of other settings.

    Raises ValueError for damage.
    """
    try:
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            if (file.schema_arrow.metadata or {}).get(_FINGERPRINT, b"").decode() != fingerprint:
                return None
            there = file.schema_arrow.names
            wanted = [name for name in columns if name in there]
            table = file.read(wanted, use_threads=False)  # else it may abort at exit: Arrow's issue 34314
    except Exception as error:  # damaged Parquet raises errors of many kinds
        raise ValueError(f"cannot be read ({type(error).__name__})") from None
    for name in columns:
        if name not in there:  # written before the column was
            table = table.append_column(SCHEMA.field(name), pa.nulls(len(table), SCHEMA.field(name).type))
    return table.select(list(columns)).replace_schema_metadata()


def check(table: pa.Table, classes: int, total: int) -> None:
    """Raise ValueError for a table that no run writes.

    classes, total: classes and images of the dataset.
    """
    if table.schema != SCHEMA:
        raise ValueError("its columns are not those of counts")
    if table.column("index").null_count or table.column("id").null_count:
        raise ValueError("an image has no index or no id")
    if pc.count_distinct(table.column("id")).as_py() < table.num_rows:
        raise ValueError("an id stands twice")
    index = table.column("index").to_numpy()
    if index.size and not 0 <= index.min() <= index.max() < total:
        raise ValueError(f"an index is not in 0..{total - 1}")
    failed = table.column("error").is_valid()
    if any(table.column(name).is_null() != failed for name in ("keys", "counts")):
        raise ValueError("an image has neither counts nor an error, or both")
    keys, offsets = flat(table, "keys")
    counts, of_counts = flat(table, "counts")
    if not np.array_equal(offsets, of_counts):
        raise ValueError("keys and counts are not of equal length")
    rises = np.append(keys[1:] > keys[:-1], True)
    rises[offsets[1:][offsets[1:] > 0] - 1] = True  # the last key of an image may be above the next one's first
    if not rises.all() or (keys.size and not 0 <= keys.min() <= keys.max() < (classes + 1) * classes * BINS):
        raise ValueError(f"keys are not ascending, or none of {classes} classes")
    if counts.size and not 0 < counts.min() <= counts.max() < MOST_PIXELS:
        raise ValueError("a count is not positive, or impossibly large")
    boundary, of_boundary = flat(table, "boundary")
    lengths = np.diff(of_boundary)
    if ((lengths != 0) & (lengths != 2 + 2 * classes)).any() or (boundary < 0).any():
        raise ValueError(f"boundary counts are not those of {classes} classes")


def merge(tables: Sequence[pa.Table]) -> pa.Table:
    """Merge tables to one line an image, by index.

    Where an image has several lines, the last with counts wins, else the last.
    """
    table = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
    index = table.column("index").to_numpy()
    if (np.diff(index) > 0).all():
        return table
    has_counts = table.column("error").is_null().to_numpy()
    order = np.lexsort((np.arange(len(index)), has_counts, index))  # by index, then counts, then age
    last = np.append(index[order][1:] != index[order][:-1], True)
    return table.take(order[last])


def renamed(table: pa.Table, names: Sequence[tuple[str, str | None]]) -> pa.Table:
    """Return the table with the ids and scenes of `names`, which may be newer than the counts."""
    index = table.column("index").to_pylist()
    for place, column in ((0, "id"), (1, "scene")):
        values = pa.array([names[i][place] for i in index], pa.string())
        table = table.set_column(table.schema.get_field_index(column), SCHEMA.field(column), values)
    return table


def counted(table: pa.Table) -> pa.Table:
    """Return only the images that have counts."""
    errors = table.column("error")
    return table if errors.null_count == table.num_rows else table.filter(pc.is_null(errors))


def boundary_line(boundary: Ints, threshold: float, background: int) -> Ints:
    """Return the stored form of boundary counts (K, 2), which unlike the others depend on the threshold."""
    return np.concatenate([_scoring(threshold, background), boundary.ravel()])


def boundary_lines(table: pa.Table, classes: int, threshold: float, background: int) -> dict[int, Ints]:
    """Return the boundary counts (K, 2), by index, of the images that have them at this threshold and background."""
    found = {}
    for index, line in zip(table.column("index").to_pylist(), table.column("boundary"), strict=True):
        values = np.asarray(line.values if line.is_valid else [], np.int64)
        if values.size and (values[:2] == _scoring(threshold, background)).all():
            found[index] = values[2:].reshape(classes, 2)
    return found


def _scoring(threshold: float, background: int) -> Ints:
    return np.array([round(100 * threshold), background], np.int64)


def flat(table: pa.Table, column: str) -> tuple[Any, Ints]:
    """Return the values of a list column one after the other, and the N + 1 offsets of its N lists.

    Raises ValueError for null values.
    """
    lists = table.column(column).combine_chunks()
    if lists.values.null_count:
        raise ValueError(f"a value of {column} is null")
    return lists.values.to_numpy(), lists.offsets.to_numpy().astype(np.int64)
