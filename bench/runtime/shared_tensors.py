"""Tensors that plug-ins share: whether each holds what it held when it was made."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

_STEP = 257  # a prime: no regular part of a tensor falls between the samples
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@contextlib.contextmanager
def counting_changes() -> Iterator[None]:
    """Inside, tensors are made whose changes in place torch counts, which it does not in inference mode."""
    with torch.inference_mode(False), torch.no_grad():
        yield


class _State(NamedTuple):
    version: int | None
    """torch's count of the changes in place, also of those through views; None where it does not count."""
    place: int
    """Address of the first element: another one after `tensor.data = …`."""
    sample: Tensor
    """Sum of every 257th element as an integer, on the device: another one after writing around torch's count."""


class SharedTensors:
    """Named tensors, each with its state when it was made.

    Counts and addresses cost nothing to compare.
    Samples also see what is written through `tensor.data` and `tensor.numpy()`; on a GPU comparing them means to wait.
    """

    def __init__(self) -> None:
        self._made: list[tuple[str, Tensor, _State]] = []

    @classmethod
    def of_weights(cls, model: nn.Module) -> SharedTensors:
        """All parameters and buffers of a model."""
        found = cls()
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            found.keep(f"the weights ({name})", tensor)
        return found

    def keep(self, name: str, tensor: Tensor) -> Tensor:
        """Remember a tensor in its present state. name: how messages call it."""
        self._made.append((name, tensor, _state(tensor)))
        return tensor

    def clear(self) -> None:
        """Forget all tensors."""
        self._made.clear()

    def changed(self, closely: bool = False) -> str | None:
        """Name of the first tensor that is not as it was made; None for none.

        closely: samples are compared, too.
        """
        for name, tensor, made in self._made:
            if tensor.data_ptr() != made.place or (made.version is not None and tensor._version != made.version):
                return name
            if closely and bool(_sample(tensor) != made.sample):
                return name
        return None


def _state(tensor: Tensor) -> _State:
    version = None if tensor.is_inference() else tensor._version
    return _State(version, tensor.data_ptr(), _sample(tensor))


def _sample(tensor: Tensor) -> Tensor:
    with torch.inference_mode():
        if not tensor.numel():
            return torch.zeros(())
        extent = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
        some = tensor.as_strided((-(-extent // _STEP),), (_STEP,), tensor.storage_offset())
        return some.view(_INTEGERS[tensor.element_size()]).sum()
