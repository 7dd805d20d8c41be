"""Named stages of the work, timed for whoever asks (`bench speed`) and free of charge otherwise."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_watch: Stopwatch | None = None


class Stopwatch:
    """Seconds spent in each stage while this is entered (`with Stopwatch() as watch:`).

    A stage within another one is subtracted from it. Where there is a GPU, its queue is waited for at every
    boundary, which costs a little speed. Not for several threads.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = 0.0

    def __enter__(self) -> Stopwatch:
        global _watch
        _watch = self
        return self

    def __exit__(self, *_: object) -> None:
        global _watch
        _watch = None

    def switch(self) -> None:
        """Books the time since the last boundary for the stage that is open."""
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now

    def enter(self, name: str) -> None:
        self.switch()
        self._open.append(name)

    def leave(self) -> None:
        self.switch()
        self._open.pop()


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Marks what runs inside as `name`."""
    watch = _watch
    if watch is None:
        yield
        return
    watch.enter(name)
    try:
        yield
    finally:
        watch.leave()
