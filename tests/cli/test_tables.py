"""``bench tables``."""

from __future__ import annotations

import argparse
import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest
from table_helpers import FAIR, GOOD, put

from bench.cli import main, stored
from bench.errors import BenchError

pytestmark = pytest.mark.usefixtures("any_count")
ROOT = Path(__file__).resolve().parents[2]


def run(*flags: str) -> int:
    parser = argparse.ArgumentParser()
    stored.add_tables(parser)
    return stored.tables(parser.parse_args(flags))


def test_the_command_writes_all_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, "clip", "vdd", [GOOD, FAIR])
    put(tmp_path, "clip", "vdd", [GOOD, FAIR], limit=2)
    assert run("--results", str(tmp_path)) == 0
    names_written = {Path(line).name for line in capsys.readouterr().out.splitlines()}
    assert names_written == {path.name for path in (tmp_path / "tables").iterdir()}
    assert not names_written & {"table2.md", "table6.csv", "table2-limited-2.csv"}  # vdd is not in them
    assert {
        "table1.md",
        "leaderboard.md",
        "headline.md",
        "table1-limited-2.csv",
    } <= names_written
    with (tmp_path / "tables/table1.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["measured"] for line in lines if line["measured"]] == ["60.0", "60.0"]  # vdd and the average
    before = {path: path.read_bytes() for path in (tmp_path / "tables").iterdir()}
    run("--results", str(tmp_path))
    assert before == {path: path.read_bytes() for path in (tmp_path / "tables").iterdir()}


def test_a_table_that_holds_nothing_any_more_is_removed_and_a_users_file_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--results", str(tmp_path)) == 0  # nothing is stored: all tables, with published numbers
    tables = tmp_path / "tables"
    assert (tables / "table2.md").exists() and (tables / "table2.csv").exists()
    (tables / "table3.md").write_text("# Mine\n")
    put(tmp_path, "clip", "vdd", [GOOD, FAIR])
    capsys.readouterr()
    assert run("--results", str(tmp_path)) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tables / "leaderboard.md")
    assert not (tables / "table2.md").exists() and not (tables / "table2.csv").exists()
    assert (tables / "table1.md").exists() and (tables / "table3.md").read_text() == "# Mine\n"


def test_one_table_in_one_format(tmp_path: Path) -> None:
    assert run("--results", str(tmp_path), "--out", str(tmp_path / "o"), "--table", "3", "--format", "md") == 0
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["table3.md"]


def test_a_table_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for row, image in (("segearth-ov", GOOD), ("clip", FAIR), ("mine", GOOD)):
        for dataset in ("vdd", "udd5"):
            put(tmp_path, row, dataset, [image], info={"label": row.upper(), "venue": "X'26"})
    put(tmp_path, "gem", "loveda", [GOOD])
    asked = ["--rows", "mine,all", "--datasets", "vdd,udd5", "--name", "main", "--caption", "50 % better"]
    assert run("--results", str(tmp_path), "--format", "latex,csv", *asked) == 0
    assert [Path(line).name for line in capsys.readouterr().out.splitlines()] == ["main.csv", "main.tex"]
    text = (tmp_path / "tables/main.tex").read_text()
    assert r"\caption{50 \% better. IoU of the foreground class (VDD); mIoU (UDD5), in per cent." in text
    methods = [line.partition(" &")[0] for line in text.partition(r"\midrule")[2].splitlines() if " & " in line]
    guesses = ["Best constant prediction", "Random prediction"]
    assert methods == ["MINE (X'26)", "CLIP (X'26)", "SEGEARTH-OV (X'26)", *guesses]
    constant, chance = (line for line in text.splitlines() if line.startswith(tuple(guesses)))
    assert "--" not in constant + chance and constant.count("&") == 3  # with an average
    with (tmp_path / "tables/main.csv").open() as file:
        assert [line["dataset"] for line in csv.DictReader(file)][:3] == ["vdd", "udd5", "average"]
    assert run("--results", str(tmp_path), "--rows", "gem", "--format", "csv") == 0
    with (tmp_path / "tables/chosen.csv").open() as file:
        found = {line["dataset"]: line["status"] for line in csv.DictReader(file) if line["row"] == "gem"}
    assert found == {"loveda": "ok", "udd5": "not run", "vdd": "not run", "average": "1/3"}


def test_bibtex_of_what_a_table_holds(tmp_path: Path) -> None:
    put(tmp_path, "segearth-ov", "vdd", [GOOD], changes={"upsampler": "simfeatup"})
    put(tmp_path, "mine", "vdd", [GOOD])
    assert run("--results", str(tmp_path), "--rows", "segearth-ov,mine", "--format", "bibtex") == 0
    text = (tmp_path / "tables/chosen.bib").read_text()
    assert re.findall("@misc{(.*),", text) == ["cai2025vdd", "li2025segearth", "radford2021learning"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rows", "clop"], "--rows clop: nothing is stored of it; did you mean clip"),
        (["--datasets", "vdd", "--name", "a/b"], "--name a/b: is part of a file name"),
        (["--rows", ""], "--rows '': names nothing"),
        (["--datasets", "vdd", "--name", ".x"], "--name .x: is part of a file name"),
        (["--caption", "Mine"], "--caption and --name: are of a table of your own; give --rows or --datasets"),
        (["--datasets", "vdd", "--table", "1"], "--table: goes with neither --rows nor --datasets"),
        (["--datasets", "vdd", "--rows", "gem"], "--rows gem: nothing is stored of it"),
        (["--datasets", "vdd", "--rows", "towers"], "nothing is stored of these rows on these datasets"),
        (["--format", "xlsx"], "unknown format 'xlsx'; known: bibtex, csv, html, latex, latex-intervals, md"),
        (["--table", "7"], "--table 7: no such table; known: 1, 2"),
        (["--results", "nowhere"], "nowhere: does not exist; run something first"),
    ],
)
def test_mistakes_are_answered(tmp_path: Path, flags: list[str], message: str) -> None:
    put(tmp_path, "clip", "vdd", [GOOD])
    put(tmp_path, "gem", "udd5", [GOOD])
    with pytest.raises(BenchError, match=message):
        run("--results", str(tmp_path), *flags)


def test_an_unwritable_output_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match=r"file: cannot be written \(File exists\); give another --out"):
        run("--results", str(tmp_path), "--out", str(tmp_path / "file"))


def test_tables_and_compare_need_no_torch(tmp_path: Path) -> None:
    for row in ("clip", "gem"):
        put(tmp_path, row, "whu_aerial", [GOOD, FAIR, GOOD])
    code = f"""
import sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "open_clip", "datasets", "torchvision"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NoTorch())
sys.path.insert(0, {str(ROOT)!r})
import argparse
from bench.cli import compare, stored
pairs = ((stored.add_tables, stored.tables, []), (compare.add_arguments, compare.main, ["clip", "gem"]))
for add_arguments, run, flags in pairs:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert run(parser.parse_args([*flags, "--results", sys.argv[1]])) == 0
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True)
    assert (tmp_path / "tables/table2.md").exists()


def test_the_demos_results_are_named_and_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for row in ("clip", "sclip"):
        put(Path("results/demo-run"), row, "vdd", [GOOD, FAIR])
    commands = (["show", "clip", "vdd"], ["compare", "clip", "sclip"], ["report"])
    for arguments in commands:
        assert main(arguments) == (1 if arguments[0] == "show" else 2)  # which says what is known before a run
        assert capsys.readouterr().err.endswith("; `--demo` reads results/demo-run\n"), arguments
        assert main([*arguments, "--demo"]) == 0
    assert main(["export", "all.zip", "--demo"]) == 0 and Path("all.zip").is_file()
    assert main(["tables", "--demo"]) == 0 and Path("results/demo-run/tables/leaderboard.md").is_file()
    for flags in (["--results", "own", "--demo"], ["--demo", "--results", "own"]):  # as `run` takes both
        assert main(["tables", *flags]) == 2 and "results folder own: " in capsys.readouterr().err
    capsys.readouterr()
    assert main(["show", "clip", "vdd", "--results", "elsewhere"]) == 1
    shown = capsys.readouterr()
    assert "score      nothing is stored yet\n" in shown.out and "--demo" not in shown.err
    put(Path("elsewhere"), "clip", "vdd", [GOOD])
    record = next(Path("elsewhere").rglob("cell.json"))
    record.write_text("{")
    assert main(["show", "clip", "vdd", "--results", "elsewhere"]) == 2 and str(record) in capsys.readouterr().err
