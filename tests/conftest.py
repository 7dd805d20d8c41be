from __future__ import annotations

from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reads or writes the user's cache; text embeddings are shared within a session."""
    folder: Path = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("OVSS_BENCH_CACHE", str(folder))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
