"""Tensors that plug-ins share: whether each holds what it held when it was made."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_STEP = 257  # a prime: no regular part of a tensor falls between the samples
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@contextlib.contextmanager
def counting_changes() -> Iterator[None]:
    """Inside, tensors are made whose changes in place torch counts, which it does not in inference mode."""
    with torch.inference_mode(False), torch.no_grad():
        yield


@dataclass
class _Kept:
    """A tensor, and its state when it was made."""

    name: str
    tensor: Tensor
    version: int | None
    """torch's count of the changes in place, also of those through views; None where it does not count."""
    place: int
    """Address of the first element: another one after `tensor.data = …`."""
    sums: Tensor | None = None
    """Sums that are others after writing around torch's count, see `SharedTensors`; None until it is handed out."""


class SharedTensors:
    """Named tensors, each with its state when it was made.

    Counts and addresses cost nothing to compare.
    What is written through `tensor.data` and `tensor.numpy()` shows in two sums of the memory, read as integers: of
    all, which every changed element changes, and of every 257th, which a new order of the elements changes.
    They are compared of tensors that were handed out; on a GPU that means to wait.
    """

    def __init__(self, sampled: bool = False) -> None:
        """Start with no tensor. sampled: the sum of every 257th has to do, as of weights."""
        self._sampled = sampled
        self._made: list[_Kept] = []

    @classmethod
    def of_weights(cls, model: nn.Module) -> SharedTensors:
        """All parameters and buffers of a model."""
        found = cls(sampled=True)
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            found.keep(f"the weights ({name})", tensor)
        return found

    def keep(self, name: str, tensor: Tensor, handed_out: bool = True) -> Tensor:
        """Remember a tensor in its present state.

        name: how messages call it.
        handed_out: whether plug-ins get it now, not by `hand_out`.
        """
        version = None if tensor.is_inference() else tensor._version
        self._made.append(_Kept(name, tensor, version, tensor.data_ptr()))
        return self.hand_out(tensor) if handed_out else tensor

    def hand_out(self, tensor: Tensor) -> Tensor:
        """Return a tensor that is kept, whose sums are compared from now on."""
        kept = next(one for one in reversed(self._made) if one.tensor is tensor)
        if kept.sums is None:
            kept.sums = self._sums(tensor)
        return tensor

    def clear(self) -> None:
        """Forget all tensors."""
        self._made.clear()

    def changed(self, closely: bool = False) -> str | None:
        """Name of the first tensor that is not as it was made; None for none.

        closely: the sums are compared, too.
        """
        for kept in self._made:
            counted = kept.version is not None and kept.tensor._version != kept.version
            if counted or kept.tensor.data_ptr() != kept.place:
                return kept.name
            if closely and kept.sums is not None and not torch.equal(self._sums(kept.tensor), kept.sums):
                return kept.name
        return None

    def _sums(self, tensor: Tensor) -> Tensor:
        with torch.inference_mode():
            storage = tensor.untyped_storage()
            size = math.gcd(storage.nbytes(), 8) or 1
            memory = torch.empty(0, dtype=_INTEGERS[size], device=tensor.device)
            memory.set_(storage, 0, (storage.nbytes() // size,))  # type: ignore[call-overload]
            sample = memory[::_STEP].sum()
            return sample if self._sampled else torch.stack([sample, memory.sum()])
