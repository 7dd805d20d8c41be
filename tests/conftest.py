from __future__ import annotations

import ctypes
import os
from collections import defaultdict
from collections.abc import Generator, Iterator
from pathlib import Path
from zlib import crc32

import hypothesis
import pytest

TESTS = Path(__file__).resolve().parent
SECONDS = {"slow": 10.0, "chaos": 3.0}  # of a test with the marker, roughly; others take a tenth of a second

# One thread per process, here and in those that tests start: pytest-xdist has a process per core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
hypothesis.settings.register_profile("any machine", deadline=None)  # 0.2 s an example otherwise, which a busy one takes
hypothesis.settings.load_profile("any machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--chaos-seed", type=int, default=0, help="of the damage that `-m chaos` does")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """A process per core for the whole suite; for chosen files this process, since others take seconds to start."""
    whole = {Path(argument).resolve() for argument in config.args} & {TESTS, TESTS.parent}
    return None if whole else 0


def pytest_configure(config: pytest.Config) -> None:
    config.option.loadscopereorder = False  # pytest-xdist would begin with the files of most tests


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None, None, None]:
    """Let a tenth of the marker `chaos`, or one case in `one_in` (0: none), run with the fast tests, by its hash.

    Begin with the files that take longest, so that at the end no process works alone.
    """
    for item in items:
        chaos = item.get_closest_marker("chaos")
        one_in = chaos.kwargs.get("one_in", 10) if chaos else 0
        if one_in and crc32(item.name.encode()) % one_in == 0:
            item.add_marker("tenth")
    yield  # `-m` chooses
    seconds: defaultdict[Path, float] = defaultdict(float)
    for item in items:
        seconds[item.path] += max([0.1, *(SECONDS[mark.name] for mark in item.iter_markers() if mark.name in SECONDS)])
    items.sort(key=lambda item: -seconds[item.path])


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test, and no fixture, reads or writes the user's cache; text embeddings are shared within a session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVSS_BENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(scope="module")
def any_count(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Ship cards that expect no number of images, for modules whose datasets have two or three."""
    from project import cards_of_any_count

    with cards_of_any_count(tmp_path_factory.mktemp("cards")):
        yield


@pytest.fixture(autouse=True, scope="module")
def _memory_given_back() -> Iterator[None]:
    """Give memory that is free back to the system: `bench run` tells glibc to keep it for the next image."""
    yield
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@pytest.fixture(autouse=True)
def _own_plug_ins() -> Iterator[None]:
    """Plug-ins that a test registers are gone after it."""
    from bench import registry  # here: the process that shares out the tests needs none of this

    before = registry.load_methods()
    yield
    registry._registry.clear()
    registry._registry.update(before)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    import torch

    torch.manual_seed(0)
