"""The cells of a run: what is missing, stale or to be scored again, and what their data lack."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from project import BOTH, Project

from bench.cli import main
from bench.paths import shipped
from bench.runtime.sources import source_hash, text_hash
from bench.store.store import Store

pytestmark = pytest.mark.usefixtures("any_count")


SHIPPED_CLIP = "13a1343a02b7d782f9ae4ae0a253b24a0aaef37fd908898c2f6bebdb882e39bf"  # sha256 of clip.py at b6b4ccc


def test_a_second_run_has_nothing_to_do(finished: Project, capsys: pytest.CaptureFixture[str]) -> None:
    before = {
        file: file.stat().st_mtime_ns for file in (finished.root / "results" / "cells").rglob("*") if file.is_file()
    }
    assert finished.run(*BOTH) == 0
    after = {
        file: file.stat().st_mtime_ns for file in (finished.root / "results" / "cells").rglob("*") if file.is_file()
    }
    assert after == before
    assert "10 cached" in capsys.readouterr().out


def test_a_plan_with_nothing_to_do_says_so(finished: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert finished.run(*BOTH, "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "nothing to do" in shown and "about" not in shown


@pytest.mark.parametrize("text", [SHIPPED_CLIP, text_hash(shipped("methods/clip.py"))], ids=["shipped", "as it is"])
def test_a_cell_that_names_its_plug_in_by_the_hash_of_its_text_stays_valid(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    """Cells of earlier versions: by the text that was shipped then, and by a text of the user that has not changed."""
    flags = ("--datasets", "loveda", "--methods", "clip")
    with monkeypatch.context() as patch:
        patch.setattr("bench.registry.source_hash", lambda _: text)
        assert project.run(*flags) == 0
    before = project.counts()
    stored = json.loads((project.root / "results/cells/loveda/clip/cell.json").read_text())
    assert stored["inputs"]["plug-in"] == text != source_hash(shipped("methods/clip.py"))
    capsys.readouterr()
    assert project.run(*flags, "--dry-run") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert project.run(*flags) == 0 and project.counts() == before


def test_a_cell_of_another_plug_in_is_stale(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--datasets", "loveda", "--methods", "clip")
    with monkeypatch.context() as patch:
        patch.setattr("bench.registry.source_hash", lambda _: "0" * 64)
        assert project.run(*flags) == 0
    capsys.readouterr()
    assert project.run(*flags, "--dry-run") == 0
    assert "1 stale" in capsys.readouterr().out


def test_a_changed_setting_makes_a_cell_stale_and_says_what_changed(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--datasets", "loveda", "--methods", "sclip")
    assert project.run(*flags) == 0
    before = project.counts()
    project.configure(sclip={"method": "sclip", "options": {"residual": "keep"}})
    assert project.run(*flags) == 0
    assert "sclip on loveda is stale: option residual" in capsys.readouterr().out
    assert project.counts() != before


def test_a_changed_threshold_needs_no_images(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--datasets", "loveda", "--methods", "sclip")
    assert project.run(*flags) == 0
    counts = project.counts()
    project.configure(sclip={"method": "sclip", "threshold": 0.9})
    assert project.run(*flags) == 0
    assert "sclip on loveda is rescore: threshold 0.3 -> 0.9" in capsys.readouterr().out
    assert project.counts() == counts
    cell = Store(project.root / "results").cell("sclip", "loveda")
    background = cell.confusion()[..., 0].sum() / cell.confusion().sum()
    assert background > 0.99  # an untrained model is never that sure


def test_dry_run_plans_and_stores_nothing(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert project.run(*BOTH, "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "10 missing" in shown
    assert "seconds on cpu" in shown
    assert not list((project.root / "results").rglob("cell.json"))


def test_datasets_all_runs_what_is_there_and_strict_minds(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert project.run("--methods", "clip") == 0
    assert "no data" in capsys.readouterr().out
    assert Store(project.root / "results").cell("clip", "isaid").status == "no data"
    assert project.run("--methods", "clip", "--strict") == 1
    assert "isaid: no data" in capsys.readouterr().err


def test_an_empty_data_root_is_named_with_the_next_command(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--methods", "clip", "--data-root", str(tmp_path))
    line = "17 of 17 datasets have no data; `python -m bench datasets`"
    assert project.run(*flags, "--dry-run") == 1
    shown = capsys.readouterr().out
    assert line in shown and "nothing to do" not in shown
    assert project.run(*flags) == 1
    assert line in capsys.readouterr().err


def test_data_and_weights_that_are_missing_are_named_together(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVSS_BENCH_CACHE", str(tmp_path))
    arguments = project.arguments("--methods", "segearth-ov")
    at = arguments.index("--upsampler-checkpoint")
    del arguments[at : at + 2]
    assert main([*arguments, "--datasets", "isaid,udd5"]) == 2
    told = capsys.readouterr().err
    assert f"isaid, udd5: no data in {project.data}; weights simfeatup are not there either; `python" in told
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert "upsampler simfeatup: " in told and "; 15 of 17 datasets have no data either" in told
    assert main([*arguments, "--data-root", str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert "17 of 17 datasets have no data" in shown.err and "weights simfeatup are not there either" in shown.err
    assert "tables in" not in shown.out and not list((project.root / "results").rglob("cell.json"))


def test_a_part_of_the_data_is_enough_but_for_strict(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert project.run("--methods", "clip", "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "15 of 17 datasets have no data" in shown and "seconds on cpu" in shown
    assert project.run("--methods", "clip", "--dry-run", "--strict") == 1


def test_only_selects_by_state(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert project.run("--datasets", "loveda", "--methods", "clip") == 0
    capsys.readouterr()
    assert project.run("--datasets", "loveda", "--methods", "clip,sclip", "--only", "missing") == 0
    assert "1 missing" in capsys.readouterr().out
    assert project.run("--datasets", "loveda", "--methods", "clip,sclip", "--only", "stale,failed") == 0
    assert capsys.readouterr().out.endswith("\nnothing to do: no cell is stale or failed\n")
    assert project.run("--datasets", "loveda", "--only", "lost") == 2
    assert "--only lost: not a state" in capsys.readouterr().err
