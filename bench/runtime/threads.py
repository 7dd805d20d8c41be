"""Pieces of work that several threads do side by side, one core each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import torch

from bench.runtime.timing import Crew

Piece = TypeVar("Piece")
Result = TypeVar("Result")
Given = ParamSpec("Given")


def in_threads(work: Callable[[Piece], Result], pieces: Sequence[Piece]) -> list[Result]:
    """What `work` makes of each piece, in order, by as many threads as torch uses.

    Inside `work` torch keeps to one core, so that many small operations need not wait for one another's threads. A
    single piece has all cores to itself. Gradients are not recorded.
    """
    cores = torch.get_num_threads()
    threads = min(cores, len(pieces))
    if threads <= 1:
        with torch.no_grad():
            return [work(piece) for piece in pieces]
    inference = torch.is_inference_mode_enabled()  # which, like the number of threads, each thread has its own of
    crew = Crew()

    def begin() -> None:
        torch.set_num_threads(1)
        crew.join()

    def piecework(piece: Piece) -> Result:
        with torch.inference_mode(inference), torch.no_grad():
            return work(piece)

    try:
        with ThreadPoolExecutor(threads, initializer=begin) as pool:
            return list(pool.map(piecework, pieces))
    finally:
        torch.set_num_threads(cores)  # what threads yet to come start with
        crew.dismiss()


class Backlog:
    """Tasks that a thread does later, `most` of them at a time: who adds one more waits for the oldest.

    What a task raises is raised where the next one is added, or by `finish`.
    """

    def __init__(self, pool: Executor, most: int) -> None:
        self._pool = pool
        self._most = most
        self._tasks: deque[Future[object]] = deque()

    def add(self, task: Callable[Given, object], *arguments: Given.args, **options: Given.kwargs) -> None:
        """Have a task done."""
        while self._tasks and (len(self._tasks) >= self._most or self._tasks[0].done()):
            self._tasks.popleft().result()
        self._tasks.append(self._pool.submit(task, *arguments, **options))

    def finish(self) -> None:
        """Wait until all are done."""
        while self._tasks:
            self._tasks.popleft().result()
