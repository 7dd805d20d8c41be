"""Values whose types say that they may be something else, which a test knows better."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor

Value = TypeVar("Value")


def present(value: Value | None) -> Value:
    """Return what is not None."""
    assert value is not None
    return value


def tensor(value: object) -> Tensor:
    """Return a tensor: a parameter that torch types as a module, scores that may be an exception."""
    assert isinstance(value, Tensor), value
    return value
