"""Every key of a row with values that it cannot have, in each place where a row takes settings.

Refused before an image is read, in one line that names key and row; what `--dry-run` accepts can be run, stored and
read. `python -m pytest -m chaos`; the ordinary suite runs a tenth.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from chaos import bench
from project import Project

pytestmark = pytest.mark.chaos
PLUGIN = """
from bench.api import last_block, method

@method("own", {defaults})
def own(trunk, sharpness: float = 1.0):
    return last_block(trunk, lambda q, k, v: min(sharpness, 100) * v, residual=False, ffn=False)
"""
GOOD = {  # every key of a row, but for the method: a value that it may have
    "backbone": "clip-vit-b16",
    "upsampler": "simfeatup",
    "debias": "0.3",
    "debias_on": "features",
    "resize.long_side": "64",
    "resize.short_side": "64",
    "window": "48",
    "stride": "16",
    "scale": "40",
    "vocabulary": "plain",
    "threshold": "0.1",
    "background": "0",
    "refine": "pamr",
    "aggregate": "sum",
    "tau": "2",
    "templates": "photo",
    "protocol": "plain",
    "options.sharpness": "2",
    "models.vfm": "dino-vitb8",
}
NUMBERS = {key for key, value in GOOD.items() if value[0].isdigit()}
VALUES = {"NaN": ".nan", "infinity": ".inf", "-infinity": "-.inf", "zero": "0", "negative": "-7", "huge": "1e+308"}
PYTHON = {".nan": 'float("nan")', ".inf": 'float("inf")', "-.inf": '-float("inf")'}

Pairs = list[tuple[str, str]]


def plugin(folder: Path, defaults: str = "") -> list[str]:
    (folder / "own.py").write_text(PLUGIN.format(defaults=defaults))
    return ["--plugin", str(folder / "own.py")]


def overlay(folder: Path, pairs: Pairs) -> list[str]:
    settings = ", ".join("{}: {{{}: {}}}".format(*k.split("."), v) if "." in k else f"{k}: {v}" for k, v in pairs)
    file = folder / "overlay.yaml"
    file.write_text(
        f"protocol: {{resize: {{long_side: 64}}, window: 48, stride: 48}}\nrows: {{row: {{method: own, {settings}}}}}"
    )
    return [*plugin(folder), "--config", str(file), "--methods", "row"]


def short(key: str) -> str:
    return key.removeprefix("resize.").removeprefix("options.")


def brackets(folder: Path, pairs: Pairs) -> list[str]:
    return [*plugin(folder), "--methods", f"own[{','.join(f'{short(key)}={value}' for key, value in pairs)}]"]


def option(folder: Path, pairs: Pairs) -> list[str]:
    return [*plugin(folder), "--methods", "own", *(part for k, v in pairs for part in ("-o", f"{short(k)}={v}"))]


def decorator(folder: Path, pairs: Pairs) -> list[str]:
    given = []
    for key, value in pairs:
        value = PYTHON.get(value, value if value[0] in "-'0123456789" else repr(value))
        outer, _, inner = key.partition(".")
        given.append(f"{outer}={{{inner!r}: {value}}}" if inner else f"{outer}={value}")
    return [*plugin(folder, ", ".join(given)), "--methods", "own"]


PLACES: dict[str, tuple[Callable[[Path, Pairs], list[str]], tuple[str, ...]]] = {  # flags, and names of the row
    "overlay": (overlay, ("rows.row.", "row 'row'", "overlay.yaml: top level: row.", "line 2")),
    "brackets": (brackets, ("row 'own[",)),
    "option": (option, ("row 'own",)),
    "decorator": (decorator, ("method 'own'", "row 'own'", "line 4")),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("project"))


CASES = {
    f"{key}: {name}: {place}": (key, value, place)
    for key in GOOD
    for name, value in {
        "wrong type": "wide" if key in NUMBERS else "7",
        **(VALUES if key in NUMBERS else {"unknown": "1e+308"}),
        "empty": "''",
        "repeated": "",
    }.items()
    for place in PLACES
}


@pytest.mark.parametrize("name", CASES)
def test_a_value_is_refused_in_one_line_or_can_be_run(name: str, project: Project, tmp_path: Path) -> None:
    key, value, place = CASES[name]
    make, rows = PLACES[place]
    own = make(tmp_path, [(key, value)] if value else [(key, GOOD[key])] * 2)
    results = tmp_path / "results"
    flags = [*project.arguments("--datasets", "loveda", "--limit", "1"), *own, "--results", str(results)]
    ran = bench(*flags)
    if ran.code != 2:
        planned = bench(*flags, "--fresh", "--dry-run")
        tables = bench("tables", "--results", results, "--draws", "10", "--format", "csv")
        assert planned.code == ran.code == tables.code == 0, ran.text + tables.text
        with next(results.rglob("leaderboard*.csv")).open() as file:
            assert any(line["dataset"] == "loveda" and float(line["measured"]) >= 0 for line in csv.DictReader(file))
        return
    said = ran.text.replace(str(tmp_path), "").strip()
    assert said.count("\n") == 0 and not list(results.rglob("cell.json")), said
    outer, _, inner = key.rpartition(".")
    assert inner.removesuffix("s") in said or (outer in said and not value), said
    assert any(row in said for row in rows), said
