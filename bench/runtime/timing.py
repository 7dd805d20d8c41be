"""Named stages of the work, timed for `bench speed` and free of charge otherwise; and a run by torch's profiler."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from bench.errors import writing


def wait_for_gpu() -> None:
    """Return when the GPU has done all that it was given, or at once where none is used."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()


class _Current(threading.local):
    watch: Stopwatch | None = None


_current = _Current()


class Stopwatch:
    """Seconds that this thread spends in each stage while this is entered (`with Stopwatch() as watch:`).

    The threads of a `StageGroup` that works for it count too. A stage within another one is subtracted from it.
    Where there is a GPU, its queue is waited for at every boundary, which costs a little speed.

    clock: gives the seconds that it is now, from any start
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = 0.0

    def __enter__(self) -> Stopwatch:
        _current.watch = self
        return self

    def __exit__(self, *_: object) -> None:
        _current.watch = None

    def switch(self) -> None:
        """Book the time since the last boundary for the stage that is open."""
        elapsed = self._elapsed()
        if self._open:
            self.seconds[self._open[-1]] += elapsed

    def share(self, seconds: dict[str, float]) -> None:
        """Book the time since the last boundary for several stages, in proportion to `seconds`."""
        total = sum(seconds.values())
        if not total:
            self.switch()
            return
        elapsed = self._elapsed()
        for name, part in seconds.items():
            self.seconds[name] += elapsed * part / total

    def enter(self, name: str) -> None:
        self.switch()
        self._open.append(name)

    def leave(self) -> None:
        self.switch()
        self._open.pop()

    def _elapsed(self) -> float:
        wait_for_gpu()
        now = self.clock()
        elapsed, self._since = now - self._since, now
        return elapsed


class StageGroup:
    """Threads that work for the one that makes this, while it waits: their stages are booked in its stopwatch."""

    def __init__(self) -> None:
        self._parent = _current.watch
        self._watches: list[Stopwatch] = []
        if self._parent is not None:
            self._parent.switch()

    def join(self) -> None:
        """Begin to book the stages of this thread; each of the threads calls it once."""
        if self._parent is not None:
            watch = Stopwatch(self._parent.clock)
            self._watches.append(watch)
            watch.__enter__()

    def close(self) -> None:
        """Book the time since the threads began for their stages; called when all are done."""
        if self._parent is not None:
            total: dict[str, float] = defaultdict(float)
            for watch in self._watches:
                for name, seconds in watch.seconds.items():
                    total[name] += seconds
            self._parent.share(total)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Mark what runs inside as `name`."""
    watch = _current.watch
    if watch is None:
        yield
        return
    watch.enter(name)
    try:
        yield
    finally:
        watch.leave()


def gpu_work(profiler: profile) -> tuple[int, float]:
    """Return how many kernels and copies a GPU was given, and the seconds that they took."""
    # An operation on the CPU is said to take the time of its kernels, which stand for themselves as well.
    events = [event for event in profiler.key_averages() if str(event.device_type).endswith("CUDA")]
    return sum(event.count for event in events), sum(event.self_device_time_total for event in events) / 1e6


@contextmanager
def profiled(file: str | None) -> Iterator[None]:
    """Write a trace of what runs inside to `file` (for chrome://tracing or ui.perfetto.dev); None: do nothing.

    Prints which share of the time a GPU was busy. Raises BenchError where the file cannot be written.
    """
    if file is None:
        yield
        return
    target = Path(file)
    with writing(f"--profile {file}", "give another file"):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    on_gpu = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    started = time.perf_counter()
    with profile(activities=activities) as profiler:
        yield
        if on_gpu:
            torch.cuda.synchronize()
    took = time.perf_counter() - started
    profiler.export_chrome_trace(str(target))
    share = (
        f"the GPU was busy {100 * gpu_work(profiler)[1] / took:.0f} % of {took:.1f} s"
        if on_gpu
        else f"{took:.1f} s, no GPU"
    )
    print(f"{target}: {share}")
