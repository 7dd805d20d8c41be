"""Stored cells that are damaged, misplaced, impossible or unreadable: named, never shown as a number."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from store_helpers import as_before_checksums, edit, opened, random_counts, record, settings, the_cell, write

from bench.errors import BenchError
from bench.store.count_files import COUNTS, part_file
from bench.store.count_table import SCHEMA, encode
from bench.store.record import RECORD
from bench.store.store import Store

CELL = Path("cells/loveda/sclip")


def flipped(data: bytes, place: int) -> bytes:
    """The bytes with one bit changed."""
    return data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with two whole cells; tests damage the one of sclip."""
    store = Store(tmp_path)
    write(store, 2)
    write(store, 2, settings=settings("gem", debias=0.3))
    return store


# ---------------------------------------------------------------------------------------- damage


def test_every_flipped_bit_of_the_counts_is_seen_and_the_cell_counted_again(store: Store) -> None:
    file = store.folder / CELL / COUNTS
    data, whole = file.read_bytes(), the_cell(store).table
    for place in range(0, len(data), 37):
        file.write_bytes(flipped(data, place))
        cell = the_cell(store)
        assert (cell.status, cell.counted, cell.images.num_rows, cell.contents) == ("damaged", 0, 0, {})
        assert str(file) in str(cell.reason) and store.damage("sclip", "loveda") == cell.reason
    assert store.cell("gem", "loveda").status == "ok"
    write(store, 2)
    assert the_cell(store).status == "ok" and the_cell(store).table.equals(whole) and file.read_bytes() == data


def test_every_flipped_bit_of_a_record_is_seen_or_changes_nothing(store: Store) -> None:
    file = store.folder / CELL / RECORD
    data, whole = file.read_bytes(), the_cell(store).record
    seen = 0
    for place in range(0, len(data), 7):
        file.write_bytes(flipped(data, place))
        cell = store.cell("sclip", "loveda")
        if cell is None:
            seen += 1
            assert str(file) in store.damaged()["sclip", "loveda"]
        else:
            assert cell.record == whole  # white space
    assert seen > 100


def test_a_damaged_record_costs_no_counts_as_long_as_it_names_them(store: Store) -> None:
    file = store.folder / CELL / RECORD
    file.write_text(file.read_text().replace('"images"', '"imaqes"'))
    assert store.cell("sclip", "loveda") is None
    assert opened(store, 2).done == {0, 1}


def test_a_damaged_part_costs_its_own_images(tmp_path: Path) -> None:
    store = Store(tmp_path)
    writer = opened(store, 3)
    for index in range(3):
        writer.add(index, *random_counts(index))
        writer.flush()
    second = sorted((tmp_path / CELL).glob("part-*"))[1]
    second.write_bytes(flipped(second.read_bytes(), 300))
    cell = the_cell(store)
    assert (cell.status, cell.indices, cell.damage) == ("partial", [0, 2], None)
    assert f"{second}: not as it was written" in str(cell.reason)
    assert str(cell.reason).endswith("; run the cell again; until then its images are missing")
    assert opened(store, 3).done == {0, 2}


def test_counts_of_other_images_are_not_those_that_the_record_names(store: Store) -> None:
    other = Store(store.folder / "other")
    write(other, 2, settings=settings(debias=0.3))
    shutil.copy(other.folder / CELL / COUNTS, store.folder / CELL / COUNTS)
    assert the_cell(store).status == "damaged"
    (store.folder / CELL / COUNTS).unlink()
    assert "cannot be read (No such file or directory); run the cell again" in str(the_cell(store).reason)


# ---------------------------------------------------------------------------------------- impossible content


def with_column(name: str, values: list[Any], kind: pa.DataType | None = None) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.set_column(
        SCHEMA.names.index(name), name, pa.array(values, kind or SCHEMA.field(name).type)
    )


IMPOSSIBLE = {
    "an index twice": with_column("index", [1, 1]),
    "indices that fall": with_column("index", [1, 0]),
    "an index beyond the last": with_column("index", [0, 2]),
    "a negative index": with_column("index", [-1, 0]),
    "no index": with_column("index", [0, None]),
    "no id": with_column("id", ["a", None]),
    "a negative key": with_column("keys", [[-5, 1], [2]]),
    "a key of no class": with_column("keys", [[0, 4 * 3 * 100], [2]]),
    "keys that fall": with_column("keys", [[5, 1], [2]]),
    "a key twice": with_column("keys", [[1, 1], [2]]),
    "a null for a key": with_column("keys", [[1, None], [2]]),
    "fewer counts than keys": with_column("counts", [[1], [2]]),
    "a count of zero": with_column("counts", [[0, 1], [2]]),
    "a negative count": with_column("counts", [[-7, 1], [2]]),
    "more pixels than there can be": with_column("counts", [[1 << 62, 1], [2]]),
    "counts of an image that failed": with_column("error", ["torn", None]),
    "an image without counts": with_column("keys", [None, [2]]),
    "boundaries of other classes": with_column("boundary", [[0, 0, 1, 1], None]),
    "text for counts": with_column("counts", [["a", "b"], ["c"]], pa.list_(pa.string())),
    "text for indices": with_column("index", ["a", "b"], pa.string()),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_counts_that_no_run_writes_are_damage_though_their_hash_is_right(name: str, store: Store) -> None:
    columns = {"index": [0, 1], "id": ["a", "b"], "keys": [[0, 1], [2]], "counts": [[3, 4], [5]]}
    table = pa.table({field: columns.get(field, [None, None]) for field in SCHEMA.names}, schema=SCHEMA)
    for change, status in ((lambda same: same, "ok"), (IMPOSSIBLE[name], "damaged")):
        data = encode_any(change(table), the_cell(store).record.fingerprint)
        (store.folder / CELL / COUNTS).write_bytes(data)
        edit(store.folder / CELL / RECORD, counts_sha256=hashlib.sha256(data).hexdigest())
        assert the_cell(store).status == status
    assert {cell.row: cell.status for cell in store.cells()} == {"gem": "ok", "sclip": "damaged"}
    assert opened(store, 2).done == set()


def encode_any(table: pa.Table, fingerprint: str) -> bytes:
    """As `encode`, also of tables with columns of other types."""
    try:
        return encode(table, fingerprint)
    except (pa.ArrowException, OSError):
        sink = pa.BufferOutputStream()
        pa.parquet.write_table(table.replace_schema_metadata({"ovss-bench fingerprint": fingerprint}), sink)
        return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    "changes",
    [
        {"metric": "evil"},
        {"metric": "foreground_iou", "classes": ["a"]},
        {"metric": "foreground_iou", "classes": ["a", "b", "c"]},
        {"classes": []},
        {"classes": ["a", "b"], "metric": "miou", "settings": {"background": 2}},
        {"settings": {"background": -1}},
        {"settings": {"background": 99}},
        {"settings": {"threshold": 2.0}},
        {"settings": {"threshold": 0.123}},
        {"settings": {"threshold": "NaN"}},
        {"settings": {"debias": "inf"}},
        {"settings": {"debias": 0.3}},  # is not what the fingerprint says
        {"inputs": {"weights": "other"}},
        {"cost": {"images": 0, "seconds": 1.0}},
        {"cost": {"images": 1, "seconds": "NaN"}},
        {"images": {"total": -1, "planned": 0}},
        {"row": "gem"},
        {"dataset": "udd5"},
        {"limit": 0},
    ],
    ids=str,
)
def test_records_that_no_run_writes_are_damage_though_their_checksum_is_right(
    changes: dict[str, Any], store: Store
) -> None:
    stored = record(store.folder)
    whole = {key: stored[key] | value if key == "settings" else value for key, value in changes.items()}
    edit(store.folder / CELL / RECORD, **whole)
    assert [cell.row for cell in store.cells()] == ["gem"]
    assert str(store.folder / CELL / RECORD) in store.damaged()["sclip", "loveda"]


# ---------------------------------------------------------------------------------------- places


def test_a_copy_under_another_name_is_no_row(store: Store) -> None:
    folder = store.folder / CELL
    shutil.copytree(folder, folder.with_name("sclip-old"))
    assert [cell.row for cell in store.cells()] == ["gem", "sclip"]
    reason = store.damaged()["sclip-old", "loveda"]
    assert f"{folder.with_name('sclip-old')}" in reason and f"{folder} is there too" in reason
    folder.rename(folder.with_name("other"))
    assert store.cell("sclip", "loveda") is None is store.cell("other", "loveda")
    assert "which belongs in" in store.damaged()["other", "loveda"]


def test_swapped_folders_show_no_number_under_another_name(store: Store) -> None:
    folder = store.folder / CELL
    folder.rename(folder.with_name("x"))
    folder.with_name("gem").rename(folder)
    folder.with_name("x").rename(folder.with_name("gem"))
    assert store.cells() == [] and store.damaged().keys() == {("sclip", "loveda"), ("gem", "loveda")}


def test_results_of_other_limits_datasets_and_shards_are_seen(store: Store) -> None:
    folder = store.folder / CELL
    for target in ("limited-2/cells/loveda/sclip", "cells/udd5/sclip", "cells/loveda/sclip/shard-0-of-2"):
        shutil.copytree(folder, store.folder / target)
    limited = Store(store.folder, limit=2)
    assert limited.cells() == [] and "is a full result among --limit 2" in limited.damaged()["sclip", "loveda"]
    assert "belongs in" in store.damaged()["sclip", "udd5"]
    assert "was written as a whole cell" in store.damaged()["sclip", "loveda"]


@pytest.mark.parametrize("row", ["", ".", "..", "x" * 300])
def test_names_that_are_no_folders_are_refused(row: str, tmp_path: Path) -> None:
    for act in (lambda: opened(Store(tmp_path), settings=settings(row)), lambda: Store(tmp_path).cell(row, "loveda")):
        with pytest.raises(BenchError, match="cannot be stored under this name"):
            act()
    with pytest.raises(BenchError, match="cannot be stored under this name"):
        Store(tmp_path).cell("sclip", "../x")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------- kills and permissions


def test_a_kill_at_each_step_of_the_end_loses_nothing(tmp_path: Path) -> None:
    """The four states between the last part and a whole cell."""
    store, folder = Store(tmp_path), tmp_path / CELL
    write(store, 3)
    end, merged = (folder / RECORD).read_bytes(), (folder / COUNTS).read_bytes()
    shutil.rmtree(folder)
    writer = opened(store, 3)
    for index in range(3):
        writer.add(index, *random_counts(index))
        writer.flush()
    whole = part_file(folder, 3, merged)
    steps = [
        lambda: None,
        lambda: whole.write_bytes(merged),
        lambda: (folder / RECORD).write_bytes(end),
        lambda: whole.replace(folder / COUNTS),
    ]
    for number, step in enumerate(steps):
        step()
        copy = tmp_path / str(number)
        shutil.copytree(tmp_path / "cells", copy / "cells")
        assert (the_cell(Store(copy)).status, the_cell(Store(copy)).indices) == ("ok", [0, 1, 2])
        write(Store(copy), 3)
        assert sorted(path.name for path in (copy / CELL).iterdir()) == [RECORD, COUNTS]
        assert (copy / CELL / COUNTS).read_bytes() == merged
        assert the_cell(Store(copy)).record.history == []


def test_parts_beside_a_whole_cell_were_left_by_a_kill_and_show_nothing(store: Store) -> None:
    with tempfile.TemporaryDirectory() as other:
        writer = opened(Store(other), 2)
        writer.add(0, *random_counts(7))
        writer.flush()
        shutil.copy(next(Path(other).rglob("part-*")), store.folder / CELL)
    np.testing.assert_array_equal(the_cell(store).histogram().sum(), sum(random_counts(i)[1].sum() for i in range(2)))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


def as_nobody(act: Callable[[], Any]) -> Any:
    """What the call gives, or raises, without root's right to read all files."""
    if os.geteuid():
        return act()
    os.seteuid(65534)
    try:
        return act()
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("closed", ["cells", "cells/loveda"])
def test_a_folder_that_may_not_be_read_is_not_taken_for_never_run(closed: str, open_folder: Path) -> None:
    store = Store(open_folder)
    write(store, 2)
    (open_folder / closed).chmod(0)
    try:
        for act in (store.cells, store.damaged, lambda: store.cell("sclip", "loveda")):
            with pytest.raises(BenchError, match=r"cannot be read \(Permission denied\)"):
                as_nobody(act)
    finally:
        (open_folder / closed).chmod(0o777)
    assert the_cell(store).status == "ok"


@pytest.mark.parametrize("name", [RECORD, COUNTS, ""])
def test_a_file_that_may_not_be_read_is_named_and_kept(name: str, open_folder: Path) -> None:
    store = Store(open_folder)
    write(store, 2)
    file = open_folder / CELL / name
    for folder in (open_folder / CELL, open_folder / CELL.parent):
        folder.chmod(0o777)
    file.chmod(0)
    try:
        cells, damaged = as_nobody(store.listing)
        shown = "; ".join([*damaged.values(), *(str(as_nobody(partial(getattr, cell, "reason"))) for cell in cells)])
        assert "cannot be read (Permission denied); correct its permissions" in shown and "again" not in shown
        with pytest.raises(BenchError, match="Permission denied"):
            as_nobody(lambda: opened(store, 2))
    finally:
        file.chmod(0o777)
    assert the_cell(store).status == "ok"


# ---------------------------------------------------------------------------------------- older versions


def test_cells_without_checksums_are_read_and_get_one(store: Store) -> None:
    file = store.folder / CELL / RECORD
    written = record(store.folder)["written"]
    as_before_checksums(file)
    assert the_cell(store).status == "ok"
    store.seal("sclip", "loveda")
    content = json.loads(file.read_text())
    assert content["checksum"] and content["written"] == written


def test_a_cell_whose_counts_are_not_those_of_its_record_gets_no_checksum(store: Store) -> None:
    file = store.folder / CELL / RECORD
    edit(file, metrics={"score": 0.999})
    as_before_checksums(file)
    store.seal("sclip", "loveda")
    assert "checksum" not in json.loads(file.read_text())
    counts = store.folder / CELL / COUNTS
    counts.write_bytes(flipped(counts.read_bytes(), 500))
    assert the_cell(store).status == "damaged"


def test_parts_of_a_killed_run_without_checksums_are_continued(tmp_path: Path) -> None:
    store = Store(tmp_path)
    writer = opened(store, 3)
    for index in range(2):
        writer.add(index, *random_counts(index))
        writer.flush()
    for number, part in enumerate(sorted((tmp_path / CELL).glob("part-*"))):
        part.rename(part.with_name(f"part-{number:06d}.parquet"))
    as_before_checksums(tmp_path / CELL / RECORD)
    assert the_cell(store).indices == [0, 1]
    write(store, 3)
    assert the_cell(store).status == "ok"
