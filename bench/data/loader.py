"""Decoded and resized samples for the engine, from worker processes, in fixed order.

Each worker owns every n-th source and writes what it makes of it into its own pipe; the consumer reads the
pipes in the order of the sources. So the order needs no bookkeeping, memory is bounded by what the pipes hold
back, and a worker whose consumer is gone, by whatever accident, ends at its next write.
"""

from __future__ import annotations

import bisect
import contextlib
import mmap
import multiprocessing as mp
import os
import queue
import signal
import sys
import threading
import types
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.data.images import at_sizes
from bench.data.label_faults import impossible_values
from bench.data.samples import Sample, SampleSet
from bench.errors import BenchError
from bench.settings import ResizeRule

_AHEAD = 4  # samples that a worker keeps ready
_LARGE = 1 << 20  # bytes of a label; through a pipe they would go 64 KiB at a time, with a copy at either end
# Not "fork": it copies the locks of threads, OpenCV's and CUDA's among them, without the threads.
_START = "forkserver" if "forkserver" in mp.get_all_start_methods() else "spawn"


@dataclass(frozen=True, eq=False)
class Loaded:
    """One sample as the engine takes it.

    label: uint8 (H, W) at the original size
    images: for each rule the RGB uint8 (h, w, 3) at its size
    error: why the sample cannot be evaluated, in one line that names the file; label (0, 0) and images are empty then
    content: checksum of the files, see `SampleSet.content`
    no_class: whether the error is that the label holds values that are no class
    """

    index: int
    id: str
    label: NDArray[np.uint8]
    images: dict[ResizeRule, NDArray[np.uint8]]
    error: str | None = None
    content: str | None = None
    no_class: bool = False


def load(samples: SampleSet, indices: Iterable[int], rules: Sequence[ResizeRule], workers: int) -> Iterator[Loaded]:
    """Yield the samples at `indices`, which increase, in that order, for any number of workers.

    A source is decoded once, and not at all if none of its samples is wanted. A file that cannot be read
    gives items with `error` set, one for each sample wanted from it. workers = 0 reads in this process.
    Otherwise memory holds one decoded source and a few samples a worker. Closing the iterator ends them.

    Raises BenchError when a worker dies.
    """
    tasks = _tasks(samples, indices)
    if workers < 1 or not tasks:
        for task in tasks:
            yield from _read(samples, task, rules)
        return
    samples.make_ready()
    with contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(_worker(samples, tasks[first::workers], rules))
            for first in range(min(workers, len(tasks)))
        ]
        for turn, task in enumerate(tasks):
            process, pipe = running[turn % len(running)]
            for _ in task.indices:
                yield _receive(pipe, process, samples, task)


class _Task(NamedTuple):
    source: int
    indices: tuple[int, ...]  # wanted of those in the source


def _tasks(samples: SampleSet, indices: Iterable[int]) -> list[_Task]:
    starts = [source.start for source in samples.sources]
    wanted: dict[int, list[int]] = {}
    last = -1
    for index in indices:
        if not last < index < len(samples):
            raise ValueError(f"indices must increase within 0 … {len(samples) - 1}; {index} follows {last}")
        wanted.setdefault(bisect.bisect_right(starts, index) - 1, []).append(index)
        last = index
    return [_Task(source, tuple(found)) for source, found in wanted.items()]


def _read(samples: SampleSet, task: _Task, rules: Sequence[ResizeRule]) -> Iterator[Loaded]:
    """Yield one item for each wanted sample of a source; an unreadable sample carries its error."""
    left = list(task.indices)
    reason = f"{samples.ids[left[0]]} is not in its file; get the file again"
    content = None
    try:
        content = samples.content(task.source) or None
        for sample in samples.read_source(task.source):
            if sample.index == left[0]:
                yield _checked(samples, task.source, sample, rules, content)
                del left[0]
            if not left:
                return
    except BenchError as error:
        reason = str(error)
    except Exception as error:  # decoders raise what they like; one damaged file must not end a long run
        reason = f"{samples.ids[left[0]]} cannot be read: {type(error).__name__}: {error}"
    reason = " ".join(reason.split())
    for index in left:
        yield Loaded(index, samples.ids[index], np.zeros((0, 0), np.uint8), {}, reason, content)


def _checked(
    samples: SampleSet, source: int, sample: Sample, rules: Sequence[ResizeRule], content: str | None
) -> Loaded:
    """Return the sample at the rules' sizes; an error where its label holds values that are no class."""
    reason = impossible_values(samples, source, sample.label)
    if reason:
        return Loaded(sample.index, sample.id, np.zeros((0, 0), np.uint8), {}, reason, content, no_class=True)
    return Loaded(sample.index, sample.id, sample.label, at_sizes(sample.image, rules), None, content)


@contextlib.contextmanager
def _worker(
    samples: SampleSet, tasks: Sequence[_Task], rules: Sequence[ResizeRule]
) -> Iterator[tuple[BaseProcess, Connection]]:
    """Run a worker process; gives it and the pipe that its items come through."""
    context: Any = mp.get_context(_START)
    if _START == "forkserver":
        context.set_forkserver_preload([__name__])  # imported once, not in each worker
    reading, writing = context.Pipe()  # a socket, where there are any: it carries descriptors
    process = context.Process(target=_work, args=(writing, reading, samples, tasks, rules), daemon=True)
    with _without_main():
        process.start()
    writing.close()  # the worker's is the only one left, so its end is the pipe's end
    try:
        yield process, reading
    finally:
        reading.close()
        process.kill()  # nothing to save, and it may be in the middle of a big file
        process.join()


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Start processes that do not import the user's script, whose body would run again in each of them."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _work(
    writing: Connection,
    reading: Connection,
    samples: SampleSet,
    tasks: Sequence[_Task],
    rules: Sequence[ResizeRule],
) -> None:
    """Body of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which ends the workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    reading.close()  # else a write would still succeed when the consumer is gone
    cv2.setNumThreads(0)
    with contextlib.suppress(ConnectionError):
        for item in _ahead(loaded for task in tasks for loaded in _read(samples, task, rules)):
            _send(writing, item)


def _send(pipe: Connection, item: Loaded) -> None:
    """Send an item and None; or without a large label, whose shape follows, and then memory that both ends share."""
    if item.label.nbytes < _LARGE or not hasattr(os, "memfd_create"):
        pipe.send((item, None))
        return
    memory = os.memfd_create("label")
    try:
        with open(memory, "wb", closefd=False) as file:
            file.write(np.ascontiguousarray(item.label).data)
        pipe.send((replace(item, label=item.label[:0, :0]), item.label.shape))
        send_handle(pipe, memory, None)
    finally:
        os.close(memory)


def _ahead(items: Iterator[Loaded]) -> Iterator[Loaded]:
    """Make the items in a thread, while earlier ones wait to be taken."""
    ready: queue.Queue[Loaded | None] = queue.Queue(_AHEAD)

    def fill() -> None:
        try:
            for item in items:
                ready.put(item)
        finally:
            ready.put(None)

    threading.Thread(target=fill, daemon=True).start()
    return iter(ready.get, None)


def _receive(pipe: Connection, process: BaseProcess, samples: SampleSet, task: _Task) -> Loaded:
    try:
        item, shape = pipe.recv()
        if shape is not None:
            memory = recv_handle(pipe)
            item = replace(item, label=np.frombuffer(mmap.mmap(memory, 0), np.uint8).reshape(shape))
            os.close(memory)
    except (EOFError, OSError):
        process.join()
        killed = ", killed, often for want of memory" if (process.exitcode or 0) < 0 else ""
        raise BenchError(
            f"{samples.card.name}: a loader process died (exit code {process.exitcode}{killed}) at "
            f"{samples.ids[task.indices[0]]}; use fewer --workers"
        ) from None
    return cast(Loaded, item)
