"""What papers print: the numbers of results/published/*.csv, what an abstract concludes from them, and their places."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from bench.config import Config
from bench.errors import reading
from bench.paths import shipped
from bench.runtime.yaml_files import read_yaml

Mark: TypeAlias = Literal["best", "second"]

PROPOSED = "segearth-ov"
PREVIOUS = ("clip", "maskclip", "sclip", "gem", "clearclip")
TASKS: dict[str, tuple[str, ...]] = {
    "semantic segmentation": (
        "openearthmap",
        "loveda",
        "isaid",
        "potsdam",
        "vaihingen",
        "uavid",
        "udd5",
        "vdd",
    ),
    "building extraction": ("whu_aerial", "whu_sat_ii", "inria", "xbd_pre"),
    "road extraction": ("chn6_cug", "deepglobe_road", "massachusetts_road", "spacenet_road"),
    "flood detection": ("wbs_si",),
}


_METHOD_FACTS = Path(__file__).resolve().parents[1] / "method_facts.yaml"
TOLERANCE = 0.5
"""Points that a faithful run may be away from a published number: its rounding (0.05), half precision, other versions
of libraries and decoders. Both sides saw the same images, so no interval over scenes belongs here."""


def agrees(difference: float) -> bool:
    """Whether measured - published, in points, is within TOLERANCE."""
    return abs(difference) <= TOLERANCE


def method_facts() -> dict[str, dict[str, Any]]:
    """Read what is known of each shipped method: family, passes, agrees, and where its paper and code are."""
    found: dict[str, dict[str, Any]] = read_yaml(_METHOD_FACTS, "the file of the package")
    return found


class PublishedRow(NamedTuple):
    """One line of a published table: per cent as printed; a dataset without a number is absent."""

    label: str
    venue: str
    values: dict[str, Decimal]
    average: Decimal | None


def load_published(name: str | None) -> dict[str, PublishedRow]:
    """Row -> line of a file of results/published/, in the paper's order; no name, no rows. BenchError if unreadable."""
    if name is None:
        return {}
    rows = {}
    for line in read_published(name):
        row, label, venue, average = (line.pop(key, "") for key in ("row", "label", "venue", "average"))
        values = {dataset: Decimal(value) for dataset, value in line.items() if value}
        rows[row] = PublishedRow(label, venue, values, Decimal(average) if average else None)
    return rows


def published_number(config: Config, row: str, dataset: str) -> Decimal | None:
    """Return the number that a table of the paper prints for a row on a dataset; the first table that has it."""
    for table in config.tables.values():
        line = load_published(table.published).get(row)
        if line is not None and dataset in line.values:
            return line.values[dataset]
    return None


def read_published(name: str) -> list[dict[str, str]]:
    """Read the lines of a file of results/published/, without its comments."""
    file = shipped("results/published") / name
    with reading(file, "put the published numbers back"):
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines))


def marks(values: Mapping[str, Any]) -> dict[str, Mark]:
    """Mark the best and the second best rows of a column; rows that print the same number share their mark."""
    distinct = sorted(set(values.values()), reverse=True)
    of_value: dict[Any, Mark] = dict(zip(distinct, ("best", "second"), strict=False))
    return {row: of_value[value] for row, value in values.items() if value in of_value}


def one_digit(points: Decimal) -> Decimal:
    """Round to 0.1, halves away from zero, as on paper: the road gain of the abstract is 3.95 printed as 4.0."""
    return points.quantize(Decimal("0.1"), ROUND_HALF_UP)


class Gain(NamedTuple):
    """Mean of the proposed method and of the best previous one over the datasets of a task; per cent.

    counted: datasets for which every row has a number. None unless that is all of them.
    """

    task: str
    counted: int
    datasets: int
    proposed: Decimal | None
    previous: Decimal | None
    best_previous: str | None

    @property
    def gain(self) -> Decimal | None:
        if self.proposed is None or self.previous is None:
            return None
        return self.proposed - self.previous


def headline_gains(score: Callable[[str, str], Decimal | None]) -> list[Gain]:
    """Return the four improvements of the abstract from `score(row, dataset)`, per cent or None."""
    return [_gain(task, datasets, score) for task, datasets in TASKS.items()]


def _gain(task: str, datasets: tuple[str, ...], score: Callable[[str, str], Decimal | None]) -> Gain:
    numbers = {row: [score(row, dataset) for dataset in datasets] for row in (*PREVIOUS, PROPOSED)}
    counted = sum(None not in column for column in zip(*numbers.values(), strict=True))
    if counted < len(datasets):
        return Gain(task, counted, len(datasets), None, None, None)
    means = {row: sum(filter(None, values), Decimal(0)) / len(datasets) for row, values in numbers.items()}
    best = max(PREVIOUS, key=means.__getitem__)
    return Gain(task, counted, len(datasets), means[PROPOSED], means[best], best)


def published_score() -> Callable[[str, str], Decimal | None]:
    """Return the function `score(row, dataset)` for Tables 1 and 2 of the paper."""
    tables = [load_published("table1.csv"), load_published("table2.csv")]

    def score(row: str, dataset: str) -> Decimal | None:
        return next((table[row].values[dataset] for table in tables if dataset in table[row].values), None)

    return score
