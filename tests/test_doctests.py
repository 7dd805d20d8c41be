"""The examples in docstrings run, and each function that users call has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from data_helpers import scene
from PIL import Image

import bench
from bench.data.cards import load_card
from bench.data.prepared import find_samples
from bench.demo.writers import write_dataset

MODULES = (
    "bench.config",
    "bench.errors",
    "bench.metrics.boundary",
    "bench.metrics.intervals",
    "bench.metrics.pixel_counts",
    "bench.metrics.scores",
    "bench.metrics.significance",
    "bench.report.escape",
    "bench.runtime.hub",
    "bench.runtime.room",
    "bench.spec",
)
FACE = (  # modules of bench.__all__
    "bench.figures",
    "bench.notebook",
    "bench.report.details",
    "bench.report.frames",
    "bench.verify.doctor",
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results, the data and the label maps that examples of the Python face show."""
    made = tmp_path_factory.mktemp("examples")
    card = load_card("whu_aerial")
    write_dataset(card, made / "data", [scene(card, 48, 64, 0)])
    samples = find_samples(card, made / "data")
    Image.fromarray(np.zeros((64, 96, 3), np.uint8)).save(made / "scene.png")
    (made / "maps").mkdir()
    np.save(made / "maps" / f"{samples.ids[0]}.npy", np.where(samples.read(0).label == 1, 1, 0))
    bench.run("clip,sclip", "wbs_si", demo=True, device="cpu", results=made / "results/demo-run")
    return made


@pytest.mark.parametrize("name", FACE)
def test_examples_of_the_python_face_run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    failed, attempted = doctest.testmod(importlib.import_module(name), extraglobs={"bench": bench, "np": np})
    assert attempted and not failed


def test_each_function_of_the_python_face_has_an_example() -> None:
    offered = {name: getattr(bench, name) for name in bench.__all__}
    functions = {name: of for name, of in offered.items() if inspect.isfunction(of)}
    assert {of.__module__ for of in functions.values()} == set(FACE)
    assert not [name for name, of in functions.items() if ">>>" not in (of.__doc__ or "")]
