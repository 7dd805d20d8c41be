"""A CUDA device for machines that have none: tensors that say they are on "cuda:0" and are computed on the CPU.

What a GPU refuses is refused: operations on tensors of two devices, NumPy arrays of the device's memory. So code for
GPUs runs here and gives values; its speed, memory and rounding it does not show.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

_DEVICE = torch.device("cuda", 0)
_CPU = torch.device("cpu")
_INDEXING = {Tensor.__getitem__, Tensor.__setitem__}  # whose indices may lie on the CPU
_BETWEEN_DEVICES = {Tensor.copy_, Tensor.to, torch._has_compatible_shallow_copy_type}
_TO_VALUES = {Tensor.item, Tensor.tolist, Tensor.__bool__, Tensor.__float__, Tensor.__int__, Tensor.__index__}
_TO_NUMPY: set[Any] = {Tensor.numpy, Tensor.__array__}

crossings: list[str] = []
"""Names of the operations that moved something from or to the device; a test that counts them clears it first."""


class PretendedTensor(Tensor):
    """A CPU tensor that says it is on the GPU."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return _DEVICE

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {})


class _Mode(TorchFunctionMode):
    """Sees to what has no tensor of the device among its arguments yet, such as torch.zeros(…, device="cuda")."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {})


@contextlib.contextmanager
def pretended_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within the block, "cuda" is a device."""
    known = {"max_memory_allocated": 1, "get_device_name": "pretended", "mem_get_info": (6 << 30, 6 << 30)}
    for name, value in {**known, "synchronize": None, "empty_cache": None, "set_device": None}.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(torch.cuda, "Event", _Event)
    monkeypatch.setattr(nn.Module, "_apply", _swapping(nn.Module._apply))
    with _Mode():
        yield


class _Event:
    """Of a device that has done all it was given."""

    def record(self) -> None: ...

    def synchronize(self) -> None: ...


def _swapping(apply: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Module.to() that exchanges its parameters: it would exchange their values and keep their class."""

    def swapping(self: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        before = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            return apply(self, *args, **kwargs)
        finally:
            torch.__future__.set_swap_module_params_on_conversion(before)

    return swapping


def _call(func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    with torch._C.DisableTorchFunctionSubclass():
        if func is Tensor.pin_memory:
            return args[0]
        if func is Tensor.__reduce_ex__:  # files hold no pretence
            return _plain(args[0]).__reduce_ex__(args[1])
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = any(isinstance(tensor, PretendedTensor) for tensor in tensors)
        if there:
            _refuse(func, args, tensors)
            if func in _TO_VALUES:
                crossings.append(func.__name__)
        goal = _device_asked_for(func, args, kwargs)
        if goal is None:
            there = isinstance(args[0], PretendedTensor) if func is Tensor.copy_ else there
            out = func(*args, **kwargs)
        else:
            crosses = bool(tensors) and (goal.type == "cuda") != there
            if crosses:
                crossings.append(func.__name__)
            there = goal.type == "cuda"
            out = func(*tree_map(_on_cpu, args), **tree_map(_on_cpu, kwargs))
            out = out.clone() if crosses else out
        return tree_map(_pretended if there else _plain, out)


def _refuse(func: Any, args: Any, tensors: list[Tensor]) -> None:
    if func in _TO_NUMPY:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
    if func in _BETWEEN_DEVICES or (func in _INDEXING and isinstance(args[0], PretendedTensor)):
        return
    if torch._C._current_graph_task_id() != -1:
        return  # a backward pass hands over tensors without their class
    if any(tensor.dim() and not isinstance(tensor, PretendedTensor) for tensor in tensors):
        raise RuntimeError(f"Expected all tensors to be on the same device, but found cuda:0 and cpu! ({func})")


def _device_asked_for(func: Any, args: Any, kwargs: dict[str, Any]) -> torch.device | None:
    if func is Tensor.cpu:
        return _CPU
    named: Any = kwargs.get("device")
    if named is None and func is Tensor.to and len(args) > 1:
        named = args[1].device if isinstance(args[1], Tensor) else args[1]
    return torch.device(named) if isinstance(named, torch.device | str) else None


def _on_cpu(leaf: Any) -> Any:
    return _CPU if isinstance(leaf, torch.device) or (isinstance(leaf, str) and leaf.startswith("cuda")) else leaf


def _pretended(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor) or isinstance(leaf, PretendedTensor):
        return leaf
    with torch._C._DisableTorchDispatch():  # torch 2.4 makes no subclass below a mode that sees its operations
        return leaf.as_subclass(PretendedTensor)


def _plain(leaf: Any) -> Any:
    return leaf.as_subclass(Tensor) if isinstance(leaf, PretendedTensor) else leaf
