from __future__ import annotations

import multiprocessing as mp
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from data_helpers import scene
from numpy.typing import NDArray

from bench.data.cards import load_card
from bench.data.images import resize
from bench.data.loader import Loaded, load
from bench.data.samples import Sample, SampleSet, open_samples
from bench.data.schema import Tiling
from bench.demo.writers import write_dataset
from bench.errors import BenchError
from bench.settings import ResizeRule

SMALL, SHORT = ResizeRule(long_side=32), ResizeRule(short_side=24, long_max=64)


class Counted(SampleSet):
    """Four sources of 3, 1, 2 and 4 samples; labels hold how many sources their process had decoded by then.

    fault: what happens in source 2, after its first sample.
    """

    def __init__(self, fault: str = "") -> None:
        sizes = (3, 1, 2, 4)
        ids = [tuple(f"scene{source}_{n}" for n in range(size)) for source, size in enumerate(sizes)]
        super().__init__(load_card("loveda"), "original", Path(), ids)
        self.fault = fault
        self.decoded = 0

    def read_source(self, source: int) -> Iterator[Sample]:
        self.decoded += 1
        for index in self.sources[source]:
            image = np.full((20, 40, 3), index, np.uint8)
            label = np.full((20, 40), self.decoded, np.uint8)
            yield Sample(index, self.ids[index], image, label)
            if source == 2:
                self.fail()

    def fail(self) -> None:
        if self.fault == "unreadable":
            raise BenchError("scene2.tif: the file is\n cut off")
        if self.fault == "decoder":
            raise ZeroDivisionError("a bad header")
        if self.fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "slow":
            time.sleep(60)

    def read_label(self, source: int) -> NDArray[np.uint8]:
        return np.zeros((20, 40), np.uint8)

    def fingerprint(self) -> str:
        return "counted"

    def content(self, source: int) -> str:
        return f"content {source}"

    def stamp(self, source: int) -> str:
        return f"stamp {source}"


def assert_equal(first: list[Loaded], second: list[Loaded]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert (one.index, one.id, one.error) == (other.index, other.id, other.error)
        assert np.array_equal(one.label, other.label)
        assert one.images.keys() == other.images.keys()
        assert all(np.array_equal(one.images[rule], other.images[rule]) for rule in one.images)


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_the_same_samples_in_order_for_any_number_of_workers(workers: int, tmp_path: Path) -> None:
    card = load_card("uavid").model_copy(update={"tiling": Tiling(width=64, height=48)})
    write_dataset(card, tmp_path, [scene(card, 96, 190, seed) for seed in range(3)])
    samples = open_samples(card, tmp_path)
    items = list(load(samples, range(len(samples)), [SMALL, SHORT], workers))
    expected = [sample for source in range(3) for sample in samples.read_source(source)]
    assert [(item.index, item.id) for item in items] == [(n, samples.ids[n]) for n in range(18)]
    for item, sample in zip(items, expected, strict=True):
        assert item.error is None
        assert np.array_equal(item.label, sample.label) and item.label.shape == (48, 64)
        assert item.images[SMALL].shape == (24, 32, 3) and item.images[SMALL].dtype == np.uint8
        assert all(np.array_equal(item.images[rule], resize(sample.image, rule)) for rule in (SMALL, SHORT))


@pytest.mark.parametrize("method", mp.get_all_start_methods())
def test_every_start_method_gives_the_same(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.data.loader._START", method)
    samples = Marking()
    assert_equal(list(load(samples, range(7), [SMALL], 2)), list(load(samples, range(7), [SMALL], 0)))
    assert not mp.active_children()


def test_large_labels_arrive_whole_and_leave_no_descriptor_open() -> None:
    samples = Marking(side=1100)  # more than a mebibyte, which does not go through the pipe
    before = _descriptors()
    alone = list(load(samples, [0, 1, 500], [SMALL], 0))
    for _ in range(2):
        assert_equal(list(load(samples, [0, 1, 500], [SMALL], 2)), alone)
        after = _descriptors()
    assert after <= before + 4  # of the server of processes


def _descriptors() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


@pytest.mark.parametrize("workers", [0, 2])
def test_only_sources_with_wanted_samples_are_decoded_and_each_once(workers: int) -> None:
    samples = Counted()
    items = list(load(samples, [0, 2, 7, 9], [SMALL], workers))
    assert [item.index for item in items] == [0, 2, 7, 9]
    assert [item.images[SMALL][0, 0, 0] for item in items] == [0, 2, 7, 9]
    decoded = [int(item.label[0, 0]) for item in items]
    assert decoded == ([1, 1, 2, 2] if workers == 0 else [1, 1, 1, 1])  # two workers, one source each


@pytest.mark.parametrize("workers", [0, 2])
def test_nothing_wanted_is_nothing_read(workers: int) -> None:
    assert list(load(Counted(), [], [SMALL], workers)) == []


@pytest.mark.parametrize("indices", [[3, 2], [1, 1], [-1], [10]])
def test_indices_must_increase_within_the_samples(indices: list[int]) -> None:
    with pytest.raises(ValueError, match="must increase within 0 … 9"):
        next(load(Counted(), indices, [SMALL], 0))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_file_gives_its_reason_for_each_sample_and_the_rest_goes_on(workers: int) -> None:
    items = list(load(Counted("unreadable"), range(10), [SMALL], workers))
    assert [item.index for item in items] == list(range(10))
    assert [item.index for item in items if item.error] == [5]
    broken = items[5]
    assert broken.error == "scene2.tif: the file is cut off"
    assert broken.id == "scene2_1" and broken.label.shape == (0, 0) and broken.images == {}


def test_a_decoder_that_raises_something_else_is_named() -> None:
    items = list(load(Counted("decoder"), [4, 5, 6], [SMALL], 0))
    assert [item.error for item in items] == [
        None,
        "scene2_1 cannot be read: ZeroDivisionError: a bad header",
        None,
    ]


def test_real_damage_is_reported_with_the_file(tmp_path: Path) -> None:
    card = load_card("loveda")
    folder = write_dataset(card, tmp_path, [scene(card, 64, 64, seed) for seed in range(3)])
    images = sorted(folder.rglob("images_png/*.png"))
    images[1].write_bytes(images[1].read_bytes()[:-100])
    items = list(load(open_samples(card, tmp_path), range(3), [SMALL], 2))
    assert [item.error is None for item in items] == [True, False, True]
    assert str(images[1]) in str(items[1].error) and "\n" not in str(items[1].error)


def test_a_killed_worker_is_an_error_and_no_hang() -> None:
    items = load(Counted("killed"), range(10), [SMALL], 2)
    with pytest.raises(BenchError, match=r"loveda: a loader process died \(exit code -9, killed.* fewer --workers"):
        list(items)
    assert not mp.active_children()


def test_closing_early_ends_the_workers_at_once() -> None:
    items = load(Counted("slow"), range(10), [SMALL], 2)
    assert next(items).index == 0
    assert mp.active_children()  # one may have sent all of its items already
    start = time.monotonic()
    items.close()  # type: ignore[attr-defined]
    assert time.monotonic() - start < 5
    assert not mp.active_children()


def test_an_exception_of_the_consumer_ends_the_workers() -> None:
    def consume() -> None:
        for item in load(Counted("slow"), range(10), [SMALL], 2):
            raise RuntimeError(f"no memory on the GPU for {item.id}")

    with pytest.raises(RuntimeError, match="scene0_0"):
        consume()
    assert not mp.active_children()


_PROGRAM = """
import multiprocessing as mp
import signal
import sys
import time

sys.path.insert(0, {tests!r})
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
from test_loader import SMALL, Marking, load

if __name__ == "__main__":
    for item in load(Marking(), range(1000), [SMALL], 2):
        print(*(child.pid for child in mp.active_children()), flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_its_program(ending: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C, which reaches all processes of a terminal, and the sudden death of the program alone."""
    here = Path(__file__).resolve().parent
    file = tmp_path / "program.py"
    file.write_text(_PROGRAM.format(tests=str(here)))
    program = subprocess.Popen(
        [sys.executable, str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(here.parents[1]), str(here.parent)])},
        start_new_session=True,
    )
    assert program.stdout is not None
    workers = [int(pid) for pid in program.stdout.readline().split()]
    assert len(workers) == 2
    if ending is signal.SIGINT:
        os.killpg(program.pid, ending)
    else:
        program.kill()
    program.wait(30)
    program.stdout.close()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and any(map(_runs, workers)):
        time.sleep(0.05)
    assert not any(map(_runs, workers))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")  # a dead child of a process that does not ask for it stays listed
    try:
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:  # it went between the opening of the file and the reading
        return False


def test_a_worker_does_not_run_ahead_without_bound(tmp_path: Path) -> None:
    items = load(Marking(tmp_path), range(1000), [SMALL], 1)
    next(items)
    time.sleep(0.5)
    made = len(list(tmp_path.iterdir()))
    items.close()  # type: ignore[attr-defined]
    assert 1 <= made < 100


class Marking(SampleSet):
    """Two sources of 500 samples each, square; a sample leaves a file in `folder` when it is made."""

    def __init__(self, folder: Path | None = None, side: int = 64) -> None:
        ids = [tuple(f"{source}_{n}" for n in range(500)) for source in range(2)]
        super().__init__(load_card("loveda"), "original", Path(), ids)
        self.folder, self.side = folder, side

    def read_source(self, source: int) -> Iterator[Sample]:
        for index in self.sources[source]:
            if self.folder:
                (self.folder / str(index)).touch()
            pixels = np.full((self.side, self.side, 3), index % 256, np.uint8)
            yield Sample(index, self.ids[index], pixels, pixels[..., 0] % 7)

    def read_label(self, source: int) -> NDArray[np.uint8]:
        return np.zeros((64, 64), np.uint8)

    def fingerprint(self) -> str:
        return "marking"

    def content(self, source: int) -> str:
        return ""

    def stamp(self, source: int) -> str:
        return ""
