from __future__ import annotations

from pathlib import Path

import pytest

from tools.scaling import seconds, write


@pytest.mark.slow
def test_a_run_takes_as_long_as_its_stand_in_sleeps(tmp_path: Path) -> None:
    write(tmp_path, images=4, pause=0.2)
    for processes, images in ((1, 4), (2, 2)):  # of each process; a first image is looked at twice
        assert seconds(tmp_path, processes) > 0.8 * 0.2 * images
