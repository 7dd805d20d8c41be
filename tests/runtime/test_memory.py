from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from bench.runtime.memory import keep_freed_memory

FRESH_PAGES = """
import resource
import sys

import numpy as np

from bench.runtime.memory import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(3):
    np.ones(64 << 20, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    np.ones(64 << 20, np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def fresh_pages(way: str) -> int:
    done = subprocess.run([sys.executable, "-c", FRESH_PAGES, way], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_freed_memory_is_used_again() -> None:
    assert fresh_pages("keep") < fresh_pages("give back") / 10


@pytest.mark.parametrize(("platform", "calls"), [("linux", 2), ("darwin", 0)])
def test_only_glibc_is_asked(platform: str, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    library = SimpleNamespace(mallopt=lambda *setting: asked.append(setting))
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr("ctypes.CDLL", lambda _: library)
    keep_freed_memory()
    assert len(asked) == calls
    del library.mallopt  # musl has none
    keep_freed_memory()
    assert len(asked) == calls
