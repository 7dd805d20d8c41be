"""The processes that `torchrun` started together; a single process is a group of one."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from bench.errors import INTERRUPTED, SAID, BenchError

T = TypeVar("T")


@dataclass(frozen=True)
class Distributed:
    """rank: number of this process. size: how many there are."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """True in the process that writes the files and shows the progress."""
        return self.rank == 0

    def average_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over all processes; all must call it, with the same shapes."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        parts = torch.split(flat / self.size, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def shared(self, value: T) -> T:
        """Return the leading process's value, on all of them."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.size > 1:
            dist.barrier()


def launched() -> bool:
    """Return whether torchrun, or `start_processes`, has started this process."""
    return "WORLD_SIZE" in os.environ


def start_processes(arguments: Sequence[str], count: int | None, devices: str | None) -> int:
    """Run `python -m bench` with these arguments in several processes that share the work.

    Returns the exit code of the first one that fails, or 0.

    count: of processes. devices: numbers of GPUs, "0,1,2", one process for each; BenchError where both are given and
    differ. On CPUs the cores are shared out among the processes.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    numbers = [part.strip() for part in devices.split(",")] if devices else []
    if not all(number.isascii() and number.isdigit() for number in numbers) or len(set(numbers)) < len(numbers):
        raise BenchError(f"--devices {devices}: give the numbers of GPUs, each once, as in 0,1")
    if numbers and count not in (None, len(numbers)):
        raise BenchError(f"--processes {count}: --devices {devices} means {len(numbers)}; leave one of both out")
    processes = count or len(numbers)
    if numbers:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(numbers)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // processes)))
    for name in ("torch.distributed.elastic", "torch.distributed.elastic.agent.server.api"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # the processes say what is wrong
    with tempfile.TemporaryDirectory() as said:
        os.environ[SAID] = said
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=f"bench-{os.getpid()}",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
        )
        try:
            elastic_launch(config, sys.executable)("-m", "bench", *arguments)
        except SignalException:
            raise KeyboardInterrupt from None
        except ChildFailedError as error:
            ended = [-failure.exitcode for failure in error.failures.values()]
            killed = [number for number in ended if number > 0 and number != signal.SIGTERM]  # which the others get
            if killed:
                kept = "what was computed is stored, the same command continues from there"
                print(f"bench: a process was ended by signal {killed[0]}; {kept}", file=sys.stderr)
                return 1  # nothing is wrong with the command
            code = int(error.get_first_failure()[1].exitcode)
            if code == INTERRUPTED:
                raise KeyboardInterrupt from None
            return code if code > 0 else 1
        finally:
            del os.environ[SAID]
    return 0


def said_already(message: str) -> bool:
    """Return whether another process that `start_processes` started has printed this message."""
    folder = os.environ.get(SAID)
    if not folder:
        return False
    try:
        (Path(folder) / hashlib.sha256(message.encode()).hexdigest()).touch(exist_ok=False)
    except FileExistsError:
        return True
    except OSError:
        return False
    return False


@contextlib.contextmanager
def init_distributed(device: str) -> Iterator[Distributed]:
    """Join the group that torchrun's environment variables describe, for as long as the block runs."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Distributed()
        return
    # outcomes travel as objects, by way of the CPU: the GPU is not waited for, and two processes may share it
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo")
    try:
        yield Distributed(dist.get_rank(), size)
    except RuntimeError as error:
        if "gloo" not in str(error) and not isinstance(error, dist.DistBackendError):
            raise
        if SAID in os.environ:
            raise KeyboardInterrupt from None  # the process that started this one says so
        raise BenchError("another process of the run has ended; run the same command again") from error
    finally:
        dist.destroy_process_group()
