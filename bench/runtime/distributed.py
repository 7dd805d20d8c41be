"""The processes that `torchrun` started together; a single process is a crew of one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Peers:
    """rank: number of this process. size: how many there are."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes the files and shows the progress."""
        return self.rank == 0

    def average_(self, tensors: Sequence[Tensor]) -> None:
        """Replaces each tensor by its mean over all processes; all must call it, with the same shapes."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        parts = torch.split(flat / self.size, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def shared(self, value: T) -> T:
        """The leading process's value, on all of them."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def wait(self) -> None:
        """Returns when all processes have come here."""
        if self.size > 1:
            dist.barrier()


@contextlib.contextmanager
def joined_peers(device: str) -> Iterator[Peers]:
    """The crew that torchrun's environment variables describe, for as long as the block runs."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Peers()
        return
    # outcomes travel as objects, by way of the CPU: the GPU is not waited for, and two processes may share it
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo")
    try:
        yield Peers(dist.get_rank(), size)
    finally:
        dist.destroy_process_group()
