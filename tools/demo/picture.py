"""Draw docs/demo.png: label maps, a table and the page, of a run of the demo with label maps.

python -m bench run --demo --methods all --datasets all --save-predictions
python -m tools.demo.picture results/demo-run docs/report.png docs/demo.png
"""

from __future__ import annotations

import math
import sys
import tempfile
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from bench.config import Table, load_config
from bench.figures import figure
from bench.report.scores import collect
from bench.report.tables import Grid, build

WIDTH, GAP = 1600, 16
ROWS = ("clip", "sclip", "maskclip", "clearclip", "segearth-ov", "maskclip+ours")
DATASETS = ("loveda", "isaid", "whu_aerial", "chn6_cug", "wbs_si")


def draw_table(grid: Grid, out: Path, width: int) -> None:
    """Write a table as a picture: best bold, second best italic."""
    page = Figure(figsize=(width / 200, 0.2 * (len(grid.lines) + 2)), dpi=200)
    axis = page.add_axes((0, 0, 1, 1))
    axis.set_axis_off()
    places = [0.01, *(0.34 + 0.65 * (k + 1) / len(grid.columns) for k in range(len(grid.columns)))]
    heads = ["Method", *(grid.head(column) for column in grid.columns)]
    lines: list[list[tuple[str, str | None]]] = [[(head, None) for head in heads]]
    for line in grid.lines:
        cells = [line.entries[column] for column in grid.columns]
        shown = [("–" if math.isnan(entry.value) else f"{entry.shown:.1f}", entry.mark) for entry in cells]
        lines.append([(line.label, None), *shown])
    for number, texts in enumerate(lines):
        y = 1 - (number + 0.8) / (len(lines) + 0.6)
        for x, (text, mark) in zip(places, texts, strict=True):
            weight, style = "bold" if mark == "best" else "normal", "italic" if mark == "second" else "normal"
            side = "left" if x < 0.1 else "right"
            axis.text(x, y, text, ha=side, va="center", fontsize=5.5, weight=weight, style=style)
        if number in (0, len(lines) - 3):
            axis.axhline(y - 0.55 / (len(lines) + 0.6), color="black", linewidth=0.6)
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1)
    page.savefig(out)


def main(results: str, page: str, out: str) -> None:
    """Draw the three parts and put them together."""
    config = load_config()
    table = Table(title="demo", rows=ROWS, columns=DATASETS, average=True)
    (collection,) = collect(Path(results), config)
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder, "maps.png"), Path(folder, "table.png")
        figure("loveda", "clip,sclip,segearth-ov", files[0], ["2"], results=results, demo=True, device="cpu")
        draw_table(build("demo", table, config, collection, own=True), files[1], WIDTH // 2)
        maps, drawn, shown = (Image.open(file).convert("RGB") for file in (*files, page))
        maps.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
        half = (WIDTH - GAP) // 2
        parts = [
            part.resize((half, round(part.height * half / part.width)), Image.Resampling.LANCZOS)
            for part in (drawn, shown)
        ]
    height = max(part.height for part in parts)
    whole = Image.new("RGB", (WIDTH, maps.height + GAP + height), "white")
    whole.paste(maps, (0, 0))
    for place, part in enumerate(parts):
        whole.paste(part, (place * (half + GAP), maps.height + GAP))
    whole.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(out, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
