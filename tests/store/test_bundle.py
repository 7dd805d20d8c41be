"""Results that travel: `bench export` and `bench import`."""

from __future__ import annotations

import hashlib
import io
import json
import random
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from store_helpers import certain, opened, stored, the_cell

from bench.cli import main
from bench.runtime.checksum import sealed
from bench.store.count_files import IMPORTED
from bench.store.result import numbers
from bench.store.store import Store

GOOD, FAIR = [[40, 0], [0, 40]], [[20, 20], [0, 40]]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    stored(tmp_path / "results", "clip", "loveda", [GOOD, FAIR])
    stored(tmp_path / "results", "sclip+ours[debias=0.1]", "vdd", [FAIR])
    return tmp_path / "results"


def cells(folder: Path) -> dict[str, bytes]:
    root = folder / "cells"
    files = [file for file in sorted(root.rglob("*")) if file.is_file() and file.name != IMPORTED]
    return {str(file.relative_to(root)): file.read_bytes() for file in files}


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
    assert (other / "tables" / "leaderboard.md").read_text().count("imported from all.zip") == 1
    stored(other, "clip", "loveda", [FAIR, FAIR], fresh=True)  # counted here again
    assert [cell.imported for cell in Store(other).cells()] == [None, "all.zip"]


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
        ({"manifest": b'{"format": Infinity, "files": {}}'}, "no archive of `bench export`"),
        ({"manifest": b'{"format": 1, "files": null}'}, "no archive of `bench export`"),
        ({"manifest": b'{"format": 1, "files": []}'}, "no archive of `bench export`"),
        ({"manifest": b"[" * 100_000}, "no archive of `bench export`"),
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


def packed(target: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """An archive whose manifest is right about the files."""
    manifest = {"format": 1, "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}}
    with zipfile.ZipFile(target, "w", compression) as archive:
        for name, data in {"manifest.json": json.dumps(manifest).encode(), **files}.items():
            archive.writestr(name, data)
    return target


def refused(archive: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """The one line with which an import is refused; nothing is written."""
    other = archive.parent / "other"
    before = cells(other)
    assert main(["import", str(archive), "--results", str(other), *flags]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and archive.name in line and cells(other) == before
    return line


def test_archives_are_bounded_before_they_are_read(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bomb = packed(tmp_path / "bomb.zip", {"loveda/clip/counts.parquet": bytes(20 << 20)})
    assert bomb.stat().st_size < 1 << 20 and "far more than it has room for" in refused(bomb, capsys)
    files = cells(results)
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, pa.schema([("keys", pa.int32())]), compression="zstd") as writer:
        for _ in range(3):
            writer.write(pa.table({"keys": pa.array([7], pa.int32()).take(pa.array([0] * 9_000_000))}))
    record = json.loads(files["loveda/clip/cell.json"])
    record["counts_sha256"] = hashlib.sha256(buffer.getvalue()).hexdigest()
    one = {
        "loveda/clip/cell.json": json.dumps(sealed(record)).encode(),
        "loveda/clip/counts.parquet": buffer.getvalue(),
    }
    assert "values in" in refused(packed(tmp_path / "long.zip", one), capsys)


def test_other_ways_of_packing_are_refused(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lzma = packed(tmp_path / "lzma.zip", cells(results), compression=zipfile.ZIP_LZMA)
    assert "packed in another way" in refused(lzma, capsys)
    encrypted = bytearray(packed(tmp_path / "encrypted.zip", cells(results)).read_bytes())
    for sign, flags in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        place = encrypted.find(sign)
        while place >= 0:
            encrypted[place + flags] |= 1
            place = encrypted.find(sign, place + 4)
    (tmp_path / "encrypted.zip").write_bytes(encrypted)
    assert "encrypted" in refused(tmp_path / "encrypted.zip", capsys)
    assert "holds no results" in refused(packed(tmp_path / "empty.zip", {}), capsys)


def test_a_damaged_archive_is_one_line(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["export", str(tmp_path / "a.zip"), "--results", str(results)])
    data, drawn = (tmp_path / "a.zip").read_bytes(), random.Random(0)
    for number in range(100):
        damaged = bytearray(data)
        damaged[drawn.randrange(len(data))] ^= 1 << drawn.randrange(8)
        (tmp_path / "b.zip").write_bytes(damaged)
        capsys.readouterr()
        code = main(["import", str(tmp_path / "b.zip"), "--results", str(tmp_path / f"other{number}")])
        error = capsys.readouterr().err
        assert (code, error.count("\n")) == (2, 1) or (
            code == 0 and cells(tmp_path / f"other{number}") == cells(results)
        )


@pytest.mark.parametrize(
    ("folder", "changes", "message"),
    [
        ("loveda/other", {}, "holds clip on loveda"),
        ("vdd/clip", {}, "holds clip on loveda"),
        ("loveda/clip", {"row": "sclip"}, "holds sclip on loveda"),
        ("loveda/clip", {"settings.dataset": "vdd"}, "with the settings of clip on vdd"),
        ("loveda/clip", {"settings.debias": 0.5}, "its fingerprint is not that of its settings"),
        ("loveda/clip", {"images.counted": 7}, "its counts are no result"),
        ("loveda/clip", {"limit": 3}, "of the first 3 images"),
        ("loveda/clip", {"shard": "shard-0-of-2"}, "its counts are not those"),
        ("loveda/.clip", {"row": ".clip", "settings.row": ".clip"}, "which is no part of a result"),
        ("loveda/%2e%2e", {"row": "..", "settings.row": ".."}, "cannot be stored under this name"),
    ],
)
def test_what_disagrees_with_itself_is_refused(
    folder: str,
    changes: dict[str, object],
    message: str,
    results: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = cells(results)
    record = json.loads(files["loveda/clip/cell.json"])
    for key, value in changes.items():
        owner, _, name = key.rpartition(".")
        (record[owner] if owner else record)[name] = value
    both = {"cell.json": json.dumps(sealed(record)).encode(), "counts.parquet": files["loveda/clip/counts.parquet"]}
    bad = packed(tmp_path / "bad.zip", {f"{folder}/{name}": data for name, data in both.items()})
    assert message in refused(bad, capsys)


def test_limited_results_are_not_taken_for_full_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored(tmp_path / "few", "clip", "loveda", [GOOD], limit=1)
    stored(tmp_path / "all", "clip", "loveda", [GOOD])
    main(["export", str(tmp_path / "few.zip"), "--results", str(tmp_path / "few"), "--limit", "1"])
    main(["export", str(tmp_path / "all.zip"), "--results", str(tmp_path / "all")])
    assert "--limit 1" in refused(tmp_path / "few.zip", capsys, "--replace")
    assert "import it without --limit" in refused(tmp_path / "all.zip", capsys, "--limit", "1")
    assert main(["import", str(tmp_path / "few.zip"), "--results", str(tmp_path / "o"), "--limit", "1"]) == 0


def test_shards_travel_as_one_cell(tmp_path: Path) -> None:
    """As if one process had written it; --replace leaves no shard behind that would be shown beside it."""
    folder, images = tmp_path / "results", [GOOD, FAIR, GOOD]
    for number, indices in ((0, [0]), (1, [1, 2])):
        writer = opened(Store(folder, shard=(number, 2)), 3, classes=("a", "b"), indices=indices)
        for index in indices:
            writer.add(index, *certain(images[index]))
        writer.finish()
    assert main(["export", str(tmp_path / "a.zip"), "--results", str(folder)]) == 0
    for other in (tmp_path / "other", folder):
        assert main(["import", str(tmp_path / "a.zip"), "--results", str(other), "--replace"]) == 0
        cell = the_cell(Store(other))
        assert (cell.status, cell.counted, len(cell.pieces)) == ("ok", 3, 1)
        assert cell.record.shard is None and cell.record.metrics == numbers(cell.images, cell.settings, 2, "miou")
        assert not list(other.rglob("shard-*"))


def test_shards_and_parts_are_not_joined_by_an_import(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored(tmp_path / "whole", "sclip", "loveda", [GOOD])
    main(["export", str(tmp_path / "a.zip"), "--results", str(tmp_path / "whole")])
    writer = opened(Store(tmp_path / "other", shard=(0, 2)), 2, classes=("a", "b"), indices=[0])
    writer.add(0, *certain(FAIR))
    writer.finish()
    assert main(["import", str(tmp_path / "a.zip"), "--results", str(tmp_path / "other")]) == 2
    assert "is there with other content" in capsys.readouterr().err


def test_demo_and_real_results_are_kept_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored(tmp_path / "demo", "clip", "loveda", [GOOD], demo=True)
    main(["export", str(tmp_path / "a.zip"), "--results", str(tmp_path / "demo")])
    assert main(["import", str(tmp_path / "a.zip"), "--results", str(tmp_path / "other")]) == 2
    assert "real and demo results are kept apart: give --demo" in capsys.readouterr().err
    assert main(["import", str(tmp_path / "a.zip"), "--results", str(tmp_path / "other"), "--demo"]) == 0


def test_nothing_to_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path / "a.zip"), "--results", str(tmp_path)]) == 2
    assert "nothing to export" in capsys.readouterr().err
    assert main(["import", str(tmp_path / "a.zip")]) == 2
    assert "a.zip: no such file" in capsys.readouterr().err


def test_what_is_not_stored_is_not_exported(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flags, message in {
        ("--methods", "clop"): "--methods: nothing is stored of row 'clop'",
        ("--datasets", "lovdea"): "--datasets: nothing is stored of dataset 'lovdea'",
    }.items():
        assert main(["export", str(tmp_path / "a.zip"), "--results", str(results), *flags]) == 2
        told = capsys.readouterr().err
        assert message in told and "; did you mean " in told
    assert main(["compare", "clip", "--results", str(results), "--datasets", "lovdea"]) == 2
    assert "--datasets: nothing is stored on 'lovdea'" in capsys.readouterr().err


def test_show_prints_what_is_known(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "clip", "loveda", "--results", str(results)]) == 0
    told = capsys.readouterr().out
    assert "clip on loveda" in told and "published (table 1)" in told and "12.4" in told
    assert main(["show", "clop", "loveda", "--results", str(results)]) == 2
    assert "nothing is stored of clop on loveda; did you mean clip loveda" in capsys.readouterr().err
