"""The guided first run, on the demo."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from data_helpers import scene
from project import SMALL, cards_of_any_count

from bench.cli import main
from bench.config import load_config
from bench.data.cards import load_card
from bench.data.inventory import DatasetStatus, look
from bench.demo.config import DEMO
from bench.demo.writers import write_dataset
from bench.spec import RunSpec
from bench.verify import reproduce as room
from bench.verify.doctor import Diagnosis, before_run, doctor
from bench.verify.reproduce import Guide, one_of_each_kind, reproduce, write_report


def status(name: str, state: str = "missing") -> DatasetStatus:
    known = look(load_card(name), Path("nowhere"))
    return replace(known, state=state)


def nothing_lacks(folder: Path) -> Diagnosis:
    """The findings of a machine without datasets, in which no weights are missing."""
    (folder / "data").mkdir()
    return replace(doctor(folder / "data", device="cpu", measure=False), lacking=(), datasets=())


def test_one_dataset_of_each_kind_is_there_or_easy_to_get() -> None:
    names = load_config().default_datasets
    missing = [status(name) for name in names]
    assert one_of_each_kind(missing) == ["openearthmap", "whu_aerial", "massachusetts_road", "wbs_si"]
    found = [status(name, "found" if name in ("potsdam", "isaid", "chn6_cug") else "missing") for name in names]
    assert one_of_each_kind(found)[0] == "potsdam" and one_of_each_kind(found)[2] == "chn6_cug"


def test_a_guided_run_compares_and_writes_what_is_sent_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With another geometry than the reference, so that the number is off."""
    monkeypatch.setattr(room, "compare", lambda *_: [])  # minutes, and tested on its own
    config = tmp_path / "small.yaml"
    config.write_text(SMALL)
    said: list[str] = []
    spec = RunSpec(demo=True, config=config, results=tmp_path / "results", workers=0, device="cpu")
    guide = Guide(spec, "1", "first", said.append)
    *_, found = reproduce(guide, nothing_lacks(tmp_path))
    (cell,) = found.cells.values()
    assert (cell.row, cell.dataset, cell.agrees) == ("segearth-ov", "udd5", False)
    assert cell.verdict.startswith("off by ") and not found.confirmed
    assert said[1].startswith("\nstep 1 of 3: udd5") and said[-1].startswith("segearth-ov  udd5  ")
    write_report(found, guide, tmp_path / "sent.zip")
    with zipfile.ZipFile(tmp_path / "sent.zip") as archive:
        names = set(archive.namelist())
        facts = json.loads(archive.read("report.json"))
        cells = zipfile.ZipFile(io.BytesIO(archive.read("cells.zip"))).namelist()
    assert {"report.md", "report.json", "cells.zip", "tables/table1-demo.md"} <= names
    assert facts["environment"]["host"] == "HOST" and facts["check"]["udd5"]["healthy"]
    assert facts["cells"][0]["verdict"] == cell.verdict
    assert "udd5/segearth-ov/cell.json" in cells


def test_what_cannot_be_had_is_noted_and_the_next_one_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "compare", lambda *_: [])
    diagnosis = nothing_lacks(tmp_path)
    (tmp_path / "small.yaml").write_text(SMALL)
    spec = RunSpec(
        backbone=DEMO,
        config=tmp_path / "small.yaml",
        data_root=tmp_path / "data",
        results=tmp_path / "results",
        workers=0,
        device="cpu",
    )
    table = {"1": load_config().tables["1"].model_copy(update={"columns": ("potsdam", "vaihingen")})}
    spec.configuration.tables.update(table)
    monkeypatch.setattr(room, "FIRST", "vdd")
    *_, found = reproduce(Guide(spec, "1", "table", lambda _: None), diagnosis)
    assert [note.partition(":")[0] for note in found.notes] == ["vdd", "potsdam", "vaihingen"]
    assert "to be got by hand (request), see `bench download potsdam`" in found.notes[1]
    assert not found.confirmed and "nothing was measured" in found.text()
    card = load_card("vdd")
    write_dataset(card, tmp_path / "data", [scene(card, 64, 72, number) for number in range(2)])
    with cards_of_any_count(tmp_path):
        *_, found = reproduce(Guide(spec, "1", "table", lambda _: None), diagnosis)
    assert ("segearth-ov", "vdd") in found.cells and not any(note.startswith("vdd: to be") for note in found.notes)


def test_show_tells_what_is_known_before_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "segearth-ov", "loveda", "--results", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "36.9 %" in said and "1669" in said and "bench run --methods segearth-ov --datasets loveda\n" in said
    assert "vocabulary" in said and "simfeatup" in said
    assert main(["show", "segearth-of", "loveda", "--results", str(tmp_path)]) == 2
    assert before_run("clip", "lovda", load_config()) is None
    known = before_run("clip[debias=0.3]", "loveda", load_config(), [tmp_path], "data")
    assert known is not None
    flags = f"--methods 'clip[debias=0.3]' --datasets loveda --cards {tmp_path} --data-root data"
    assert next(iter(known.values()))["command"] == f"python -m bench run {flags}"


def test_a_plan_without_data_says_how_much_there_is_to_fetch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", "--backbone", "demo", "--table", "2", "--methods", "clip", "--dry-run", "--device", "cpu"]
    assert main([*arguments, "--data-root", str(tmp_path), "--results", str(tmp_path / "r")]) == 1
    said = capsys.readouterr().out
    assert "9 of 9 datasets have no data" in said and "5.1 GB" in said and "nothing to do" not in said
    assert "with all weights and data about" in said


def test_the_data_root_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From nothing: what is missing is fetched into it."""
    (tmp_path / "file").touch()
    asked = ["reproduce", "--table", "none", "-o", str(tmp_path / "x.zip"), "--data-root"]
    for place, message in {"file/data": "cannot be written (Not a directory)", "new/data": "has no such table"}.items():
        assert main([*asked, str(tmp_path / place)]) == 2
        assert message in capsys.readouterr().err
    assert (tmp_path / "new" / "data").is_dir()


def test_a_report_that_cannot_be_written_is_said_before_anything_is_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in (tmp_path, tmp_path / "nowhere" / "x.zip"):
        assert main(["reproduce", "--demo", "-o", str(place)]) == 2
        assert capsys.readouterr() == (
            "",
            f"bench: -o {place}: cannot be written; give a file in a folder that is there\n",
        )
