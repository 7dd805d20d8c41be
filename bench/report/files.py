"""Writing the tables of a results folder to files."""

from __future__ import annotations

from collections.abc import Collection as Names
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.config import Config
from bench.report.escape import csv_text
from bench.report.render import (
    COST_COLUMNS,
    CSV_COLUMNS,
    cost_lines,
    csv_lines,
    gains_table,
    html_table,
    latex,
    markdown,
)
from bench.report.scores import Collection
from bench.report.tables import Grid, boundary_table, build, gains, leaderboard
from bench.runtime.atomic import write_asked


def write_tables(
    collections: Sequence[Collection],
    config: Config,
    out: Path,
    formats: Names[str],
    only: Sequence[str] | None = None,
) -> list[Path]:
    """Write tables of benchmark.yaml, leaderboard, headline gains and costs of each collection; return the files.

    Names say what they hold: table1.md, table1-demo.csv, leaderboard-limited-20.md; the leaderboard is the last.
    A table without a measured number is left out where another has one, and what an earlier call wrote of it is
    removed. `only` names tables of benchmark.yaml, which are written whatever they hold, and leaves out the rest.
    Raises BenchError where `out` cannot be written.
    """
    import pandas as pd

    texts: dict[str, str] = {}
    empty: set[str] = set()
    for collection in collections:
        suffix = f"-{collection.name}" if collection.name else ""
        grids = [build(name, config.tables[name], config, collection) for name in only or config.tables]
        if not only:
            grids.append(leaderboard(config, collection))
            grids += filter(None, [boundary_table(collection)])
            if "md" in formats:
                texts[f"headline{suffix}.md"] = gains_table(gains(collection), collection.name)
            if "csv" in formats and (lines := cost_lines(collection)):
                texts[f"cost{suffix}.csv"] = csv_text(pd.DataFrame(lines, columns=list(COST_COLUMNS)))
        some_measured = any(grid.measured for grid in grids)
        for grid in grids:
            files = _rendered(grid, suffix, formats)
            texts |= files
            if some_measured and not only and not grid.measured:
                empty |= set(files)
    for name, text in texts.items():
        if name not in empty:
            write_asked(out / name, text.encode(), f"tables folder {out}", "give another --out")
        elif _is_ours(out / name, text):
            (out / name).unlink()
    return [
        out / name for name in sorted(texts.keys() - empty, key=lambda name: (name.startswith("leaderboard"), name))
    ]


def _rendered(grid: Grid, suffix: str, formats: Names[str]) -> dict[str, str]:
    """Render a table in each of the formats: file name -> text."""
    texts = {}
    if "md" in formats:
        texts[f"{grid.name}{suffix}.md"] = markdown(grid)
    if "csv" in formats:
        texts[f"{grid.name}{suffix}.csv"] = to_csv(grid)
    if "latex" in formats or "latex-intervals" in formats:
        texts[f"{grid.name}{suffix}.tex"] = latex(grid, "latex-intervals" in formats)
    if "html" in formats:
        texts[f"{grid.name}{suffix}.html"] = html_table(grid)
    return texts


def _is_ours(file: Path, text: str) -> bool:
    """Tell whether a file begins with the line that a table of this name begins with, so that a user's own stays."""
    first = text.encode().splitlines()[0]
    return file.is_file() and file.read_bytes().splitlines()[:1] == [first]


def to_csv(grid: Grid) -> str:
    """Return the grid as tidy CSV, columns in fixed order."""
    import pandas as pd

    lines: list[dict[str, Any]] = csv_lines(grid)
    return csv_text(pd.DataFrame(lines, columns=list(CSV_COLUMNS), dtype=object))
