"""The time of a run by operation, from torch's profiler."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from bench.errors import writing


@contextlib.contextmanager
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
    busy = sum(event.self_device_time_total for event in profiler.key_averages()) / 1e6
    share = f"the GPU was busy {100 * busy / took:.0f} % of {took:.1f} s" if on_gpu else f"{took:.1f} s, no GPU"
    print(f"{target}: {share}")
