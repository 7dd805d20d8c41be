from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from xml.etree import ElementTree

import pytest
from narrowed import present
from store_helpers import certain, settings, spec, stored
from table_helpers import CONFIG, FAIR, GOOD, only, put

from bench.data.cards import load_card
from bench.report import render
from bench.report.frames import tables
from bench.report.published import load_published
from bench.report.render import (
    COST_COLUMNS,
    cost_lines,
    csv_lines,
    gains_table,
    html_table,
    latex,
    markdown,
    signed,
    title,
)
from bench.report.tables import build, gains, leaderboard
from bench.store.store import Store

pytestmark = pytest.mark.usefixtures("any_count")


def cells_of(text: str, method: str, line: str = "measured") -> list[str]:
    """The cells of one line of a Markdown table."""
    method_of = ""
    for row in text.splitlines():
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        if row.startswith("| "):
            method_of = cells[0] or method_of
            if method_of == method and cells[1] == line:
                return cells[2:]
    raise AssertionError(f"no line {line} of {method}")


# ---------------------------------------------------------------------------------------- one table


def test_a_table_of_every_kind_of_cell(tmp_path: Path) -> None:
    put(tmp_path, "maskclip", "openearthmap", [GOOD, GOOD, FAIR])
    put(tmp_path, "maskclip+ours", "openearthmap", [FAIR], total=4)
    put(tmp_path, "sclip", "openearthmap", [FAIR, FAIR, FAIR])
    failed, absent = (
        spec(0, settings=settings("sclip", name), metric="foreground_iou", classes=("background", "building"))
        for name in ("whu_aerial", "wbs_si")
    )
    Store(tmp_path).record_gap(failed, "failed", "out of memory")
    Store(tmp_path).record_gap(absent, "no data", "data/wbs_si is missing")
    text = markdown(build("4", CONFIG.tables["4"], CONFIG, only(tmp_path)))
    assert text.startswith("# Table 4: SimFeatUp and global bias alleviation added to other methods")
    assert cells_of(text, "MaskCLIP (ECCV'22)") == ["**63.6**", "–", "–"]  # 280 of 440
    assert cells_of(text, "MaskCLIP (ECCV'22)", "published") == ["25.1", "29.8", "39.8"]
    assert cells_of(text, "MaskCLIP (ECCV'22)", "difference") == ["+38.5", "", ""]
    assert cells_of(text, "MaskCLIP + ours (ECCV'22)") == ["50.0 (1 of 4 images)", "–", "–"]
    assert cells_of(text, "SCLIP (arXiv'23)") == ["*50.0*", "failed [1]", "no data [2]"]
    assert "[1] sclip on whu_aerial: out of memory\n" in text
    assert "[2] sclip on wbs_si: data/wbs_si is missing\n" in text
    assert "openearthmap 3 (2 scenes: no interval)" in text
    assert cells_of(text, "ClearCLIP + ours (ECCV'24)", "published") == ["**39.1**", "**51.1**", "**60.4**"]
    with pytest.raises(AssertionError):  # a partial number is held against nothing
        cells_of(text, "MaskCLIP + ours (ECCV'22)", "difference")


def test_a_mean_says_of_how_many_and_poses_as_nothing_else(tmp_path: Path) -> None:
    datasets = CONFIG.tables["1"].columns
    for dataset in datasets:
        put(tmp_path, "clip", dataset, [FAIR, GOOD])
    for dataset in datasets[:3]:
        put(tmp_path, "gem", dataset, [GOOD, GOOD])
    put(tmp_path, "gem", datasets[3], [GOOD], total=2)
    text = markdown(build("1", CONFIG.tables["1"], CONFIG, only(tmp_path)))
    more = sum(load_card(dataset).background > 1 for dataset in datasets)  # these have mIoU
    background, foreground = 100 / 220, 180 / 300
    score = 100 * ((8 - more) * foreground + more * (background + foreground) / 2) / 8
    assert cells_of(text, "CLIP (ICML'21)")[-1] == f"**{score:.1f}** (8/8)"
    assert cells_of(text, "CLIP (ICML'21)", "difference")[-1] == f"+{score - 11.4:.1f}"
    assert cells_of(text, "GEM (CVPR'24)")[-1] == "71.4 (3/8)"  # higher, but of other datasets: no mark
    assert cells_of(text, "GEM (CVPR'24)", "difference")[-1] == ""
    assert cells_of(text, "SCLIP (arXiv'23)")[-1] == "–"


def test_published_rows_of_others_are_shown(tmp_path: Path) -> None:
    tmp_path.joinpath("cells").mkdir()
    text = markdown(build("6", CONFIG.tables["6"], CONFIG, only(tmp_path)))
    assert cells_of(text, "TCL (CVPR'23)", "published") == ["30.3", "19.6", "23.1", "24.3"]
    assert cells_of(text, "TCL (CVPR'23)") == ["–", "–", "–", "–"]


@pytest.mark.parametrize("number", CONFIG.tables)
def test_every_row_and_column_of_each_table_is_there(number: str, tmp_path: Path) -> None:
    grid = build(number, CONFIG.tables[number], CONFIG, only(tmp_path))
    rows = [line.row for line in grid.lines]
    published = load_published(CONFIG.tables[number].published)
    assert set(rows) == {*CONFIG.tables[number].rows, *published}
    assert [name for name in rows if name in CONFIG.tables[number].rows] == list(CONFIG.tables[number].rows)
    assert all(list(line.entries) == grid.columns for line in grid.lines)
    assert markdown(grid).count("published") > len(published)


def test_a_stale_cell_is_named_and_not_ranked(tmp_path: Path) -> None:
    put(tmp_path, "clip", "whu_aerial", [GOOD, GOOD], changes={"threshold": 0.5})
    put(tmp_path, "gem", "whu_aerial", [FAIR, FAIR], changes={"threshold": load_card("whu_aerial").threshold})
    text = markdown(build("2", CONFIG.tables["2"], CONFIG, only(tmp_path)))
    assert cells_of(text, "CLIP (ICML'21)")[0] == "71.4 (stale) [1]"
    changed = f"threshold 0.5 -> {load_card('whu_aerial').threshold}"
    assert f"[1] clip on whu_aerial: changed since it was counted: {changed}\n" in text
    assert cells_of(text, "GEM (CVPR'24)")[0] == "**50.0**"


def test_another_backbone_is_named(tmp_path: Path) -> None:
    put(
        tmp_path,
        "clip",
        "whu_aerial",
        [GOOD, FAIR],
        changes={"backbone": "/home/me/tiny.json", "threshold": 0.6},
    )
    text = markdown(build("2", CONFIG.tables["2"], CONFIG, only(tmp_path)))
    assert cells_of(text, "CLIP (ICML'21)")[0] == "**60.0** [1]"
    assert "[1] backbone tiny.json, benchmark.yaml has clip-vit-b16\n" in text
    with pytest.raises(AssertionError):
        cells_of(text, "CLIP (ICML'21)", "difference")


def test_a_caveat_forbids_the_comparison_only(tmp_path: Path) -> None:
    put(tmp_path, "clip", "whu_aerial", [GOOD, FAIR], info={"caveat": "unofficial"})
    text = markdown(build("2", CONFIG.tables["2"], CONFIG, only(tmp_path)))
    assert cells_of(text, "CLIP (ICML'21)")[0] == "**60.0** [1]"
    assert "[1] unofficial\n" in text
    with pytest.raises(AssertionError):
        cells_of(text, "CLIP (ICML'21)", "difference")


@pytest.mark.parametrize(
    ("options", "name"),
    [({"demo": True}, "demo"), ({"limit": 2}, "limited-2"), ({"demo": True, "limit": 2}, "demo-limited-2")],
)
def test_demo_and_limited_numbers_cannot_be_mistaken(tmp_path: Path, options: dict[str, object], name: str) -> None:
    put(tmp_path, "clip", "whu_aerial", [GOOD, FAIR], **options)
    collection = only(tmp_path)
    assert collection.name == name
    grid = build("2", CONFIG.tables["2"], CONFIG, collection)
    text = markdown(grid)
    assert text.startswith(f"# Table 2 [{name}]: ")
    assert "These are no results on " in text.splitlines()[2]
    assert cells_of(text, "CLIP (ICML'21)", f"measured [{name}]")[0] == "**60.0**"
    with pytest.raises(AssertionError):
        cells_of(text, "CLIP (ICML'21)", "difference")
    line = csv_lines(grid)[0]
    assert (line["demo"], line["limit"]) == (bool(options.get("demo")), options.get("limit"))
    assert (line["difference"], line["verdict"]) == (None, None)


def test_tiles_without_scenes_are_called_optimistic(tmp_path: Path) -> None:
    classes = ("background", "building")
    without_scenes = replace(
        spec(settings=settings("clip", "whu_aerial"), inputs={}, classes=classes, metric="foreground_iou"),
        images=[("a", None), ("b", None)],
    )
    writer = Store(tmp_path).open(without_scenes)
    for index in range(2):
        writer.add(index, *certain(GOOD))
    writer.finish()
    text = markdown(build("2", CONFIG.tables["2"], CONFIG, only(tmp_path)))
    assert "whu_aerial 2 (2 images: no interval, single images: optimistic)" in text


# ---------------------------------------------------------------------------------------- other outputs


def test_csv_has_one_line_a_cell_in_fixed_columns(tmp_path: Path) -> None:
    put(tmp_path, "maskclip", "openearthmap", [GOOD, FAIR])
    put(tmp_path, "sclip", "openearthmap", [FAIR], total=4)
    lines = csv_lines(build("4", CONFIG.tables["4"], CONFIG, only(tmp_path)))
    assert len(lines) == 6 * 3
    first = lines[0]
    assert list(first)[:10] == [
        "table", "row", "label", "venue", "dataset", "metric", "status", "images", "images_total", "measured",
    ]  # fmt: skip
    assert (first["table"], first["row"], first["dataset"], first["status"]) == (
        "table4",
        "maskclip",
        "openearthmap",
        "ok",
    )
    assert (first["measured"], first["published"], first["difference"]) == (60.0, Decimal("25.1"), 34.9)
    assert (first["images"], first["images_total"], first["mark"], first["published_mark"]) == (
        2,
        2,
        "best",
        None,
    )
    assert (first["interval_unit"], first["interval_units"]) == ("scene", 1)
    costs = {line["row"]: line["seconds_per_image"] for line in cost_lines(only(tmp_path))}
    assert costs == {"maskclip": 0.75, "sclip": 1.5}  # in a table of their own
    assert not set(COST_COLUMNS[2:]) & set(first)
    partial = next(line for line in lines if (line["row"], line["dataset"]) == ("sclip", "openearthmap"))
    assert (partial["status"], partial["images"], partial["images_total"]) == ("partial", 1, 4)
    assert (partial["measured"], partial["difference"], partial["mark"]) == (50.0, None, None)
    assert lines[1]["status"] == "not run"


def test_the_leaderboard_holds_all_that_is_stored(tmp_path: Path) -> None:
    put(tmp_path, "clip", "vdd", [FAIR, FAIR])
    put(tmp_path, "clip", "whu_aerial", [FAIR, FAIR])
    put(tmp_path, "gem", "vdd", [GOOD, GOOD])
    stored(tmp_path, "mine", "own_set", [GOOD], metric="foreground_iou")
    grid = leaderboard(CONFIG, only(tmp_path))
    assert grid.columns == ["vdd", "whu_aerial", "own_set", "average"]
    assert [line.row for line in grid.lines[:-2]] == ["clip", "gem", "mine"]
    constant, chance = grid.lines[-2:]
    assert 0 < constant.entries["vdd"].value < grid.lines[1].entries["vdd"].value
    assert 0 < chance.entries["own_set"].value < 1
    assert all(
        entry.mark is None and not entry.complete for entry in (*constant.entries.values(), *chance.entries.values())
    )
    assert cells_of(markdown(grid), "gem") == ["**71.4**", "–", "–", "–"]  # no dataset that all have


def test_means_of_the_leaderboard_are_over_common_datasets(tmp_path: Path) -> None:
    for dataset in ("vdd", "whu_aerial", "uavid"):
        put(tmp_path, "clip", dataset, [FAIR, FAIR])
    put(tmp_path, "gem", "vdd", [GOOD, GOOD])
    put(tmp_path, "gem", "whu_aerial", [FAIR, FAIR])
    grid = leaderboard(CONFIG, only(tmp_path))
    means = {line.row: line.entries["average"] for line in grid.lines[:-2]}
    assert list(means) == ["gem", "clip"] and {mean.counted for mean in means.values()} == {2}
    assert means["clip"].value == pytest.approx(0.5) and means["gem"].value > 0.5


def test_latex_is_set_with_booktabs(tmp_path: Path) -> None:
    put(tmp_path, "maskclip", "openearthmap", [GOOD, GOOD, FAIR])
    put(tmp_path, "sclip", "openearthmap", [FAIR, FAIR, FAIR])
    put(tmp_path, "maskclip+ours", "openearthmap", [FAIR], total=4)
    text = latex(build("4", CONFIG.tables["4"], CONFIG, only(tmp_path)))
    assert r"\begin{tabular}{lrrr}" in text and "Method & OpenEarthMap & WHU Aerial & WBS-SI" in text
    assert r"{\scriptsize images} & {\scriptsize 3} &  &  \\" in text and r"\label{tab:table4}" in text
    assert r"other methods. IoU of the foreground class, in per cent. Best in bold, second best underlined.}" in text
    assert r"MaskCLIP (ECCV'22) & \textbf{63.6} & -- & -- \\" in text
    assert r"\quad\textcolor{gray}{published} & \textcolor{gray}{25.1}" in text
    assert text.count("&") % 3 == 0 and text.count(r"\toprule") == text.count(r"\bottomrule") == 1


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("pdflatex") and shutil.which("bibtex")),
    reason="no pdflatex or bibtex, which set the tables; Debian's texlive-latex-recommended has both",
)
def test_tex_sets_tables_and_references_on_the_page(tmp_path: Path) -> None:
    """All datasets are wider than the text; of one dataset no author is known."""
    for dataset in ("wbs_si", "loveda"):
        put(tmp_path, "maskclip", dataset, [GOOD, FAIR])
    made = tables(tmp_path, tmp_path, formats=["latex", "latex-intervals", "bibtex"], draws=50)
    inputs = "".join(rf"\input{{{file.name}}}\clearpage" for file in made if file.suffix == ".tex")
    packages = r"\usepackage[utf8]{inputenc}\usepackage{booktabs,graphicx,xcolor,url}"
    end = r"\nocite{*}\bibliographystyle{plain}\bibliography{leaderboard}\end{document}"
    (tmp_path / "paper.tex").write_text(rf"\documentclass{{article}}{packages}\begin{{document}}{inputs}{end}", "utf-8")
    for command in (["pdflatex", "-halt-on-error"], ["bibtex"], ["pdflatex", "-halt-on-error"]):
        done = subprocess.run([*command, "paper"], cwd=tmp_path, capture_output=True, text=True, errors="replace")
        assert done.returncode == 0, done.stdout
        assert not re.search(r"Overfull \\hbox|Warning--", done.stdout), done.stdout


def test_latex_with_intervals(tmp_path: Path) -> None:
    put(tmp_path, "maskclip", "openearthmap", [GOOD, GOOD, FAIR] * 4)
    grid = build("4", CONFIG.tables["4"], CONFIG, only(tmp_path))
    lines = latex(grid, intervals=True).splitlines()
    (place,) = [number for number, line in enumerate(lines) if "95" in line]
    low, high = re.search(r"scriptsize ([\d.]+)--([\d.]+)", lines[place]).groups()  # type: ignore[union-attr]
    interval = grid.lines[0].entries["openearthmap"].interval
    assert interval is not None and (low, high) == (f"{100 * interval.low:.1f}", f"{100 * interval.high:.1f}")
    assert lines[place - 1].startswith("MaskCLIP") and lines[place].count("&") == 3
    assert any("OpenEarthMap 12 (6 scenes: few)" in line for line in lines if line.startswith(r"\par"))


def test_html_holds_what_markdown_holds(tmp_path: Path) -> None:
    put(tmp_path, "maskclip", "openearthmap", [GOOD, FAIR], info={"label": "Mask <b>"})
    put(tmp_path, "sclip", "openearthmap", [FAIR, FAIR])
    grid = build("4", CONFIG.tables["4"], CONFIG, only(tmp_path))
    text = html_table(grid)
    table = ElementTree.fromstring(text[text.index("<table>") : text.index("</table>") + len("</table>")])
    lines = [["".join(cell.itertext()).strip() for cell in line] for line in table.iter("tr")]
    shown = [line for line in markdown(grid).splitlines() if line.startswith("| ")]
    plain = [[cell.strip().replace("*", "") for cell in line.strip("|").split("|")] for line in shown]
    assert lines == plain
    assert len(table.findall(".//b")) >= 2 and table.findall(".//i")


def test_gains_of_ours_beside_the_published_ones(tmp_path: Path) -> None:
    for row in ("clip", "maskclip", "sclip", "gem", "clearclip"):
        put(tmp_path, row, "wbs_si", [FAIR])
    put(tmp_path, "segearth-ov", "wbs_si", [GOOD])
    put(tmp_path, "segearth-ov", "inria", [GOOD])
    text = gains_table(gains(only(tmp_path)), "")
    assert "| flood detection       | +21.4 (1/1) | 71.4 against 50.0 (clip) | +15.3 (1/1) |" in text
    assert "| building extraction   | – (0/4)     |" in text


@pytest.mark.parametrize(
    ("points", "text"), [(0.04, "0.0"), (-0.04, "0.0"), (3.95, "+4.0"), (-1.25, "−1.3"), (None, "")]
)
def test_differences_have_a_sign(points: float | None, text: str) -> None:
    assert signed(points if points is None else Decimal(str(points))) == text


def test_titles() -> None:
    assert title("Table 1: mIoU", "") == "Table 1: mIoU"
    assert title("Table 1: mIoU", "demo") == "Table 1 [demo]: mIoU"


def test_signed_numbers() -> None:
    shown = [render.signed(points) for points in (1.25, -0.44, -0.04, None, float("nan"))]
    assert shown == ["+1.3", "−0.4", "0.0", "", "–"]


def test_a_class_of_one_scene_is_named_below_the_table(tmp_path: Path) -> None:
    put(tmp_path, "clip", "whu_aerial", [[[8, 1], [0, 0]]] * 12 + [GOOD])
    put(tmp_path, "sclip", "whu_aerial", [[[8, 1], [0, 0]]] * 12 + [GOOD])
    text = markdown(build("2", CONFIG.tables["2"], CONFIG, only(tmp_path)))
    assert "Not seen by intervals: whu_aerial: labelled in one scene only: class1.\n" in text


def test_rows_that_no_test_tells_from_the_best_are_named(tmp_path: Path) -> None:
    for row, images in (("maskclip", [GOOD] * 18), ("sclip", [FAIR] * 18), ("gem", [GOOD, *[FAIR] * 17])):
        put(tmp_path, row, "openearthmap", images, demo=True)
        put(tmp_path, row, "whu_aerial", images[:4], demo=True)
    grid = leaderboard(CONFIG, only(tmp_path))
    # on average nine scenes count, and two more whose swap changes half as much
    assert grid.undecided is not None
    assert grid.undecided[:3] == ({"openearthmap": [], "average": []}, ["whu_aerial"], 6)
    lines = {(line["row"], line["dataset"]): (line["p_to_best"], line["p_to_best_holm"]) for line in csv_lines(grid)}
    assert lines["sclip", "openearthmap"] == grid.undecided.p_values["openearthmap", "sclip"] == (2 / 512, 4 * 2 / 512)
    assert lines["maskclip", "openearthmap"] == lines["sclip", "whu_aerial"] == (None, None)
    text = markdown(grid)
    assert (
        "Not distinguishable from the best (scenes swapped; 5 %, Holm over 6 tests): openearthmap: none; average: none."
        in text
    )
    assert "No test (too few scenes, or other images): whu_aerial." in text
    assert r"(scenes swapped; 5 \%, Holm over 6 tests): OpenEarthMap: none; average: none." in latex(grid)
    put(tmp_path, "gem", "openearthmap", [FAIR, *[GOOD] * 17], demo=True)
    assert present(leaderboard(CONFIG, only(tmp_path)).undecided)[0]["openearthmap"] == ["gem"]
