"""Devices: the choice of one, the memory used on it, and its failures."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.errors import BenchError

_PER_WINDOW = 600 << 20  # bytes
_BATCHES = (64, 36, 18, 9, 4, 2)  # windows; an image of 448 × 448 has nine, and four images share a batch


def choose_device(flag: str | None, dtype: str = "fp32") -> str:
    """Return ``--device``, else the first GPU that torch sees, else the CPU.

    Under torchrun "cuda" is the GPU of the process's local rank.

    Sets, for the whole process, whether products of float32 may round their factors to TF32: with the dtype "tf32", and
    those after a trunk of half precision, which is less exact anyway.

    Raises BenchError where torch cannot use the device, or the device has no TF32.
    """
    torch.backends.cudnn.allow_tf32 = dtype == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = dtype != "fp32"
    device = flag or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and "LOCAL_RANK" in os.environ:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        chosen = torch.empty(0, device=device).device
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
    except (RuntimeError, AssertionError, ImportError) as error:  # each kind of device fails in its own way
        reason = str(error).splitlines()[0]
        raise BenchError(f"--device {device}: {reason}; use --device cpu or another device") from None
    if dtype == "tf32" and chosen.type != "cuda":
        raise BenchError(
            f"--dtype tf32: {device} has no TF32, which CUDA devices from Ampere on have; use --dtype fp32"
        )
    return device


def rounding(device: str, dtype: str) -> str:
    """Name what products are rounded to: the dtype, and what `choose_device` sets beside it on a GPU."""
    half = dtype in ("fp16", "bf16")
    return f"{dtype}, tf32 after the trunk" if half and torch.device(device).type == "cuda" else dtype


def default_workers(device: str) -> int:
    """Return the number of processes that decode images for this one.

    Of the cores that fall to each process that torchrun started on the host, one is left to a GPU's, and at most 8 are
    taken; beside a CPU's own work at most two.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(share, 2) if torch.device(device).type == "cpu" else min(share - 1, 8))


def default_batch(device: str) -> int:
    """Windows at once: four on a CPU, which gains nothing from more; on a GPU 1 to 64, as its free memory holds.

    ViT-B/16 with ten rows takes half a gigabyte per window. Where a model takes more, the batch is halved when memory
    runs out. There are few sizes, because ties depend on it and free memory differs a little from run to run.
    """
    if torch.device(device).type != "cuda":
        return 4
    free, _ = torch.cuda.mem_get_info(torch.device(device))
    return next((batch for batch in _BATCHES if batch * _PER_WINDOW <= free), 1)


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """Compute products of float32 in float32, whatever the run's dtype is."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def products_in(dtype: torch.dtype, device: torch.device) -> torch.autocast:
    """Return the context in which products have a precision; float32 is left as it is."""
    lower = dtype != torch.float32
    return torch.autocast(device.type, dtype if lower else None, enabled=lower)


def peak_memory(device: str | torch.device) -> int:
    """Bytes: the most that tensors on a GPU have taken together, or that this process has; 0 where unknown."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def to_device(array: NDArray[Any], device: str | torch.device) -> Tensor:
    """Put a NumPy array on a device as a tensor, without waiting for what a GPU is doing."""
    tensor = torch.from_numpy(array)
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def to_host(tensor: Tensor) -> Callable[[], NDArray[Any]]:
    """Start to copy a tensor to the CPU; the returned function waits for the copy alone, and gives it."""
    copy = tensor.to("cpu", non_blocking=True)
    if tensor.device.type != "cuda":
        return copy.numpy
    done = torch.cuda.Event()  # type: ignore[no-untyped-call]
    done.record()

    def wait() -> NDArray[Any]:
        done.synchronize()
        array: NDArray[Any] = copy.numpy()
        return array

    return wait


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocation failed, on a GPU or on the CPU."""
    on_cpu = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return on_cpu or isinstance(error, torch.cuda.OutOfMemoryError | MemoryError)
