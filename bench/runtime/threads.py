"""Pieces of work that several threads do side by side, one core each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import torch

from bench.runtime.timing import StageGroup

Piece = TypeVar("Piece")
Result = TypeVar("Result")
Given = ParamSpec("Given")


def in_threads(work: Callable[[Piece], Result], pieces: Sequence[Piece]) -> list[Result]:
    """Return `work` of each piece, in order, by as many threads as torch uses.

    Inside `work` torch keeps to one core, so that many small operations need not wait for one another's threads. A
    single piece has all cores to itself. Gradients are not recorded.
    """
    cores = torch.get_num_threads()
    threads = min(cores, len(pieces))
    if threads <= 1:
        with torch.no_grad():
            return [work(piece) for piece in pieces]
    inference = torch.is_inference_mode_enabled()  # thread-local, as is the number of threads
    group = StageGroup()

    def begin() -> None:
        torch.set_num_threads(1)
        group.join()

    def piecework(piece: Piece) -> Result:
        with torch.inference_mode(inference), torch.no_grad():
            return work(piece)

    try:
        with ThreadPoolExecutor(threads, initializer=begin) as pool:
            return list(pool.map(piecework, pieces))
    finally:
        torch.set_num_threads(cores)  # the default for new threads
        group.close()


class Backlog:
    """Tasks that a thread does later, at most `most` of them: adding one more waits for the oldest.

    An error of a task is raised where the next one is added, or by `finish`.
    """

    def __init__(self, pool: Executor, most: int) -> None:
        self._pool = pool
        self._most = most
        self._tasks: deque[Future[object]] = deque()

    def add(self, task: Callable[Given, object], *arguments: Given.args, **options: Given.kwargs) -> None:
        """Submit a task."""
        while self._tasks and (len(self._tasks) >= self._most or self._tasks[0].done()):
            self._tasks.popleft().result()
        self._tasks.append(self._pool.submit(task, *arguments, **options))

    def finish(self) -> None:
        """Wait until all are done."""
        while self._tasks:
            self._tasks.popleft().result()
