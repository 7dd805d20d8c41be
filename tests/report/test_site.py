"""The page of `bench report`: its data, and the page in a real browser where one is installed."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
        stored(folder, row, dataset, images, changes=now, metric="foreground_iou", info={"label": row.upper()})
    Store(folder).record_gap(
        spec(0, settings=settings("gem", "wbs_si"), metric="foreground_iou", classes=("background", "building")),
        "failed",
        "no <weights>",
    )
    return folder


def test_the_numbers_are_those_of_the_leaderboard(results: Path) -> None:
    (collection,) = collect(results, CONFIG, 50)
    data = page_data(collection, CONFIG)
    table = {(line["row"], line["dataset"]): line for line in csv.DictReader(io.StringIO(data["csv"]))}
    cells = {(cell["row"], cell["dataset"]): cell for cell in data["cells"]}
    assert len(cells) == 5
    for key, cell in cells.items():
        if cell["score"] is not None:
            assert cell["score"] == pytest.approx(float(table[key]["measured"]), abs=0.006)
            assert len(cell["curve"]) == 100 and len(cell["iou"]) == 2
            assert cell["curve"][round(100 * cell["threshold"])] == pytest.approx(cell["score"], abs=0.02)
    assert cells["gem", "wbs_si"]["status"] == "failed" and "no <weights>" in cells["gem", "wbs_si"]["notes"][0]
    assert cells["clip", "whu_aerial"]["published"] == 17.7
    ranks = {row["row"]: row["rank"] for row in data["rows"]}
    assert ranks["gem"] is None and ranks["(chance)"] is None
    assert sorted(ranks[row][0] for row in ("clip", "sclip")) == [1, 2]
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
        ("--results", str(results), "-o", str(results / "cells")): f"-o {results / 'cells'}: cannot be written",
    }.items():
        assert main(["report", *flags]) == 2
        assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium or Chrome is installed, which runs the page's script")
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield found
        found.close()


def test_in_a_browser(results: Path, tmp_path: Path, browser: Any) -> None:
    file = html_report(results, tmp_path / "page.html", draws=20)
    page = browser.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-ready=yes]")

    def rows() -> list[str]:
        found: list[str] = page.eval_on_selector_all("#board tbody tr", "all => all.map(tr => tr.dataset.row)")
        return found

    assert set(rows()) == {"clip", "sclip", "gem", "(constant)", "(chance)"}
    assert "gem on wbs_si: " in (gaps := page.text_content("#gaps")) and "no <weights>" in gaps
    page.click("button[data-column=wbs_si]")
    assert rows()[0] == "clip"
    page.click("button[data-column=wbs_si]")
    assert rows().index("sclip") < rows().index("clip")
    page.fill("#filter", "sclip")
    assert rows() == ["sclip"]
    (text,) = page.eval_on_selector_all("#board tbody tr td:nth-child(3)", "all => all.map(td => td.textContent)")
    scores = {cell["dataset"]: cell for cell in json.loads(page.evaluate("JSON.stringify(DATA.cells)"))}
    assert float(text) in {round(cell["score"], 1) for cell in scores.values() if cell["score"] is not None}
    page.fill("#filter", "")
    page.select_option("#task", "flood detection")
    heads = page.eval_on_selector_all("#board thead button", "all => all.map(button => button.dataset.column)")
    assert heads == ["row", "mean", "wbs_si"]
    page.select_option("#which", "wbs_si")
    chart = "Chart.getChart('forest').data"
    assert page.evaluate(f"[{chart}.labels, {chart}.datasets[2].data]") == [["CLIP", "SCLIP"], [18.6, 32.1]]
    change = "Object.assign(cellOf('clip', 'wbs_si'), { complete: %s, comparable: %s, text: '%s' }); dataset()"
    page.evaluate(change % ("false", "false", "stale"))  # which comes last, beside no published number
    assert page.evaluate(f"[{chart}.labels, {chart}.datasets[2].data]") == [["SCLIP", "CLIP (stale)"], [32.1, None]]
    page.evaluate(change % ("true", "true", ""))
    page.select_option("#first", "sclip")
    for width in (1200, 390):  # a desk and a phone
        page.set_viewport_size({"width": width, "height": 800})
        page.wait_for_timeout(500)  # charts follow
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("Object.keys(charts).length") == 6
    assert "counted together and share the time equally: 0.38 s" in page.inner_text("#cost-note")
    page.evaluate("DATA.cells[0].seconds *= 2; cost()")  # as if that row had been counted alone
    assert page.evaluate("Object.keys(charts).length") == 7
    page.select_option("#of-row", "clip")
    shares = page.eval_on_selector_all("#confusion td", "all => all.map(td => td.textContent)")
    assert shares[2:] and scores["wbs_si"] and len(shares) == 6  # two classes: a name and two shares each
    assert page.eval_on_selector_all("#worst tr", "all => all.length") == 5  # four images and the head
    assert page.eval_on_selector_all("#wins tr", "all => all.length") >= 3
    assert "Over 2 datasets" in page.text_content("#ranks-note")
    page.select_option("#second", "clip")
    text = "all => all.map(td => td.textContent)"
    few = ["whu_aerial", "2 scenes: no interval", "16.2", "–", "–", "–"]
    assert page.eval_on_selector_all("#pairs td", text)[:6] == few
    page.evaluate("DATA.paired['sclip\\tclip'] = { whu_aerial: [3, 29.5, 0.0004, 0.05] }")  # as of enough scenes
    page.select_option("#second", "clip")
    assert page.eval_on_selector_all("#pairs td", text)[2:6] == ["16.2", "3.0 to 29.5", "< 0.001", "0.050"]
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") != "BODY"
    assert said == []
