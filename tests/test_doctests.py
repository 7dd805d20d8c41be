"""The examples in docstrings run, and each function that users call has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
from types import ModuleType

import pytest

MODULES = (
    "bench.errors",
    "bench.metrics.boundary",
    "bench.metrics.intervals",
    "bench.metrics.pixel_counts",
    "bench.metrics.scores",
    "bench.metrics.significance",
    "bench.report.escape",
)


def functions(module: ModuleType) -> dict[str, str]:
    """Name -> docstring of the module's public functions."""
    found = inspect.getmembers(module, inspect.isfunction)
    return {name: of.__doc__ or "" for name, of in found if of.__module__ == module.__name__ and name[0] != "_"}


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    failed, attempted = doctest.testmod(importlib.import_module(name))
    assert attempted and not failed


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("bench.metrics.")])
def test_each_function_of_metrics_has_an_example(name: str) -> None:
    documented = functions(importlib.import_module(name))
    assert documented and not [name for name, text in documented.items() if ">>>" not in text]
