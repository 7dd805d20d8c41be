"""Stores that were interrupted, damaged, full or in use."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from narrowed import present
from store_helpers import (
    counts_file,
    opened,
    random_counts,
    record,
    settings,
    the_cell,
    write,
    write_until_killed,
)

from bench.errors import BenchError
from bench.metrics import confusion_at
from bench.store.result import StoredResult
from bench.store.store import Store

ROOT = Path(__file__).resolve().parent.parent.parent


def test_a_resumed_cell_has_the_bytes_of_an_undisturbed_one(tmp_path: Path) -> None:
    write(Store(tmp_path / "undisturbed"), 6)
    store = Store(tmp_path / "resumed")
    first = opened(store)
    for index in (4, 1):
        first.add(index, *random_counts(index))
        first.flush()
    first.add(0, *random_counts(0))  # added, never flushed: lost with the process
    assert the_cell(store).status == "partial"
    folder = tmp_path / "resumed/cells/loveda/sclip"
    (folder / ".part-000002.parquet.tmp").write_bytes(b"PAR1 torn")
    (folder / "part-000003.parquet").write_bytes(b"PAR1 damaged by a power cut")
    second = opened(store)
    assert second.done == {1, 4}
    write(store, 6)
    assert counts_file(tmp_path / "resumed") == counts_file(tmp_path / "undisturbed")
    assert sorted(path.name for path in folder.iterdir()) == ["cell.json", "counts.parquet"]
    assert record(tmp_path / "resumed")["counts_sha256"] == record(tmp_path / "undisturbed")["counts_sha256"]


def test_a_cell_of_several_machines_says_how_far_they_may_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [{"torch": "2.9", "threads": "2", "host": "a"}, {"torch": "2.9", "threads": "4", "host": "b"}]
    write(Store(tmp_path / "one"), 6)
    assert the_cell(Store(tmp_path / "one")).mixture is None
    expected = "not all counted alike (threads 4 -> 2): ties may move 200 pixels in a million"
    for facts, images in zip(made, ((0, 1), (2, 3, 4, 5)), strict=True):  # resumed elsewhere
        monkeypatch.setattr("bench.store.record.provenance", lambda facts=facts: facts)
        writer = opened(Store(tmp_path / "resumed"))
        for index in images:
            writer.add(index, *random_counts(index))
        writer.finish()
    assert the_cell(Store(tmp_path / "resumed")).mixture == expected
    write(Store(tmp_path / "resumed"), 6)  # nothing to do, and the same is still known
    assert the_cell(Store(tmp_path / "resumed")).mixture == expected
    for number, facts in enumerate(made):  # shards
        monkeypatch.setattr("bench.store.record.provenance", lambda facts=facts: facts)
        write(Store(tmp_path / "shards", shard=(number, 2)), 6, indices=range(3 * number, 3 * number + 3))
    assert "threads" in str(the_cell(Store(tmp_path / "shards")).mixture)
    opened(Store(tmp_path / "resumed"), fresh=True).finish()
    assert the_cell(Store(tmp_path / "resumed")).mixture is None


def test_a_run_that_counts_no_image_is_not_said_to_have_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for another threshold, or for label maps alone; nor is one whose images were all counted again."""

    def with_batch(batch: str, **options: Any) -> StoredResult:
        monkeypatch.setattr("bench.store.record.provenance", lambda: {"batch": batch})
        write(Store(tmp_path), 6, info={"device": f"of batch {batch}"}, **options)
        return present(Store(tmp_path).cell(options.get("settings", settings()).row, "loveda"))

    with_batch("2")
    for cell in (
        with_batch("4", settings=settings(threshold=0.3)),
        with_batch("4", settings=settings("other", method="sclip")),  # takes its counts
    ):
        assert (cell.record.made_with, cell.record.earlier, cell.mixture) == ({"batch": "2"}, [], None)
        assert cell.info.device == "of batch 2"
    cell = with_batch("4", boundary=True)
    assert (cell.record.made_with, cell.mixture) == ({"batch": "4"}, None)


def test_damaged_counts_are_counted_again(tmp_path: Path) -> None:
    write(Store(tmp_path), 6)
    (tmp_path / "cells/loveda/sclip/counts.parquet").write_bytes(counts_file(tmp_path)[:-20])
    assert (the_cell(Store(tmp_path)).status, the_cell(Store(tmp_path)).images.num_rows) == ("damaged", 0)
    assert opened(Store(tmp_path)).done == set()


def test_fresh_forgets(tmp_path: Path) -> None:
    write(Store(tmp_path), 6)
    assert opened(Store(tmp_path), fresh=True).done == set()
    assert the_cell(Store(tmp_path)).indices == []


def test_what_was_added_goes_to_the_disk_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = opened(Store(tmp_path))
    writer.add(0, *random_counts(0))
    assert writer.done == set()
    monkeypatch.setattr("bench.store.writer.FLUSH_SECONDS", 0.0)
    writer.add(1, *random_counts(1))
    assert writer.done == {0, 1}


@pytest.mark.slow
def test_twenty_kills_at_random_moments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["store_helpers", "pandas"])  # pyarrow imports pandas when first used
    write(Store(tmp_path / "undisturbed"), 40)
    chance = random.Random(0)
    seen = set()
    for _ in range(20):
        started = processes.Event()
        process = processes.Process(target=write_until_killed, args=(tmp_path / "killed", 40, started))
        process.start()
        assert started.wait(60)
        time.sleep(chance.uniform(0.0, 0.2))
        process.kill()
        process.join()
        cell = Store(tmp_path / "killed").cell("sclip", "loveda")
        if cell is not None:  # whatever is there is whole and right
            seen.add(len(cell.indices))
            expected = [confusion_at(*random_counts(i), 3, 0.0, 0) for i in cell.indices]
            np.testing.assert_array_equal(cell.confusion(), np.reshape(expected, (-1, 4, 3)))
    assert len(seen) > 1  # the moments did differ
    write(Store(tmp_path / "killed"), 40)
    assert the_cell(Store(tmp_path / "killed")).status == "ok"
    assert counts_file(tmp_path / "killed") == counts_file(tmp_path / "undisturbed")


def test_two_runs_on_one_folder_exclude_each_other(tmp_path: Path) -> None:
    code = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from bench.store import Store
with Store(sys.argv[1]).lock():
    print("held", flush=True); sys.stdin.readline()
"""
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    with (
        pytest.raises(BenchError, match=rf"in use by process {holder.pid} on .* since 2.*--results"),
        Store(tmp_path, limit=3).lock(),
    ):
        pass
    with Store(tmp_path, shard=(0, 2)).lock(), Store(tmp_path, shard=(1, 2)).lock():
        pass  # shards write files of their own
    holder.kill()
    holder.communicate()
    with Store(tmp_path).lock():  # a killed holder holds nothing
        pass


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.raises(BenchError, match=r"has no file locks \(No locks available\)"), Store(tmp_path).lock():
        pass


def test_a_lock_is_held_without_a_note_of_its_holder(tmp_path: Path) -> None:
    (tmp_path / ".lock.holder").mkdir()  # cannot be written, as on a full disk
    with Store(tmp_path).lock(), pytest.raises(BenchError, match="in use by another process"), Store(tmp_path).lock():
        pass


def test_a_results_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(BenchError, match=r"file: cannot be used \(File exists\)"),
        Store(tmp_path / "file").lock(),
    ):
        pass
    with pytest.raises(BenchError, match="cannot be written"):
        opened(Store(tmp_path / "file"))
