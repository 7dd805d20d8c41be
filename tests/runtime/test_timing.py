"""Stages, timed by a clock that the test sets."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch.autograd.profiler_util import EventList, FunctionEvent

from bench.runtime.threads import in_threads
from bench.runtime.timing import Stopwatch, gpu_work, stage


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def test_stages_within_stages_are_subtracted() -> None:
    clock = Clock()
    with Stopwatch(clock) as watch:
        with stage("outer"):
            clock.now += 2
            with stage("inner"):
                clock.now += 5
            clock.now += 1
        clock.now += 100  # outside any stage
        with stage("inner"):
            clock.now += 4
    assert watch.seconds == {"outer": 3, "inner": 9}
    with stage("after"):
        clock.now += 1
    assert set(watch.seconds) == {"outer", "inner"}


def test_a_stage_that_raises_is_closed() -> None:
    clock = Clock()
    with Stopwatch(clock) as watch:
        with pytest.raises(ValueError), stage("broken"):
            clock.now += 1
            raise ValueError
        with stage("next"):
            clock.now += 2
    assert watch.seconds == {"broken": 1, "next": 2}


@pytest.mark.parametrize("stages", [{"long": 3.0, "short": 1.0}, {}])
def test_the_time_of_threads_is_shared_among_their_stages(stages: dict[str, float]) -> None:
    """Here the clock moves by one second with each look at it, in each thread by what its stages say."""
    looks, here, own = itertools.count(), threading.current_thread(), threading.local()

    def clock() -> float:
        return next(looks) if threading.current_thread() is here else getattr(own, "now", 0.0)

    def work(_: int) -> None:
        for name, seconds in stages.items():
            with stage(name):
                own.now = clock() + seconds

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with Stopwatch(clock) as watch, stage("outer"):
            in_threads(work, range(3))
    finally:
        torch.set_num_threads(before)
    shared = {"outer": 2, "long": 0.75, "short": 0.25} if stages else {"outer": 3}
    assert watch.seconds == shared


def test_a_kernel_is_counted_once_and_not_with_the_operation_that_launched_it() -> None:
    def event(number: int, start: int, end: int, device: str) -> Any:
        where = getattr(torch.autograd.DeviceType, device)
        return FunctionEvent(number, device, 1, start, end, stack=[], use_device="cuda", device_type=where)

    launching, kernels = event(0, 0, 50, "CPU"), [event(1, 10, 40, "CUDA"), event(2, 40, 60, "CUDA")]
    launching.append_kernel("product", 0, 50)
    profiler: Any = EventList([launching, *kernels], use_device="cuda")
    profiler._build_tree()
    assert gpu_work(profiler) == (2, pytest.approx(50e-6))
