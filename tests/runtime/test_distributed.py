"""Processes that the command starts itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from project import Project

from bench.errors import BenchError
from bench.runtime.distributed import said_already, start_processes

FLAGS = ("--datasets", "loveda,whu_aerial", "--methods", "clip,segearth-ov")


def maps(project: Project, results: str) -> dict[str, bytes]:
    """Bytes of every kept label map, by cell and image."""
    cells = project.root / results / "cells"
    return {str(file.relative_to(cells)): file.read_bytes() for file in cells.rglob("predictions/*.png")}


@pytest.mark.slow
def test_two_processes_give_the_bytes_of_one_and_mistakes_are_told_once(tmp_path: Path) -> None:
    project = Project(tmp_path)
    assert project.run(*FLAGS, "--save-predictions", results="one") == 0
    done = project.process(*FLAGS, "--save-predictions", "--processes", "2", results="two")
    assert done.returncode == 0, done.stderr
    assert project.counts("two") == project.counts("one") and len(project.counts("one")) == 4
    assert maps(project, "two") == maps(project, "one") and len(maps(project, "one")) == 10
    wrong = project.process(*FLAGS, "--processes=2", "--datasets", "lovda")
    assert wrong.returncode == 2
    assert [line for line in wrong.stderr.splitlines() if "lovda" in line] == wrong.stderr.splitlines()
    assert len(wrong.stderr.splitlines()) == 1


def test_a_profile_is_written_and_says_how_busy_a_gpu_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path)
    assert project.run(*FLAGS, "--limit", "1", "--profile", str(tmp_path / "trace.json")) == 0
    shown = capsys.readouterr().out
    assert "trace.json: " in shown and "no GPU" in shown
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    (tmp_path / "file").write_text("")
    assert project.run(*FLAGS, "--limit", "1", "--profile", str(tmp_path / "file" / "trace.json")) == 2
    wrong = capsys.readouterr().err
    assert "cannot be written" in wrong and "Traceback" not in wrong


@pytest.mark.parametrize(("count", "devices"), [(None, "0,x"), (None, "0,0"), (3, "0,1")])
def test_devices_that_make_no_sense(count: int | None, devices: str) -> None:
    with pytest.raises(BenchError, match=f"--devices {devices}"):
        start_processes(["run"], count, devices)


def test_a_message_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not said_already("no folder")
    monkeypatch.setenv("OVSS_BENCH_SAID", str(tmp_path))
    assert [said_already(message) for message in ("a", "b", "a")] == [False, False, True]
