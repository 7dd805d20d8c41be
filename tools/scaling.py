"""Measure how a run gains from more processes, where a GPU would do the work: its stand-in sleeps.

    OMP_NUM_THREADS=1 python -m tools.scaling --processes 1,2,4,8 --images 40 --seconds 0.4

Ten rows run on small images by the command of a run; the first one's method sleeps, up to a fifth more or less from
image to image. Each process has `--images` of them, so with N processes a perfect run takes as long as with one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import yaml
from tabulate import tabulate

from bench.store.store import Store

_ROWS = 10
_PLUGIN = """
import time
from bench.api import method

def rows(number):
    @method(f"row{number}")
    def row(trunk):
        if not number:
            time.sleep((0.8 + 0.4 * float(trunk.images.double().sum()) % 1) * SECONDS)
        return trunk.project(trunk.input(-1))

for number in range(ROWS):
    rows(number)
"""


def seconds(folder: Path, processes: int) -> float:
    """Seconds that the images of the project in a folder take, all rows together."""
    rows = [f"row{number}" for number in range(_ROWS)]
    command = [sys.executable, "-m", "bench", "run", "--methods", ",".join(rows), "--datasets", "squares"]
    command += ["--cards", str(folder), "--plugin", str(folder / "rows.py"), "--config", str(folder / "small.yaml")]
    command += ["--data-root", str(folder), "--results", str(folder / "results"), "--fresh", "--backbone", "demo"]
    command += ["--device", "cpu", "--workers", "0", *(["--processes", str(processes)] if processes > 1 else [])]
    subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).resolve().parents[1])
    cell = Store(folder / "results").cell(rows[0], "squares")
    assert cell is not None and cell.record.cost is not None
    return _ROWS * cell.record.cost.seconds


def write(folder: Path, images: int, pause: float) -> None:
    """Write a project of so many images into a folder. pause: seconds that an image takes on average."""
    random = np.random.default_rng(0)
    (folder / "squares").mkdir()
    for number in range(images):
        cv2.imwrite(str(folder / "squares" / f"{number:05d}.jpg"), random.integers(0, 256, (48, 48, 3), dtype=np.uint8))
        cv2.imwrite(str(folder / "squares" / f"{number:05d}.png"), np.eye(48, dtype=np.uint8))
    card = {"name": "squares", "classes": ["one", "other"], "vocabularies": {"cvpr2025": [["one"], ["other"]]}}
    card["layouts"] = {"original": {"image": "{n}.jpg", "label": "{n}.png"}}
    (folder / "squares.yaml").write_text(yaml.safe_dump(card))
    (folder / "small.yaml").write_text("protocol: {resize: {long_side: 48}, window: 48, stride: 48}")
    (folder / "rows.py").write_text(_PLUGIN.replace("SECONDS", str(pause)).replace("ROWS", str(_ROWS)))


def main() -> None:
    """Print the rate and what it is of a linear gain, for each number of processes."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--processes", default="1,2,4,8", metavar="N,…")
    parser.add_argument("--images", type=int, default=40, metavar="N", help="of each process (40)")
    parser.add_argument("--seconds", type=float, default=0.4, metavar="S", help="that the stand-in sleeps (0.4)")
    asked = parser.parse_args()
    lines: list[tuple[int, float, float]] = []
    for processes in map(int, asked.processes.split(",")):
        with tempfile.TemporaryDirectory() as name:
            write(Path(name), processes * asked.images, asked.seconds)
            rate = processes * asked.images / seconds(Path(name), processes)
        per_process = rate / processes
        lines.append((processes, rate, per_process / (lines[0][1] / lines[0][0]) if lines else 1.0))
    print(tabulate(lines, headers=["processes", "images/s", "of linear"], floatfmt=".2f"))


if __name__ == "__main__":
    main()
