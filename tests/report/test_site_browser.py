"""The page of `bench report` in a real browser, where one is installed."""

from __future__ import annotations

import csv
import io
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_helpers import settings, spec
from table_helpers import only, put

from bench.cli import main
from bench.config import load_config
from bench.data.cards import load_card
from bench.inference.visualize import palette_png
from bench.report.breakdown import breakdown
from bench.report.frames import html_report
from bench.report.render import csv_lines
from bench.report.tables import AVERAGE, Grid, Line, leaderboard
from bench.store.maps import LabelMaps
from bench.store.store import Store

pytestmark = pytest.mark.usefixtures("any_count")

GOOD, FAIR, BAD = [[60, 20], [20, 100]], [[40, 40], [40, 80]], [[20, 60], [60, 60]]
CONFIG = load_config()
DATASETS = CONFIG.default_datasets  # the 17
ROWS = {"clip": [BAD, FAIR], "sclip": [FAIR, FAIR], "gem": [GOOD, FAIR], "clearclip": [FAIR, GOOD], "msa": [GOOD, GOOD]}
MORE = """for (let at = 0; at < 35; at++) {
  const cell = { ...cellOf("clip", "loveda"), row: `own ${at}` };
  CELLS.set(cell.row + "\\tloveda", cell);
  RANKED.push({ row: cell.row, label: cell.row });
}"""
NARROWEST = """Math.min(...[...document.querySelectorAll("tbody th")].filter((th) => th.checkVisibility())
  .map((th) => th.getBoundingClientRect().width))"""
OBJECTS = """DATA.objects.loveda = {
  images: [1, 2],
  sizes: { names: ["small"], of: { all: [[10, 100]], gem: [[4, 75]], clip: [[2, 50]] } },
  distances: { names: ["near"], of: { all: [10], gem: [3], clip: [6] } },
};
why()"""
CHECKS = (Path(__file__).parent / "browser_checks.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five rows on all 17 datasets, one of them on seven scenes; label maps of two rows on one of them; a failure."""
    folder = tmp_path_factory.mktemp("board")
    for row, images in ROWS.items():
        for dataset in DATASETS if row in ("clip", "gem") else DATASETS[:4]:
            many = [np.pad(image, (0, 5)).tolist() for image in images] * 7 if dataset == "loveda" else images
            put(folder, row, dataset, many, info={"label": row.upper(), "venue": "CVPR'24"})
    Store(folder).record_gap(spec(0, settings=settings("msa", "vdd")), "failed", "no <weights>")
    for row in ("clip", "gem"):
        cell = Store(folder).cell(row, "loveda")
        assert cell is not None
        maps = LabelMaps.of(cell)
        maps.begin()
        maps.write(cell.ids[0], palette_png(np.full((40, 40), row == "gem", np.uint8), [(0, 0, 0), (255, 0, 0)]))
    return folder


@pytest.fixture(scope="module")
def file(results: Path) -> Path:
    return html_report(results, draws=200)


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


@pytest.fixture
def opened(file: Path, browser: Any) -> Iterator[Callable[..., Any]]:
    """Open the page with a view, at a width, in a mode; at the end nothing may have gone wrong in its script."""
    said: list[str] = []

    def open_page(view: str = "", width: int = 1280, mode: str = "light") -> Any:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=mode)
        page.set_default_timeout(5000)
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(file.as_uri() + view)
        page.wait_for_selector("html[data-ready=yes]")
        return page

    yield open_page
    for page in browser.contexts:
        page.close()
    assert said == []


def rows_of(page: Any) -> list[str]:
    found: list[str] = page.eval_on_selector_all("#board tbody tr", "all => all.map(tr => tr.dataset.row)")
    return found


def texts(page: Any, selector: str) -> list[str]:
    found: list[str] = page.eval_on_selector_all(selector, "all => all.map(one => one.textContent)")
    return found


def numbers(page: Any, selector: str) -> list[float]:
    return [float(text.replace("−", "-")) for text in texts(page, selector)]


def downloaded(page: Any, button: str) -> str:
    with page.expect_download() as started:
        page.click(button)
    return Path(started.value.path()).read_text(encoding="utf-8")


def line_of(board: Grid, row: str) -> Line:
    return next(line for line in board.lines if line.row == row)


def test_means_ranks_and_files_are_those_of_the_tables(results: Path, opened: Callable[..., Any]) -> None:
    page, board = opened(), leaderboard(CONFIG, only(results))
    expected = {line.row: line.entries[AVERAGE] for line in board.lines}
    ranked = [line.row for line in board.lines if line.entries[AVERAGE].counted]
    assert rows_of(page)[: len(ranked)] == ranked and set(rows_of(page)) == set(expected)
    assert [int(text.split()[0]) for text in texts(page, "td.mean small")] == [*range(1, 1 + len(ranked))]
    for row, entry in expected.items():
        mean = texts(page, f'tr[data-row="{row}"] td.mean span')[0]
        assert mean == (f"{100 * entry.value:.1f}" if entry.counted else "–")
        for dataset in DATASETS:
            best = line_of(board, row).entries[dataset].mark == "best"
            place = f'#board tr[data-row="{row}"] td[data-dataset="{dataset}"]'
            assert page.eval_on_selector(place, "td => td.classList.contains('best')") == best
    lines = list(csv.DictReader(io.StringIO(downloaded(page, "#download-csv"))))
    wanted = {(line["row"], line["dataset"]): line for line in csv_lines(board)}
    for line in lines:
        of = wanted[line["row"], line["dataset"]]
        assert (float(line["measured"]) if line["measured"] else None) == pytest.approx(of["measured"], abs=0.01)
        for key in ("table", "label", "venue", "status", "images", "demo", "limit"):
            assert line[key] == ("" if of[key] is None else str(of[key]))
    assert len(lines) == len([line for line in wanted.values() if line["dataset"] != AVERAGE or line["measured"]])


def test_mean_rank_and_files_follow_the_filter_and_the_address_keeps_it(
    results: Path, tmp_path: Path, opened: Callable[..., Any]
) -> None:
    page = opened()
    heads = "#board thead [data-column]"
    columns = page.eval_on_selector_all(heads, "all => all.map(one => one.dataset.column)")
    assert set(DATASETS) < set(columns) and {"mean of semantic", "mean of road"} < set(columns)
    page.select_option("#task", "semantic")
    page.fill("#q", "cl")
    assert set(rows_of(page)) == {"clip", "sclip", "clearclip"}
    assert texts(page, "#board .group") == ["Semantic"]
    assert [text[0] for text in texts(page, "td.mean small")] == ["1", "2", "3"]
    ranges = page.evaluate("[...boardView().ranks.values()].map(({ low, rank, high }) => [low, rank, high])")
    assert all(low <= rank <= high for low, rank, high in ranges)
    assert "Ranks have no range" not in page.inner_text("#board-note")
    page.click("#more summary")
    page.check('[data-turn="upsampler"]')
    for name in ("potsdam", "vdd"):
        page.uncheck(f'[data-turn="{name}"]')
    assert texts(page, "td.mean small") == ["1", "2", "3"] and "Ranks have no range" in page.inner_text("#board-note")
    scores = page.evaluate("['openearthmap', 'loveda', 'isaid'].map((name) => cellOf('clip', name).score)")
    assert texts(page, 'tr[data-row="clip"] td.mean span') == [f"{np.mean(scores):.1f}"]
    page.click('[data-column="row"]')
    assert rows_of(page) == ["clearclip", "clip", "sclip"]
    page.check('[data-choose="sclip"]')
    table = page.inner_text("#board")
    program, *command = shlex.split(page.text_content("#tables-command"))
    assert program == "python" and main([*command[2:], "--results", str(results), "--out", str(tmp_path)]) == 0
    tex = (tmp_path / "chosen.tex").read_text(encoding="utf-8")
    assert re.findall(r"^(\w+) \(CVPR", tex, re.M) == ["CLEARCLIP", "CLIP", "SCLIP"]
    assert "OpenEarthMap" in tex and "Potsdam" not in tex and (tmp_path / "chosen.bib").exists()
    lines = list(csv.DictReader(io.StringIO(downloaded(page, "#download-csv"))))
    assert {line["dataset"] for line in lines} == {*DATASETS[:3], *DATASETS[4:7], AVERAGE}
    *ours, average = [float(line["measured"]) for line in lines if line["row"] == "sclip" and line["measured"]]
    assert average == pytest.approx(np.mean(ours), abs=1e-3) and len(ours) == 3
    again = opened(page.evaluate("location.hash"))
    assert again.inner_text("#board") == table and again.is_checked('[data-choose="sclip"]')
    again.click("#reset")
    assert again.evaluate("location.hash") == "" and len(rows_of(again)) == len(ROWS) + 2


def test_the_table_is_one_tab_stop_and_tells_of_what_has_the_focus(opened: Callable[..., Any]) -> None:
    page = opened()
    assert page.eval_on_selector_all('#board [tabindex="0"]', "all => all.length") == 1
    page.focus("#tables-part summary")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    inside = "document.activeElement.closest('#board') !== null"
    if not page.evaluate(inside):
        page.focus('#board [tabindex="0"]')
    for key in ["End", "ArrowDown", "ArrowLeft"]:
        page.keyboard.press(key)
    place = page.evaluate("document.activeElement.closest('td').dataset.dataset")
    row = page.evaluate("document.activeElement.closest('tr').dataset.row")
    assert place in DATASETS and row == rows_of(page)[1]
    title = page.evaluate("(name) => DATASETS.get(name).title", place)
    assert page.inner_text("#told").startswith(f"{page.evaluate('(row) => labelOf(row)', row)} on {title}")
    page.keyboard.press("Control+Home")
    assert page.evaluate("document.activeElement.dataset.column") == "row"
    page.hover('tr[data-row="clip"] td[data-dataset="loveda"] button')
    assert "95 %" in page.inner_text("#told") and "7 scenes" in page.inner_text("#told")
    page.fill("#q", "clip")
    assert page.eval_on_selector_all('#board [tabindex="0"]', "all => all.length") == 1


def test_a_result_opens(opened: Callable[..., Any]) -> None:
    page = opened()
    page.click('tr[data-row="clip"] td[data-dataset="loveda"] button')
    assert page.inner_text("#result-title") == "CLIP on LoveDA" and "open=" in page.evaluate("location.hash")
    assert page.inner_text("#result-command") == "python -m bench run --methods clip --datasets loveda"
    blocks = texts(page, "#result-blocks summary")
    assert blocks == ["verdict, history and notes", "settings", "inputs (hashes)", "made"]
    assert {"verdict", "score", "window", "weights", "written"} < set(texts(page, "#result-blocks dt"))
    lines = "#result-images tbody tr"
    scores = [float(text) for text in texts(page, f"{lines} td:nth-child(2)")]
    assert scores == sorted(scores) and len(scores) == 14
    page.click('#result-images [data-by="picture"]')
    assert page.evaluate("document.querySelector('#result-images tbody tr img').naturalWidth") == 40
    assert texts(page, "#result-images tbody th")[0] == "img000"
    assert len(texts(page, "#confusion tbody td")) == 49 and texts(page, "#result-classes tbody th")[1] == "building"
    page.keyboard.press("Escape")
    page.wait_for_function("!location.hash.includes('open=')")
    assert not page.is_visible("#result")
    again = opened("#open=gem%09vdd")
    assert again.inner_text("#result-title") == "GEM on VDD"


def test_why_one_row_is_ahead_of_another(results: Path, opened: Callable[..., Any]) -> None:
    page = opened("#a=gem&b=clip&on=loveda")
    cells = [Store(results).cell(row, "loveda") for row in ("gem", "clip")]
    found = breakdown(*[cell for cell in cells if cell is not None])
    gem, clip = (page.evaluate("(row) => cellOf(row, 'loveda').iou", row) for row in ("gem", "clip"))
    building = next(text.split("\t") for text in page.inner_text("#by-class tbody").splitlines() if "building" in text)
    assert building[2:5] == [f"{gem[1]:.1f}", f"{clip[1]:.1f}", f"+{gem[1] - clip[1]:.1f}"]
    names = load_card("loveda").classes
    adds = dict(zip(names, 100 * found.classes["adds"], strict=True))
    shown = dict(zip(texts(page, "#by-class tbody th"), numbers(page, "#by-class tbody td:nth-child(6)"), strict=True))
    assert shown == pytest.approx(adds, abs=0.06) and list(shown.values()) == sorted(shown.values(), reverse=True)
    assert "Needs label maps of the same images" in page.inner_text("#objects-note")
    page.evaluate(OBJECTS)
    assert " ".join(page.inner_text("#by-size tbody").split("\t")) == "small 10 100.0 75.0 50.0 +25.0 40.0 20.0"
    assert page.inner_text("#by-distance tbody").split("\t") == ["near", "100.0", "30.0", "60.0", "−30.0"]
    lines = [line.split("\t") for line in page.inner_text("#changed tbody").splitlines()]
    changed = {tuple(line[:2]): [float(text.replace("−", "-")) for text in line[2:]] for line in lines}
    assert len(changed) == len(found.confusion) == 2
    for line in found.confusion.to_dict("records"):
        place = tuple(names[int(line[key].removeprefix("class"))] for key in ("label", "predicted"))
        expected = [100 * line[key] for key in ("first", "second", "difference", "of_all")]
        assert changed[place] == pytest.approx(expected, abs=0.11)
    third = "cellOf('gem', 'loveda').confusion[0] = [33.3, 33.3, 33.3, 0, 0, 0, 0]; why()"
    assert page.evaluate(third) is None and "no class" not in page.inner_text("#changed")
    page.evaluate("cellOf('gem', 'loveda').confusion[0].push(0.1); why()")
    assert "background	no class	0.1	0.0	+0.1	0.0" in page.inner_text("#changed")
    gains = 100 * found.images["difference"].to_numpy()
    assert numbers(page, "#gains tbody td:nth-child(4)") == pytest.approx([*gains[:6], *gains[-6:]], abs=0.06)
    assert page.evaluate("document.querySelectorAll('#gains .differ img').length") == 2
    page.select_option("#b", "gem")
    assert "Choose two rows" in page.inner_text("#rows")
    page.select_option("#a", "msa")
    page.select_option("#on", DATASETS[-1])
    assert "No counts of MSA on " in page.inner_text("#by-class")


def test_charts_draw_the_best_and_the_chosen_and_say_why_they_are_empty(opened: Callable[..., Any]) -> None:
    page = opened()
    labels = "Chart.getChart('forest').data.labels"
    page.select_option("#which", "vdd")
    assert "No intervals: 1 scene" in page.inner_text("#forest-note")
    page.select_option("#which", "loveda")
    assert len(page.evaluate(labels)) == 5 and page.inner_text("#forest-note") == ""
    assert "No boundary IoU was counted" in page.inner_text("#dataset")
    page.evaluate(MORE)
    page.select_option("#dataset .draw", "all")
    assert len(page.evaluate(labels)) == 40
    page.select_option("#dataset .draw", "")
    assert len(page.evaluate(labels)) == 8
    page.evaluate("view.chosen = ['own 33']; charts()")
    assert len(page.evaluate(labels)) == 9 and "own 33" in page.evaluate(labels)
    page.select_option("#dataset .draw", "chosen")
    assert page.evaluate(labels) == ["own 33"]
    page.evaluate("cellOf('own 33', 'loveda').score = null; charts()")
    assert "None of the ticked rows has a number here" in page.inner_text("#dataset")
    assert "No row with a mean says how long it took" in page.inner_text("#costs")
    page.select_option("#costs .draw", "")
    assert "counted together and share the time equally" in page.inner_text("#costs")
    page.select_option("#axis", "year")
    page.fill("#q", "nobody")
    assert page.inner_text("#board-note") == "No row fits these filters."


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_widths_contrast_and_names(opened: Callable[..., Any], mode: str) -> None:
    page = opened("#open=clip%09loveda", mode=mode)
    assert page.evaluate(CHECKS) == []
    page.keyboard.press("Escape")
    for width in (1280, 768, 400):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(NARROWEST) >= 40  # no word letter by letter
    page.set_viewport_size({"width": 1280, "height": 800})
    right = "Math.max(...[...document.querySelectorAll('#board th')].map(th => th.getBoundingClientRect().right))"
    assert page.evaluate(right) <= 1280  # all 17 datasets
    page.click("details:has(#gaps) summary")
    assert "no <weights>" in page.inner_text("#gaps")
    assert page.evaluate(CHECKS) == []


def test_axe_finds_nothing(opened: Callable[..., Any]) -> None:
    script = os.environ.get("AXE_CORE")
    if not script:
        pytest.skip("AXE_CORE does not name the file axe.min.js of the npm package axe-core")
    for mode in ("light", "dark"):
        for view in ("", "#open=clip%09loveda"):
            page = opened(view, mode=mode)
            page.add_script_tag(path=script)
            found = page.evaluate("axe.run()")
            wrong = {one["id"]: [node["html"][:120] for node in one["nodes"][:3]] for one in found["violations"]}
            assert wrong == {}
