"""Part files that are written while others count."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from store_helpers import counts_file, full_disk, opened, random_counts, write

from bench.errors import BenchError
from bench.store.store import Store
from bench.store.writer import ResultWriter


@pytest.fixture
def writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ResultWriter]:
    """Writes a part in the background after each image."""
    monkeypatch.setattr("bench.store.writer.FLUSH_SECONDS", 0.0)
    with ThreadPoolExecutor(1) as pool:
        writer = opened(Store(tmp_path))
        writer.background = pool
        yield writer


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Until it is set, nothing reaches the disk."""
    fast, forced = threading.Event(), os.fsync

    def sync(descriptor: int) -> None:
        assert fast.wait(60)
        forced(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    yield fast
    fast.set()


def is_as_if_written_at_once(folder: Path) -> bool:
    write(Store(folder / "other"), 6)
    return counts_file(folder) == counts_file(folder / "other")


def test_a_slow_disk_keeps_nobody_waiting(writer: ResultWriter, slow: threading.Event, tmp_path: Path) -> None:
    writer.add(0, *random_counts(0))  # returns while its part is being written
    assert not list(tmp_path.rglob("part-*.parquet"))
    slow.set()
    writer.flush()
    assert writer.done == {0}
    for index in range(1, 6):
        writer.add(index, *random_counts(index))
    writer.finish()
    assert is_as_if_written_at_once(tmp_path)


def test_what_a_full_disk_refused_is_written_later(
    writer: ResultWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full_disk)
        writer.add(0, *random_counts(0))
        with pytest.raises(BenchError, match=r"loveda/sclip: cannot be written \(No space left on device\)"):
            writer.add(1, *random_counts(1))
    for index in range(2, 6):
        writer.add(index, *random_counts(index))
    writer.finish()
    assert is_as_if_written_at_once(tmp_path)


def test_an_interrupt_of_the_wait_writes_nothing_twice(
    writer: ResultWriter, slow: threading.Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(future: Future[None], timeout: float | None = None) -> None:
        raise KeyboardInterrupt

    writer.add(0, *random_counts(0))
    with monkeypatch.context() as patched:
        patched.setattr(Future, "result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            writer.add(1, *random_counts(1))
    slow.set()
    writer.flush()
    parts = sorted(tmp_path.rglob("part-*.parquet"))
    assert [pq.read_table(part).column("index").to_pylist() for part in parts] == [[0], [1]]
