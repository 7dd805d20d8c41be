"""Tensors and weights that plug-ins share: whether each holds what it held when it was made."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Hashable, Iterator
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


class _Kept(NamedTuple):
    """A tensor, and its state when it was made."""

    name: str
    tensor: Tensor
    version: int | None
    """torch's count of the changes in place, also of those through views; None where it does not count."""
    place: int
    """Address of the first element: another one after `tensor.data = …`."""

    @classmethod
    def now(cls, name: str, tensor: Tensor) -> _Kept:
        return cls(name, tensor, None if tensor.is_inference() else tensor._version, tensor.data_ptr())

    @property
    def moved(self) -> bool:
        """Whether torch counted a change, or the tensor has other memory."""
        counted = self.version is not None and self.tensor._version != self.version
        return counted or self.tensor.data_ptr() != self.place


class _Summed(NamedTuple):
    """Memory that tensors were handed out from, as integers (n,), every 257th of them, and the sums of both (2,)."""

    name: str
    memory: Tensor
    samples: Tensor
    sums: Tensor

    @classmethod
    def now(cls, name: str, tensor: Tensor) -> _Summed:
        memory = _memory(tensor)
        return cls(name, memory, memory[::_STEP], _sums(memory, memory[::_STEP]))

    @property
    def differs(self) -> bool:
        return not torch.equal(_sums(self.memory, self.samples), self.sums)


class SharedTensors:
    """Named tensors, each with its state when it was made.

    Counts and addresses cost nothing to compare.
    What is written through `tensor.data` and `tensor.numpy()` shows in two sums of the memory, read as integers: of
    all, which every changed element changes, and of every 257th, which a new order of the elements changes.
    They are compared of memory that was handed out; on a GPU that means to wait.
    """

    def __init__(self) -> None:
        self._made: list[_Kept] = []
        self._handed_out: dict[int, _Summed] = {}  # by address, for the views of one memory

    def keep(self, name: str, tensor: Tensor, handed_out: bool = True) -> Tensor:
        """Remember a tensor in its present state.

        name: how messages call it.
        handed_out: whether plug-ins get it now, not by `hand_out`.
        """
        self._made.append(_Kept.now(name, tensor))
        return self.hand_out(tensor) if handed_out else tensor

    @torch.inference_mode()
    def hand_out(self, tensor: Tensor) -> Tensor:
        """Return a tensor that is kept, whose sums are compared from now on."""
        place = tensor.untyped_storage().data_ptr()
        if place not in self._handed_out:
            name = next(kept.name for kept in reversed(self._made) if kept.tensor is tensor)
            self._handed_out[place] = _Summed.now(name, tensor)
        return tensor

    def clear(self) -> None:
        """Forget all tensors."""
        self._made.clear()
        self._handed_out.clear()

    @torch.inference_mode()
    def changed(self, closely: bool = False) -> str | None:
        """Name of the first tensor that is not as it was made; None for none.

        closely: the sums are compared, too.
        """
        if moved := next((kept.name for kept in self._made if kept.moved), None):
            return moved
        return next((one.name for one in self._handed_out.values() if one.differs), None) if closely else None


class SharedWeights:
    """Parameters and buffers of a model, with their state when this was made.

    What is written around torch's count shows in every 257th word of their memory, of which a copy is kept.
    """

    def __init__(self, model: nn.Module) -> None:
        named = [*model.named_parameters(), *model.named_buffers()]
        self._kept = [_Kept.now(f"the weights ({name})", tensor) for name, tensor in named]
        alike: dict[Hashable, dict[str, Tensor]] = {}
        with torch.inference_mode():
            for kept in self._kept:
                memory = _memory(kept.tensor)[::_STEP]
                alike.setdefault((memory.device, memory.dtype), {})[kept.name] = memory
            self._samples = [(some, torch.cat(list(some.values()))) for some in alike.values()]

    @torch.inference_mode()
    def changed(self, closely: bool = False) -> str | None:
        """Name of the first weights that are not as they were; None for none.

        closely: the samples are compared, too; on a GPU that means to wait.
        """
        if moved := next((kept.name for kept in self._kept if kept.moved), None):
            return moved
        for some, before in self._samples if closely and bool(self.differs()) else ():
            start = 0
            for name, now in some.items():
                if not torch.equal(now, before[start : start + len(now)]):
                    return name
                start += len(now)
        return None

    @torch.inference_mode()
    def differs(self) -> Tensor:
        """Whether a sample is another one, bool () on the device; nothing waits for it."""
        found = [(torch.cat([*some.values()]) != before).any() for some, before in self._samples]
        return torch.stack(found).any() if found else torch.tensor(False)


def _memory(tensor: Tensor) -> Tensor:
    """View all memory of a tensor's storage as integers."""
    storage = tensor.untyped_storage()
    size = math.gcd(storage.nbytes(), 8) or 1
    memory = torch.empty(0, dtype=_INTEGERS[size], device=tensor.device)
    memory.set_(storage, 0, (storage.nbytes() // size,))  # type: ignore[call-overload]
    return memory


def _sums(memory: Tensor, samples: Tensor) -> Tensor:
    return torch.stack([samples.sum(), memory.sum()])
