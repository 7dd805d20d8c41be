from __future__ import annotations

from decimal import Decimal

import pandas as pd
import pytest
from narrowed import present

from bench.config import load_config
from bench.errors import BenchError
from bench.paths import shipped
from bench.report.published import Gain, headline_gains, load_published, marks, one_digit, published_score

TABLES = {number: table for number, table in load_config().tables.items() if number.isdigit()}


@pytest.mark.parametrize("number", TABLES)
def test_the_columns_are_those_of_benchmark_yaml(number: str) -> None:
    frame = pd.read_csv(shipped("results/published") / present(TABLES[number].published), comment="#")
    average = ["average"] if TABLES[number].average else []
    assert list(frame.columns) == ["row", "label", "venue", *TABLES[number].columns, *average]
    assert set(frame["row"]) - set(TABLES[number].rows) == ({"tcl", "reco"} if number == "6" else set())
    own = {row for row in TABLES[number].rows if row.endswith("+naf")}  # in place of upsamplers that were not released
    assert set(TABLES[number].rows) - own <= set(frame["row"])


@pytest.mark.parametrize("number", [n for n in TABLES if TABLES[n].average])
def test_printed_averages_are_the_means_to_the_printed_digit(number: str) -> None:
    for row in load_published(TABLES[number].published).values():
        assert one_digit(sum(row.values.values(), Decimal(0)) / len(row.values)) == row.average


def test_tables_agree_where_they_repeat_a_number() -> None:
    seen: dict[tuple[str, str], Decimal] = {}
    for number in ("1", "2", "4", "5"):
        for row, line in load_published(TABLES[number].published).items():
            for dataset, value in line.values.items():
                assert seen.setdefault((row, dataset), value) == value


def test_the_gains_of_the_abstract() -> None:
    gains = headline_gains(published_score())
    assert [(gain.task, gain.gain and one_digit(gain.gain), gain.best_previous) for gain in gains] == [
        ("semantic segmentation", Decimal("5.8"), "clearclip"),
        ("building extraction", Decimal("8.2"), "clearclip"),
        ("road extraction", Decimal("4.0"), "maskclip"),
        ("flood detection", Decimal("15.3"), "clearclip"),
    ]


def test_a_gain_needs_every_number() -> None:
    full = published_score()
    gains = headline_gains(lambda row, dataset: None if (row, dataset) == ("gem", "inria") else full(row, dataset))
    assert gains[1] == Gain("building extraction", 3, 4, None, None, None)
    assert gains[1].gain is None
    assert gains[0].gain == headline_gains(full)[0].gain


def test_marks_share_what_prints_the_same() -> None:
    assert marks({"a": 1.0, "b": 3.0, "c": 2.0, "d": 3.0}) == {"b": "best", "d": "best", "c": "second"}
    assert marks({"a": 1.0}) == {"a": "best"}
    assert marks({}) == {}


# What the paper prints in bold (best) or underlined (second best); -> the cells where that is not so.
MARKED = {
    "1": {
        "sclip": "vaihingen",
        "gem": "vdd",
        "clearclip": "openearthmap loveda isaid potsdam uavid udd5 average",
        "segearth-ov": "openearthmap loveda isaid potsdam vaihingen uavid udd5 vdd average",
    },
    "2": {
        "clearclip": "whu_sat_ii",
        "segearth-ov": "whu_aerial whu_sat_ii inria xbd_pre chn6_cug deepglobe_road massachusetts_road "
        "spacenet_road wbs_si",
        "segearth-ov-896": "whu_aerial inria xbd_pre deepglobe_road massachusetts_road spacenet_road wbs_si",
    },
    "3": {
        "segearth-ov-clip-b32": "potsdam vaihingen uavid udd5 vdd",
        "segearth-ov-remoteclip-b32": "loveda isaid",
        "segearth-ov-georsclip-b32": "openearthmap isaid uavid udd5 vdd average",
        "segearth-ov-skyclip-b32": "openearthmap loveda potsdam vaihingen uavid average",
    },
}


@pytest.mark.parametrize(
    ("number", "marked_wrongly", "marked_nowhere"),
    [
        ("1", {("clearclip", "openearthmap")}, {("gem", "openearthmap")}),
        # 32.8 on CHN6-CUG may have lost its underline on the way from the PDF to text
        ("2", {("clearclip", "whu_sat_ii")}, {("sclip", "whu_sat_ii"), ("segearth-ov-896", "chn6_cug")}),
        ("3", set(), set()),
    ],
)
def test_where_the_papers_own_marks_are_wrong(
    number: str, marked_wrongly: set[tuple[str, str]], marked_nowhere: set[tuple[str, str]]
) -> None:
    rows = load_published(TABLES[number].published)
    columns: dict[str, dict[str, Decimal]] = {}
    for row, line in rows.items():
        average = {"average": line.average} if line.average is not None else {}
        for column, value in {**line.values, **average}.items():
            columns.setdefault(column, {})[row] = value
    right = {(row, column) for column, values in columns.items() for row in marks(values)}
    printed = {(row, column) for row, listed in MARKED[number].items() for column in listed.split()}
    assert printed - right == marked_wrongly
    assert right - printed == marked_nowhere


def test_a_missing_file_is_named() -> None:
    with pytest.raises(BenchError, match=r"table9\.csv: cannot be read .*; put the published numbers back"):
        load_published("table9.csv")
