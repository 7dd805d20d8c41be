"""A results folder of before there were checksums: it is read, shown, and continued (tests/golden/old-results)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from project import SMALL

from bench.cli import main
from bench.config import load_config
from bench.report.frames import scores
from bench.report.scores import scores_of
from bench.store.store import Store

OLD = Path(__file__).resolve().parents[1] / "golden/old-results"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(OLD, tmp_path / "old")
    (tmp_path / "small.yaml").write_text(SMALL)
    return tmp_path / "old"


def records(folder: Path) -> dict[str, dict[str, Any]]:
    """Content of each cell.json, by cell."""
    files = sorted(folder.glob("cells/*/*/cell.json"))
    return {f"{file.parent.parent.name}/{file.parent.name}": json.loads(file.read_text()) for file in files}


def test_nothing_of_it_has_a_checksum() -> None:
    written = {**records(OLD / "demo"), **records(OLD / "real")}
    assert len(written) == 5 and not any("checksum" in record or "card" in record for record in written.values())


def test_its_numbers_are_shown_as_they_were_written(folder: Path) -> None:
    written = records(folder / "demo")
    found = scores(folder / "demo", config=folder.parent / "small.yaml").set_index(["dataset", "row"])
    assert found.status.to_dict() == {
        ("wbs_si", "clip"): "ok",
        ("wbs_si", "sclip"): "partial",
        ("whu_aerial", "clip"): "ok",
        ("whu_aerial", "sclip"): "ok",
    }
    assert found.loc[("wbs_si", "sclip"), "images"] == 2
    for (dataset, row), line in found[found.status == "ok"].iterrows():
        metrics = written[f"{dataset}/{row}"]["metrics"]
        for name in ("score", "miou", "foreground_iou", "macc", "aacc", "mf1", "miou_per_image"):
            assert line[name] == metrics[name], (dataset, row, name)


def test_the_move_makes_no_old_result_stale_or_damaged(folder: Path) -> None:
    small = load_config(folder.parent / "small.yaml")
    real = {row: one.verdict for (row, _), one in scores_of(Store(folder / "real"), small).items()}
    assert {(one.text, one.stale) for one in real.values()} == {("3 of 499 images", ())}
    changed = scores_of(Store(folder / "real"), load_config())["clip", "wbs_si"].verdict
    assert changed.stale == ("resize long side 112 -> long side 448", "window 112 -> 224")  # it is judged


def test_all_commands_read_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = ["--results", str(folder / "demo")]
    for command in (["tables"], ["report"], ["show", "sclip", "wbs_si"], ["compare", "clip", "sclip"]):
        assert main([*command, *results]) == 0
        text = capsys.readouterr().out
        assert "stale" not in text and "damaged" not in text
    assert main(["export", str(folder / "old.zip"), "--results", str(folder / "real")]) == 0
    assert main(["import", str(folder / "old.zip"), "--results", str(folder / "taken")]) == 0
    assert set(records(folder / "taken")) == {"wbs_si/clip", "wbs_si/maskclip+ours"}


def test_a_run_continues_it_and_adds_checksums(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = records(folder / "demo")
    flags = ["--demo", "--methods", "clip,sclip", "--datasets", "whu_aerial,wbs_si", "--workers", "0"]
    place = ["--config", str(folder.parent / "small.yaml"), "--results", str(folder / "demo"), "--device", "cpu"]
    assert main(["run", *flags, *place]) == 0
    text = capsys.readouterr().out
    assert "stale" not in text and "damaged" not in text and "1 partial" in text
    after = records(folder / "demo")
    assert {cell: one["fingerprint"] for cell, one in after.items()} == {
        cell: one["fingerprint"] for cell, one in before.items()
    }
    assert all(one["status"] == "ok" and one["checksum"] for one in after.values())
    assert not list((folder / "demo").rglob("part-*.parquet"))
