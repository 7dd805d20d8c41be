"""The page of `bench report`: its data; test_site_browser.py looks at it in a real browser."""

from __future__ import annotations

import csv
import io
import re
import shutil
from pathlib import Path

import pytest
from store_helpers import settings, spec, stored

from bench.cli import main
from bench.config import load_config
from bench.data.cards import load_card
from bench.report.frames import html_report
from bench.report.scores import collect
from bench.report.site.page import page_data
from bench.settings import Overrides
from bench.store.store import Store

pytestmark = pytest.mark.usefixtures("any_count")

GOOD = [[40, 0], [0, 40]]
FAIR = [[20, 20], [0, 40]]
CONFIG = load_config()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three rows on two datasets, one of them not complete."""
    folder = tmp_path_factory.mktemp("site")
    for row, dataset, images in (
        ("clip", "whu_aerial", [FAIR, GOOD, FAIR, FAIR]),
        ("sclip", "whu_aerial", [GOOD, GOOD, FAIR, GOOD]),
        ("clip", "wbs_si", [GOOD, FAIR, GOOD, GOOD]),
        ("sclip", "wbs_si", [FAIR, FAIR, FAIR, FAIR]),
    ):
        now = CONFIG.settings_of(row, load_card(dataset), Overrides()).model_dump(exclude={"row", "dataset"})
        info = {"label": row.upper(), "dtype": "bf16" if row == "sclip" else "fp32"}
        stored(folder, row, dataset, images, changes=now, metric="foreground_iou", info=info)
    Store(folder).record_gap(
        spec(0, settings=settings("gem", "wbs_si"), metric="foreground_iou", classes=("background", "building")),
        "failed",
        "no <weights>",
    )
    return folder


def test_the_numbers_are_those_of_the_leaderboard(results: Path) -> None:
    (collection,) = collect(results, CONFIG, 50)
    data = page_data(collection, CONFIG)
    text = "\n".join([data["csv"]["head"], *(line for _, _, line in data["csv"]["lines"])])
    table = {(line["row"], line["dataset"]): line for line in csv.DictReader(io.StringIO(text))}
    assert list(table) == [(row, dataset) for row, dataset, _ in data["csv"]["lines"]]
    cells = {(cell["row"], cell["dataset"]): cell for cell in data["cells"]}
    assert len(cells) == 5
    for key, cell in cells.items():
        if cell["score"] is not None:
            assert cell["score"] == pytest.approx(float(table[key]["measured"]), abs=0.006)
            assert len(cell["curve"]) == 100 and len(cell["iou"]) == 2
            assert cell["curve"][round(100 * cell["threshold"])] == pytest.approx(cell["score"], abs=0.02)
    assert cells["gem", "wbs_si"]["status"] == "failed" and "no <weights>" in cells["gem", "wbs_si"]["notes"][0]
    assert cells["clip", "whu_aerial"]["published"] == 17.7
    command = "python -m bench run --methods {} --datasets wbs_si"
    assert cells["clip", "wbs_si"]["command"] == command.format("clip")
    assert cells["sclip", "wbs_si"]["command"] == command.format("sclip") + " --dtype bf16"
    rows = {row["row"]: row for row in data["rows"]}
    assert rows["sclip"]["code"] == "https://github.com/wangf3014/SCLIP" and rows["(chance)"]["code"] is None
    assert rows["clip"]["backbone"] == "clip-vit-b16" and rows["clip"]["upsampler"] == rows["clip"]["second"] == ""
    assert [one["task"] for one in data["datasets"]] == ["building", "water"]
    assert [one["datasets"] for one in data["tested"]] == [["whu_aerial", "wbs_si"], ["whu_aerial"], ["wbs_si"]]
    assert data["head"]["cells"] == 5 and data["head"]["verdicts"] == {"ok": 4, "failed": 1}


def test_a_damaged_cell_is_named_with_its_file(results: Path, tmp_path: Path) -> None:
    shutil.copytree(results, tmp_path / "results")
    file = tmp_path / "results" / "cells" / "wbs_si" / "clip" / "counts.parquet"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    (collection,) = collect(tmp_path / "results", CONFIG, 50)
    cells = page_data(collection, CONFIG)["cells"]
    (damaged,) = [cell for cell in cells if (cell["row"], cell["dataset"]) == ("clip", "wbs_si")]
    assert damaged["score"] is None and "iou" not in damaged and str(file) in damaged["notes"][0]


def test_the_page_is_one_file_that_asks_for_nothing(results: Path, tmp_path: Path) -> None:
    text = html_report(results, tmp_path / "page.html", draws=20).read_text(encoding="utf-8")
    assert len(text) < 400_000
    assert not re.findall(r"""(?:src|href)=["'](?!#)""", text)
    assert "no \\u003cweights>" in text  # data cannot end the script


def test_mistakes(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flags, message in {
        ("--results", "nowhere"): "nowhere: does not exist",
        ("--results", str(tmp_path)): "holds nothing",
        ("--results", str(results), "--limit", "3"): "holds full runs; give --limit",
        ("--results", str(results), "--data-root", "nowhere"): "--data-root nowhere: no such folder",
        ("--results", str(results), "-o", str(results / "cells")): f"-o {results / 'cells'}: cannot be written",
    }.items():
        assert main(["report", *flags]) == 2
        assert message in capsys.readouterr().err
