"""Where things are on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.paths import data_root


def test_a_data_root_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVSS_BENCH_DATA", str(tmp_path))
    assert data_root() == tmp_path and data_root(tmp_path / "not-yet") == tmp_path / "not-yet"
    (tmp_path / "file").touch()
    with pytest.raises(BenchError, match=r"^data root .*file: is no folder; give the folder of all datasets with --"):
        data_root(tmp_path / "file")
