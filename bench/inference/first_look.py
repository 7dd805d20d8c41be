"""Checks of a method on the first windows that it sees: its results, and that it changes nothing that rows share."""

from __future__ import annotations

from torch import Tensor

from bench.errors import BenchError
from bench.inference.row import Found, Row
from bench.inference.window_batch import WindowBatch
from bench.models.backbone import Features
from bench.runtime.process_state import other_randomness

_NOISE = 1e-3  # share of a result's norm by which two calls may differ, far above rounding


def look_at(row: Row, batch: WindowBatch) -> None:
    """Check a row's method on windows: BenchError for wrong results, for two, and for changes of what it is given.

    The method is asked twice: what it computes on the way the first time, such as the keys of a middle block, must not
    be changed by the second.
    """
    first = _asked(row, batch)
    with other_randomness():
        second = _asked(row, batch)
    check_equal(first, second)


def _asked(row: Row, batch: WindowBatch) -> Found:
    found = row.features(batch.trunk, closely=True)
    if row.makes_scores:
        check_scores(found, len(batch.windows), len(row.classes))
    else:
        check_features(found, len(batch.windows), batch.trunk.grid, row.text.shape[-1])
    return found


def check_equal(first: Found, second: Found) -> None:
    """Raise BenchError where two calls of a method on the same windows differ by more than rounding."""
    pairs = [(first, second)] if isinstance(first, Tensor) else zip(first[:2], second[:2], strict=True)
    for one, other in pairs:
        if isinstance(one, Tensor) and isinstance(other, Tensor):
            if one.shape == other.shape and bool((other - one).norm() <= _NOISE * one.norm()):
                continue
            raise BenchError(
                "it gives two results on the same windows; draw random numbers from a generator with a seed, as in "
                "torch.Generator().manual_seed(0)"
            )


def check_features(found: object, batch: int, grid: tuple[int, int], channels: int) -> None:
    """Raise BenchError where a method's result is no `Features` of these sizes, or not finite."""
    if not isinstance(found, Features):
        raise BenchError(f"the method returned {type(found).__name__}; return Features(patches, cls)")
    height, width = found.grid or grid
    wanted = {"patches": (batch, height * width, channels), "cls": (batch, channels)}
    for name, part in (("patches", found.patches), ("cls", found.cls)):
        if part is None and name == "cls":
            continue
        if not isinstance(part, Tensor) or tuple(part.shape) != wanted[name]:
            shape = tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__
            raise BenchError(f"the method's {name} are {shape}; {wanted[name]} are needed (windows, patches, channels)")
        _check_numbers(part, f"the method's {name}")


def check_scores(found: object, batch: int, queries: int) -> None:
    """Raise BenchError where a method's own scores are not (B, Q, h, w), or not finite."""
    if not isinstance(found, Tensor) or found.dim() != 4 or tuple(found.shape[:2]) != (batch, queries):
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise BenchError(f"the method's scores are {shape}; ({batch}, {queries}, h, w) are needed")
    _check_numbers(found, "the method's scores")


def _check_numbers(part: Tensor, what: str) -> None:
    if not part.is_floating_point():
        raise BenchError(f"{what} are {part.dtype}; floating-point numbers are needed")
    if not bool(part.sum().isfinite()):
        raise BenchError(f"{what} are not finite (NaN or infinity)")
