"""Labels of other people stay text in every format."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas as pd
import pytest
from store_helpers import stored

from bench.cli import main
from bench.errors import one_line
from bench.report.escape import csv_text, csv_value, markdown_text, tex_text

LABEL = "=cmd|'/c calc'!A1 \\input{x}^~ <img src=x onerror=1> [a](http://x)\n**bold**\r# head"


def test_one_line_leaves_no_control_characters() -> None:
    assert one_line(" a\r\n\u2028b\x1b]0;title\x07c\t ") == "a b ]0;title c"


def test_markdown_text_has_no_marks_of_its_own() -> None:
    text = markdown_text(LABEL)
    assert "\n" not in text and "\\|" in text and "\\<img" in text and "]\\(http" in text and "\\*\\*bold" in text


def test_names_of_rows_and_datasets_read_as_before() -> None:
    for name in ("wbs_si", "sclip+ours", "clip[threshold=0.2]", "debias 0.0 -> 0.3", "ClearCLIP (ECCV'24)"):
        assert markdown_text(name) == name and csv_value(name) == name


def test_tex_text_holds_no_command() -> None:
    assert tex_text("\\input{a}^~_%\nλ") == (
        r"\textbackslash{}input\{a\}\textasciicircum{}\textasciitilde{}\_\% $\lambda$"
    )
    assert tex_text("0 -> 1 <|") == r"0 -\textgreater{} 1 \textless{}\textbar{}"  # others in LaTeX's own encoding


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t=", "\r@"])
def test_csv_value_is_no_formula(sign: str) -> None:
    assert csv_value(f"{sign}SUM(1)").startswith("'")


def test_csv_text_leaves_numbers_as_they_are() -> None:
    frame = pd.DataFrame({"name": ["-x", None], "mixed": [-1, "@a"], "number": [-1.5, 2.0], "sure": [True, False]})
    lines = list(csv.DictReader(io.StringIO(csv_text(frame))))
    assert [line["name"] for line in lines] == ["'-x", ""] and [line["mixed"] for line in lines] == ["-1", "'@a"]
    assert [line["number"] for line in lines] == ["-1.5", "2.0"] and lines[0]["sure"] == "True"


def test_a_hostile_label_breaks_no_table(tmp_path: Path) -> None:
    stored(tmp_path, "clip", "own", [[[40, 0], [0, 40]]], info={"label": LABEL, "venue": "@x|y\nz"})
    formats = "md,csv,latex,html"
    assert main(["tables", "--results", str(tmp_path), "--draws", "10", "--format", formats]) == 0
    board = tmp_path / "tables" / "leaderboard"
    table = [line for line in board.with_suffix(".md").read_text().splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    rows = list(csv.DictReader(board.with_suffix(".csv").open(newline="")))
    assert {row["label"][:2] for row in rows if row["row"] == "clip"} == {"'="}
    assert "\\input" not in board.with_suffix(".tex").read_text()
    assert "<img" not in board.with_suffix(".html").read_text()
