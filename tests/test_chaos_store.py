"""Stored results that were moved, that parse but cannot be true, and archives that were damaged on their way.

No number is shown under another name: each is the original, or its cell is named. `python -m pytest -m chaos`, with
`--chaos-seed N` for other damage of archives; the ordinary suite runs a tenth.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chaos import bench, damaged
from store_helpers import edit, opened, random_counts, settings
from table_helpers import FAIR, GOOD, put

from bench.store.record import RECORD
from bench.store.store import Store

pytestmark = pytest.mark.chaos
BATCHES, TIMES = 10, 10
CELLS = ("loveda/clip", "loveda/sclip", "udd5/clip")
Change = Callable[[Path], object]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Three cells, one of them with --limit 2 as well, and one in two shards."""
    folder = tmp_path / "results"
    put(folder, "clip", "loveda", [GOOD, FAIR])
    put(folder, "sclip", "loveda", [FAIR, FAIR])
    put(folder, "clip", "udd5", [GOOD, GOOD])
    put(folder, "clip", "loveda", [GOOD, GOOD], limit=2)
    for index in range(2):
        writer = opened(Store(folder, shard=(index, 2)), 2, settings=settings("gem"), indices=[index])
        writer.add(index, *random_counts(index))
        writer.finish()
    return folder


def copied(source: str, target: str) -> Change:
    return lambda folder: shutil.copytree(folder / source, folder / target)


def moved(source: str, target: str) -> Change:
    return lambda folder: (
        (folder / target).parent.mkdir(parents=True, exist_ok=True),
        (folder / source).rename(folder / target),
    )


def swapped(one: str, other: str) -> Change:
    def change(folder: Path) -> None:
        (folder / one).rename(folder / "x")
        (folder / other).rename(folder / one)
        (folder / "x").rename(folder / other)

    return change


PLACES: dict[str, Change] = {
    "a copy under another row": copied("cells/loveda/clip", "cells/loveda/clip-old"),
    "a copy under a row of the tables": copied("cells/loveda/clip", "cells/loveda/maskclip"),
    "a copy in another dataset": copied("cells/loveda/sclip", "cells/udd5/sclip"),
    "a copy in a dataset that nobody knows": copied("cells/loveda/sclip", "cells/nowhere/sclip"),
    "a row renamed": moved("cells/loveda/sclip", "cells/loveda/maskclip"),
    "a dataset renamed": moved("cells/udd5", "cells/vdd"),
    "rows swapped": swapped("cells/loveda/clip", "cells/loveda/sclip"),
    "datasets swapped": swapped("cells/loveda", "cells/udd5"),
    "records swapped": swapped(f"cells/loveda/clip/{RECORD}", f"cells/loveda/sclip/{RECORD}"),
    "counts swapped": swapped("cells/loveda/clip/counts.parquet", "cells/loveda/sclip/counts.parquet"),
    "counts of another dataset": swapped("cells/loveda/clip/counts.parquet", "cells/udd5/clip/counts.parquet"),
    "full results among limited ones": copied("cells/loveda/sclip", "limited-2/cells/loveda/sclip"),
    "limited results among full ones": copied("limited-2/cells/loveda/clip", "cells/vdd/clip"),
    "limits swapped": swapped("cells", "limited-2/cells"),
    "another limit": moved("limited-2", "limited-3"),
    "shards swapped": swapped("cells/loveda/gem/shard-0-of-2", "cells/loveda/gem/shard-1-of-2"),
    "a shard of another number": moved("cells/loveda/gem/shard-0-of-2", "cells/loveda/gem/shard-0-of-3"),
    "a shard as a cell": moved("cells/loveda/gem/shard-0-of-2", "cells/loveda/maskclip"),
    "a cell as a shard": copied("cells/loveda/clip", "cells/loveda/clip/shard-0-of-2"),
    "a cell within a cell": copied("cells/loveda/clip", "cells/loveda/sclip/clip"),
    "results within results": copied("cells", "cells/cells"),
}
RECORDS: dict[str, dict[str, Any]] = {  # keys of cell.json, sealed again
    "a metric that does not exist": {"metric": "evil"},
    "no classes": {"classes": []},
    "three hundred classes": {"classes": [str(number) for number in range(300)]},
    "another row": {"row": "sclip"},
    "another dataset": {"dataset": "udd5"},
    "another limit": {"limit": 2},
    "a shard": {"shard": "shard-0-of-2"},
    "images below none": {"images": {"total": -1, "planned": 0}},
    "fewer images than counts": {"images": {"total": 1, "planned": 1}},
    "a cost of no images": {"cost": {"images": 0, "seconds": 1.0}},
    "other inputs": {"inputs": {"weights": "x"}},
    "counts of nobody": {"counts_sha256": "0" * 64},
    "no counts": {"counts_sha256": None},
    "a newer format": {"format": 99},
    "settings of text": {"settings": "x"},
}


def shown(results: Path) -> dict[tuple[str, ...], str]:
    """Table, row, dataset -> the score that `tables` prints, but for cells that it calls partial."""
    assert bench("tables", "--results", results, "--draws", "10", "--format", "csv").code == 0
    found: dict[tuple[str, ...], str] = {}
    for file in sorted(results.rglob("leaderboard*.csv")):
        with file.open() as lines:
            for line in csv.DictReader(lines):
                chance = line["row"].startswith("(")
                if line["measured"] and line["status"] != "partial" and line["dataset"] != "average" and not chance:
                    found[file.name, line["row"], line["dataset"]] = line["measured"]
    return found


def named(results: Path) -> str:
    """What `export` says of cells that it leaves out, and `show` of each that there should be."""
    said = bench("export", results.parent / "x.zip", "--results", results).text
    for cell in (*CELLS, "loveda/gem"):
        said += bench("show", *reversed(cell.split("/")), "--results", results).text
    return said + bench("show", "clip", "loveda", "--results", results, "--limit", "2").text


@pytest.mark.parametrize("name", PLACES)
def test_no_number_is_shown_in_another_place(name: str, results: Path) -> None:
    before = shown(results)
    PLACES[name](results)
    after = shown(results)
    assert len(before) == 5 and after.items() <= before.items()
    said = named(results)
    gone = {(row, dataset) for _, row, dataset in before.keys() - after.keys()}
    assert all(f"{dataset}/{row}" in said or f"{row} on {dataset}" in said for row, dataset in gone), said


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_that_cannot_be_true_costs_its_own_cell_alone(name: str, results: Path) -> None:
    before = shown(results)
    file = results / "cells" / "loveda" / "clip" / RECORD
    edit(file, **RECORDS[name])
    full = next(key[0] for key in before if key[1] == "sclip")
    assert shown(results) == {key: value for key, value in before.items() if key != (full, "clip", "loveda")}
    assert str(file.parent) in named(results)


def fuzzed(archive: bytes, random: np.random.Generator) -> bytes:
    """The archive with damage in its bytes, in its manifest, or in a record or counts that its manifest vouches for."""
    layer = int(random.integers(3))
    if layer == 0:
        return damaged(archive, random)
    with zipfile.ZipFile(io.BytesIO(archive)) as old:
        files = {name: old.read(name) for name in old.namelist()}
    name = "manifest.json" if layer == 1 else sorted(files)[random.integers(len(files))]
    files[name] = damaged(files[name], random)
    if name != "manifest.json":
        manifest = json.loads(files["manifest.json"])
        manifest["files"][name] = hashlib.sha256(files[name]).hexdigest()
        files["manifest.json"] = json.dumps(manifest).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as new:
        for name, data in files.items():
            new.writestr(name, data)
    return packed.getvalue()


@pytest.mark.parametrize("batch", range(BATCHES))
def test_random_damage_of_an_archive_is_refused_in_one_line(
    batch: int, results: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    random = np.random.default_rng([request.config.getoption("--chaos-seed"), batch])
    shutil.rmtree(results / "cells" / "loveda" / "gem")
    archive = tmp_path / "good.zip"
    assert bench("export", archive, "--results", results).code == 0
    before = {key: value for key, value in shown(results).items() if "limited" not in key[0]}
    for number in range(TIMES):
        (tmp_path / "bad.zip").write_bytes(fuzzed(archive.read_bytes(), random))
        target = tmp_path / f"target{number}"
        said = bench("import", tmp_path / "bad.zip", "--results", target)
        if said.code == 0:
            assert shown(target) == before, said.text
        else:
            assert said.text.count("\n") == 1 and "bad.zip" in said.text and not list(target.rglob(RECORD)), said.text
