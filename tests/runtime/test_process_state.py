"""Plug-ins leave the process as it was."""

from __future__ import annotations

import os
import random
import sys

import numpy as np
import pytest
import torch

from bench.errors import BenchError
from bench.runtime.process_state import foreign_code, unchanged_generators, unchanged_modes

CHANGES = {
    "autocast on cpu": lambda: torch.autocast("cpu").__enter__(),
    "the default dtype": lambda: torch.set_default_dtype(torch.float64),
    "the recording of gradients": lambda: torch.set_grad_enabled(not torch.is_grad_enabled()),
    "the number of threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "deterministic algorithms": lambda: torch.use_deterministic_algorithms(True),
    "precision|allow_tf32": lambda: torch.set_float32_matmul_precision("medium"),
    "cudnn.benchmark": lambda: setattr(torch.backends.cudnn, "benchmark", True),
    "NumPy's handling of errors": lambda: np.seterr(all="raise"),
    "the working directory": lambda: os.chdir("/"),
    "standard output": lambda: setattr(sys, "stdout", sys.stderr),
}
if torch.backends.mkldnn.is_available():  # else there is no such mode to change
    CHANGES["mkldnn.enabled"] = lambda: torch.backends.mkldnn.set_flags(False)


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_mode_is_named_and_put_back(name: str) -> None:
    with pytest.raises(BenchError, match=name), unchanged_modes():
        CHANGES[name]()
    with unchanged_modes():  # as before: nothing to name
        pass
    assert not torch.is_autocast_enabled("cpu") and torch.get_default_dtype() == torch.float32


def test_random_generators_are_put_back() -> None:
    def drawn() -> tuple[float, float, float]:
        return torch.rand(1).item(), float(np.random.rand()), random.random()  # noqa: NPY002

    before = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    with unchanged_generators():
        first = drawn()
    with unchanged_generators():
        torch.manual_seed(7)
        assert drawn()
    assert drawn() == first
    torch.set_rng_state(before[0])
    np.random.set_state(before[1])  # noqa: NPY002
    random.setstate(before[2])


@pytest.mark.parametrize("error", [SystemExit(0), GeneratorExit(), ValueError("two\nlines"), BenchError("two\nlines")])
def test_whatever_is_raised_becomes_one_line(error: BaseException) -> None:
    with pytest.raises(BenchError, match=r"^it: [^\n]*$"), foreign_code("it"):
        raise error


def test_an_interrupt_stays_one() -> None:
    with pytest.raises(KeyboardInterrupt), foreign_code("it"):
        raise KeyboardInterrupt
