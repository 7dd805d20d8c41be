"""Tables of ``bench speed`` on the paper's datasets and on a second machine, from what --json writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError
from tabulate import tabulate

from bench.errors import BenchError, reading, validation_message


class Measured(BaseModel):
    """One case of a record; seconds per image in one of its processes."""

    height: int
    width: int
    queries: int
    rows: tuple[str, ...]
    encoder: float = Field(gt=0)
    all_rows: float = Field(gt=0)

    @property
    def case(self) -> tuple[int, int, int, tuple[str, ...]]:
        """Identity of the work: equal where two measurements may be compared."""
        return self.height, self.width, self.queries, self.rows


class SpeedRecord(BaseModel):
    """The part of a record that two machines are compared by."""

    model: str
    dtype: str
    batch: int
    machine: str
    processes: int
    cases: list[Measured]


def read(file: Path) -> SpeedRecord:
    """Read what --json wrote. BenchError where that is something else."""
    wanted = "give a file that `bench speed --json` wrote"
    with reading(f"--against {file}", wanted):
        content = file.read_bytes()
    try:
        return SpeedRecord.model_validate_json(content)
    except ValidationError as error:
        raise BenchError(f"--against {validation_message(file, error)}; {wanted}") from None


def show_paper(record: Mapping[str, Any]) -> None:
    """Print images per second and minutes of each of the paper's datasets whose number of images is known."""
    processes, paper = record["processes"], record["paper"]
    lines = [
        (one["dataset"], one["images"], processes * one["images"] / one["seconds"], one["seconds"] / 60 / processes)
        for one in paper
    ]
    print("\n" + tabulate(lines, headers=["dataset", "images", "images/s", "minutes"], floatfmt=("", "", ".2f", ".1f")))
    minutes = sum(line[-1] for line in lines)
    print(f"the paper's {len(paper)} datasets with {len(record['cases'][0]['rows'])} rows: about {minutes:.0f} minutes")


def show_both(record: Mapping[str, Any], other: SpeedRecord) -> None:
    """Print the cases that both records have, side by side."""
    here = SpeedRecord.model_validate(record)
    there = {one.case: one for one in other.cases}
    lines = []
    for mine in here.cases:
        if (theirs := there.get(mine.case)) is not None:
            rates = here.processes / mine.all_rows, other.processes / theirs.all_rows
            lines.append(
                [
                    *(f"{mine.height}x{mine.width}", mine.queries, len(mine.rows)),
                    *(mine.all_rows / mine.encoder, theirs.all_rows / theirs.encoder, *rates, rates[0] / rates[1]),
                ]
            )
    print(f"\nhere:  {_described(here)}\nthere: {_described(other)}\n")
    if not lines:
        print("no case was measured on both: give the same --sizes, --queries, --methods and --row-counts")
        return
    heads = ["image", "queries", "rows", "ratio here", "there", "images/s here", "there", "times as fast"]
    print(tabulate(lines, headers=heads, floatfmt=".2f"))


def _described(record: SpeedRecord) -> str:
    processes = f", {record.processes} processes" if record.processes > 1 else ""
    return f"{record.model}, {record.dtype}, batch {record.batch}, {record.machine}{processes}"
