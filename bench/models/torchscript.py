"""Tensors of a TorchScript archive, such as OpenAI's CLIP files, without running the code that it holds.

`torch.jit.load` runs a module's `__setstate__`, which may write to any file.
Here `data.pkl` is read by an unpickler that knows nothing but modules without behaviour and places of stored numbers.
"""

from __future__ import annotations

import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

_NUMBERS = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def is_torchscript(file: Path) -> bool:
    """Return whether the file is a zip archive with the parts of a TorchScript module."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def torchscript_state(file: Path) -> dict[str, Tensor]:
    """Name -> tensor of all parameters, buffers and other tensors of the archive's module.

    A module that is there under two names keeps the first.
    Raises pickle.UnpicklingError for an archive that holds anything else, and what zipfile raises.
    """
    with zipfile.ZipFile(file) as archive:
        (data,) = (name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1)
        root = data.removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise pickle.UnpicklingError("its numbers are not in little-endian order")
        with archive.open(data) as stream:
            module = _Unpickler(stream).load()
        places = dict(_places(module, "", set()))
        storages = {
            name: torch.frombuffer(bytearray(archive.read(f"{root}data/{name}")), dtype=torch.uint8)
            for name in {place.storage.name for place in places.values()}
        }
    return {name: _tensor(place, storages[place.storage.name]) for name, place in places.items()}


class _Storage(NamedTuple):
    kind: str
    name: str


class _Place(NamedTuple):
    """Where a tensor is: offset, size and stride in numbers of its storage."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Module:
    """A module, of which nothing but the attributes is there."""

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}


class _Unpickler(pickle.Unpickler):
    """An unpickler that finds nothing but what is defined here."""

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "__torch__":
            return _Module
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda *arguments: _Place(*arguments[:4])
        if module == "torch.jit._pickle":  # lists of numbers and the like, which are no weights
            return lambda *arguments: None
        if module == "torch" and name in _NUMBERS:
            return name
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a module's weights")

    def persistent_load(self, pid: Any) -> _Storage:
        _, kind, name, _, _ = pid
        return _Storage(kind, name)


def _places(module: Any, path: str, seen: set[int]) -> Iterator[tuple[str, _Place]]:
    if not isinstance(module, _Module) or id(module) in seen:
        return
    seen.add(id(module))
    for name, value in module.attributes.items():
        if isinstance(value, _Place):
            yield f"{path}{name}", value
        else:
            yield from _places(value, f"{path}{name}.", seen)


def _tensor(place: _Place, storage: Tensor) -> Tensor:
    values = storage.view(_NUMBERS[place.storage.kind])
    if math.prod(place.size) > values.numel():
        raise pickle.UnpicklingError(f"a tensor of {place.size} is larger than what is stored of it")
    return values.as_strided(place.size, place.stride, place.offset)
