from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import pytest
import torch

from bench.runtime.threads import Backlog, in_threads


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_pieces() -> None:
    second_is_done = threading.Event()

    def work(piece: int) -> int:
        if piece == 0:
            assert second_is_done.wait(60)
        if piece == 1:
            second_is_done.set()
        return piece**2

    assert in_threads(work, range(5)) == [0, 1, 4, 9, 16]
    assert in_threads(work, []) == []


def test_each_thread_keeps_to_one_core_and_the_others_keep_theirs() -> None:
    meet = threading.Barrier(3, timeout=10)

    def work(_: int) -> tuple[int, str]:
        meet.wait()  # three at once
        return torch.get_num_threads(), threading.current_thread().name

    cores, names = zip(*in_threads(work, range(3)), strict=True)
    assert cores == (1, 1, 1) and len(set(names)) == 3
    assert torch.get_num_threads() == 3
    later = threading.Thread(target=lambda: cores_of_another.append(torch.get_num_threads()))
    cores_of_another: list[int] = []
    later.start()
    later.join()
    assert cores_of_another == [3]


@pytest.mark.parametrize("pieces", [1, 2])
def test_modes_of_the_caller_hold_inside(pieces: int) -> None:
    weight = torch.ones(2, requires_grad=True)
    with torch.inference_mode():
        out = torch.zeros(pieces, 2)

        def work(piece: int) -> None:
            out[piece] += weight  # which no thread outside inference mode may do

        in_threads(work, range(pieces))
    assert torch.equal(out, torch.ones(pieces, 2))
    assert not any(result.requires_grad for result in in_threads(lambda _: weight * 2, range(pieces)))


def test_an_error_comes_through() -> None:
    def work(piece: int) -> None:
        if piece == 1:
            raise ValueError("piece 1")

    with pytest.raises(ValueError, match="piece 1"):
        in_threads(work, range(4))
    assert torch.get_num_threads() == 3


class Later(Executor):
    """Runs a task once its result is asked for, and keeps the order of both."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def submit(self, task: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        log = self.log
        log.append(f"submitted {arguments[0]}")

        class Waiting(Future[Any]):
            def result(self, timeout: float | None = None) -> Any:
                log.append(f"waited for {arguments[0]}")
                return task(*arguments, **options)

        return Waiting()


def test_a_backlog_holds_so_many_tasks_and_no_more() -> None:
    pool = Later()
    done: list[int] = []
    backlog = Backlog(pool, most=2)
    for number in range(3):
        backlog.add(done.append, number)
    assert pool.log == ["submitted 0", "submitted 1", "waited for 0", "submitted 2"] and done == [0]
    backlog.finish()
    assert pool.log[4:] == ["waited for 1", "waited for 2"] and done == [0, 1, 2]


def test_what_a_task_raises_reaches_who_adds_the_next_one() -> None:
    with ThreadPoolExecutor(1) as pool:
        backlog = Backlog(pool, most=1)
        backlog.add(divmod, 1, 0)
        with pytest.raises(ZeroDivisionError):
            backlog.add(divmod, 1, 1)
        backlog.add(divmod, 1, 0)
        with pytest.raises(ZeroDivisionError):
            backlog.finish()
        backlog.finish()  # said once
