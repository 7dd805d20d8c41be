"""The picture of the README."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from table_helpers import CONFIG, FAIR, GOOD, only, put

from bench.config import Table
from bench.report.tables import build
from tools.demo.picture import draw_table

pytestmark = pytest.mark.usefixtures("any_count")


def test_a_table_becomes_a_picture_of_its_lines(tmp_path: Path) -> None:
    for row, image in (("clip", FAIR), ("sclip", GOOD)):
        put(tmp_path, row, "whu_aerial", [image])
    heights = []
    for rows in (("clip",), ("clip", "sclip")):
        table = Table(title="", rows=rows, columns=("whu_aerial",))
        draw_table(build("t", table, CONFIG, only(tmp_path), own=True), tmp_path / "t.png", 600)
        ink = (np.asarray(Image.open(tmp_path / "t.png").convert("L")) < 128).any(axis=1)
        heights.append(int(np.count_nonzero(np.diff(ink.astype(int)) == 1)))  # lines of text, and rules
    assert heights[1] == heights[0] + 1
