"""Results that travel: `bench export` and `bench import`."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from store_helpers import stored

from bench.cli import main

GOOD, FAIR = [[40, 0], [0, 40]], [[20, 20], [0, 40]]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    stored(tmp_path / "results", "clip", "loveda", [GOOD, FAIR])
    stored(tmp_path / "results", "sclip+ours[debias=0.1]", "vdd", [FAIR])
    return tmp_path / "results"


def cells(folder: Path) -> dict[str, bytes]:
    root = folder / "cells"
    return {str(file.relative_to(root)): file.read_bytes() for file in sorted(root.rglob("*")) if file.is_file()}


def test_export_and_import_give_equal_bytes(results: Path, tmp_path: Path) -> None:
    archive, other = tmp_path / "out" / "all.zip", tmp_path / "other"
    assert main(["export", str(archive), "--results", str(results)]) == 0
    assert main(["import", str(archive), "--results", str(other)]) == 0
    assert cells(other) == cells(results)
    again = tmp_path / "again.zip"
    assert main(["export", str(again), "--results", str(other)]) == 0
    assert again.read_bytes() == archive.read_bytes()
    assert main(["import", str(archive), "--results", str(other)]) == 0  # what is there already
    assert main(["tables", "--results", str(other), "--draws", "10"]) == 0


def test_some_cells(results: Path, tmp_path: Path) -> None:
    assert main(["export", str(tmp_path / "a.zip"), "--results", str(results), "--datasets", "vdd"]) == 0
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        manifest = json.loads(archive.read("manifest.json"))
    assert all(name.startswith("vdd/sclip+ours") for name in manifest["files"]) and "licences" in manifest["note"]


def test_other_results_are_not_overwritten(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["export", str(tmp_path / "a.zip"), "--results", str(results)])
    other = tmp_path / "other"
    stored(other, "clip", "loveda", [FAIR, FAIR])
    before = cells(other)
    assert main(["import", str(tmp_path / "a.zip"), "--results", str(other)]) == 2
    assert "is there with other content; --replace" in capsys.readouterr().err and cells(other) == before
    assert main(["import", str(tmp_path / "a.zip"), "--results", str(other), "--replace"]) == 0
    assert cells(other) == cells(results)


def changed(archive: Path, target: Path, **changes: bytes | None) -> Path:
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = changes.pop(name.rpartition("/")[2].partition(".")[0], old.read(name))
            if data is not None:
                new.writestr(name, data)
        for name, data in changes.items():
            new.writestr(name.replace("__", "/"), data or b"")
    return target


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"counts": b"other"}, "is not what the manifest says"),
        ({"counts": None}, "lacks"),
        ({"manifest": b"{}"}, "no archive of `bench export`"),
        ({"manifest": b'{"format": 99, "files": {}}'}, "of format 99"),
        ({"..__..__etc": b"x"}, "which is no part of a result"),
    ],
)
def test_what_does_not_fit_is_refused(
    changes: dict[str, bytes | None], message: str, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["export", str(tmp_path / "a.zip"), "--results", str(results), "--datasets", "loveda"])
    bad = changed(tmp_path / "a.zip", tmp_path / "bad.zip", **changes)
    assert main(["import", str(bad), "--results", str(tmp_path / "other")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "other" / "cells").exists()


def test_demo_and_real_results_are_kept_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored(tmp_path / "demo", "clip", "loveda", [GOOD], demo=True)
    main(["export", str(tmp_path / "a.zip"), "--results", str(tmp_path / "demo")])
    assert main(["import", str(tmp_path / "a.zip"), "--results", str(tmp_path / "other")]) == 2
    assert "real and demo results are kept apart" in capsys.readouterr().err
    assert main(["import", str(tmp_path / "a.zip"), "--results", str(tmp_path / "other"), "--demo"]) == 0


def test_nothing_to_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path / "a.zip"), "--results", str(tmp_path)]) == 2
    assert "nothing to export" in capsys.readouterr().err


def test_show_prints_what_is_known(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "clip", "loveda", "--results", str(results)]) == 0
    told = capsys.readouterr().out
    assert "clip on loveda" in told and "published (table 1)" in told and "12.4" in told
    assert main(["show", "clop", "loveda", "--results", str(results)]) == 2
    assert "nothing is stored of clop on loveda; did you mean clip loveda" in capsys.readouterr().err
