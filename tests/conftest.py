from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import pytest
import torch

from bench import registry
from bench.data import cards
from bench.paths import shipped
from bench.registry import load_methods

TESTS = Path(__file__).resolve().parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--chaos-seed", type=int, default=0, help="of the damage that `-m chaos` does")


def pytest_configure() -> None:
    """One thread per process, here and in those that tests start: pytest-xdist has a process per core."""
    if "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = "1"
        torch.set_num_threads(1)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """A process per core for the whole suite; for chosen files this process, since others take seconds to start."""
    whole = {Path(argument).resolve() for argument in config.args} & {TESTS, TESTS.parent}
    return None if whole else 0


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let a tenth of the marker `chaos` run in the ordinary suite, by the hash of the case's name."""
    for item in items:
        if item.get_closest_marker("chaos") and crc32(item.name.encode()) % 10 == 0:
            item.add_marker("tenth")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test, and no fixture, reads or writes the user's cache; text embeddings are shared within a session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVSS_BENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(scope="session")
def cards_of_any_count(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies of the shipped cards that expect no number of images, as tests write two or three."""
    folder = tmp_path_factory.mktemp("cards") / "datasets"
    shutil.copytree(shipped("datasets"), folder)
    for card in folder.glob("*.yaml"):
        card.write_text(re.sub(r"^expected_count:.*\n", "", card.read_text(), flags=re.MULTILINE))
    return folder


@pytest.fixture(autouse=True, scope="module")
def _any_count(request: pytest.FixtureRequest, cards_of_any_count: Path) -> Iterator[None]:
    """Ship those cards, but in tests/data and in modules that say TRUE_COUNTS."""
    with pytest.MonkeyPatch.context() as patch:
        if "data" not in request.path.parts[-2:] and not getattr(request.module, "TRUE_COUNTS", False):
            patch.setattr(cards, "shipped", lambda part: cards_of_any_count if part == "datasets" else shipped(part))
        yield


@pytest.fixture(autouse=True)
def _own_plug_ins() -> Iterator[None]:
    """Plug-ins that a test registers are gone after it."""
    before = load_methods()
    yield
    registry._registry.clear()
    registry._registry.update(before)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
