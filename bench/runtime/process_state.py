"""State of the whole process that a plug-in may change for everybody: modes, seeds, standard output."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from bench.errors import BenchError, one_line


class _Mode(NamedTuple):
    """A mode of the process, and the functions that read and restore it."""

    name: str
    read: Callable[[], Any]
    restore: Callable[[Any], object]

    def now(self) -> Any:
        """Return the mode; None where torch refuses to tell, as its old and new settings disagree."""
        try:
            return self.read()
        except RuntimeError:
            return None


def _set_deterministic(modes: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(modes[0], warn_only=modes[1])


_MODES = (
    *(
        _Mode(
            f"autocast on {device}",
            partial(torch.is_autocast_enabled, device),
            partial(torch.set_autocast_enabled, device),
        )
        for device in ("cpu", "cuda")
    ),
    _Mode("the default dtype", torch.get_default_dtype, torch.set_default_dtype),
    _Mode("the default device", torch.get_default_device, torch.set_default_device),
    _Mode("the recording of gradients", torch.is_grad_enabled, torch.set_grad_enabled),
    _Mode("the number of threads", torch.get_num_threads, torch.set_num_threads),
    _Mode(
        "deterministic algorithms",
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        _set_deterministic,
    ),
    *(
        _Mode(f"torch.backends.{path}", partial(getattr, owner, name), partial(setattr, owner, name))
        for path, owner, name in (
            ("cuda.matmul.fp32_precision", torch.backends.cuda.matmul, "fp32_precision"),
            ("cudnn.fp32_precision", torch.backends.cudnn, "fp32_precision"),
            ("mkldnn.matmul.fp32_precision", getattr(torch.backends.mkldnn, "matmul", None), "fp32_precision"),
            ("mkldnn.conv.fp32_precision", getattr(torch.backends.mkldnn, "conv", None), "fp32_precision"),
            ("cuda.matmul.allow_tf32", torch.backends.cuda.matmul, "allow_tf32"),
            ("cudnn.allow_tf32", torch.backends.cudnn, "allow_tf32"),
            ("cudnn.benchmark", torch.backends.cudnn, "benchmark"),
            ("cudnn.deterministic", torch.backends.cudnn, "deterministic"),
            ("cudnn.enabled", torch.backends.cudnn, "enabled"),
            ("mkldnn.enabled", torch.backends.mkldnn, "enabled"),
        )
        if hasattr(owner, name)  # fp32_precision is newer than the oldest torch that is supported
    ),
    _Mode("the precision of float32 products", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    _Mode("NumPy's handling of errors", np.geterr, lambda modes: np.seterr(**modes)),
    _Mode("the working directory", os.getcwd, os.chdir),
)


@contextlib.contextmanager
def unchanged_modes() -> Iterator[None]:
    """Leave the modes of the process as they were; BenchError that names what was changed inside."""
    modes, stdout = [mode.now() for mode in _MODES], sys.stdout
    try:
        yield
    finally:
        changed = []
        for mode, before in zip(_MODES, modes, strict=True):
            if mode.now() != before:
                mode.restore(before)
                changed.append(mode.name)
        if sys.stdout is not stdout or getattr(stdout, "closed", False):
            changed.append("standard output")
            sys.stdout = open(1, "w", closefd=False) if stdout.closed else stdout  # noqa: SIM115
    if changed:
        raise BenchError(f"it changed {changed[0]} for the whole process, which other methods share; leave it as it is")


@contextlib.contextmanager
def unchanged_generators() -> Iterator[None]:
    """Put the random generators of torch, NumPy and Python back where they were."""
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    on_gpu = torch.cuda.get_rng_state() if used else None
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        random.setstate(before[2])
        if on_gpu is not None:
            torch.cuda.set_rng_state(on_gpu)


@contextlib.contextmanager
def other_randomness() -> Iterator[None]:
    """Inside, all random generators stand elsewhere than outside."""
    with unchanged_generators():
        seed = int(torch.randint(2**31, ()))
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        yield


class TimeLimit(BaseException):
    """The time that a user gives is over; no `Exception`, which a plug-in might catch."""


@contextlib.contextmanager
def at_most(seconds: float | None) -> Iterator[None]:
    """Raise TimeLimit inside when the seconds are over, and each second from then on. None: no limit.

    Works in the main thread of POSIX systems, between two steps of the interpreter.
    """
    if seconds is None or not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_: object) -> None:
        raise TimeLimit(f"it took longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6), 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def foreign_call(seconds: float | None = None) -> Iterator[None]:
    """Call a plug-in, and leave modes and generators as they were; what would end the process is an error.

    seconds: that it may take, see `at_most`.
    """
    try:
        with unchanged_generators(), unchanged_modes(), at_most(seconds):
            yield
    except (Exception, KeyboardInterrupt):
        raise
    except TimeLimit as error:
        raise BenchError(f"{error}; correct it, or give more with --time-limit") from None
    except BaseException as error:  # such as SystemExit, which would end the run as if all were well
        raise BenchError(f"it raised {type(error).__name__}: {error}").with_traceback(error.__traceback__) from None


@contextlib.contextmanager
def foreign_code(what: str) -> Iterator[None]:
    """Call somebody else's import or constructor as `foreign_call` does; whatever it raises becomes a BenchError.

    what: it was, for the message
    """
    try:
        with foreign_call():
            yield
    except Exception as error:
        reason = str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"
        raise BenchError(f"{what}: {one_line(reason)}; correct it or leave it out") from error
