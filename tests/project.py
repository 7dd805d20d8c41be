"""A whole benchmark in a folder, small enough to run in a second or two: data, weights, configuration."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
from data_helpers import scene
from reference import write_tiny

from bench.cli import main
from bench.data import cards
from bench.data.cards import load_card
from bench.demo.writers import write_dataset
from bench.models.upsamplers import JBUOne
from bench.paths import shipped
from bench.runtime.yaml_files import read_yaml

SMALL = "protocol: {resize: {long_side: 112}, window: 112, stride: 112}"
"""A configuration with one window of 7 × 7 patches an image, for the demo where its numbers do not matter."""

BOTH = ("--datasets", "loveda,whu_aerial")
SIZES = {"loveda": [(60, 80), (64, 64), (50, 70)], "whu_aerial": [(48, 64), (64, 40)]}


@contextmanager
def cards_of_any_count(root: Path) -> Iterator[None]:
    """Ship cards, written below a folder, that expect no number of images."""
    folder = root / "datasets"
    shutil.copytree(shipped("datasets"), folder)
    for card in folder.glob("*.yaml"):
        card.write_text(re.sub(r"^expected_count:.*\n", "", card.read_text(), flags=re.MULTILINE))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cards, "shipped", lambda part: folder if part == "datasets" else shipped(part))
        yield


class Project:
    """Everything that `bench run` needs below one folder, at a geometry of 64 / 48 / 16 pixels."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = root / "data"
        for name, sizes in SIZES.items():
            card = load_card(name)
            write_dataset(card, self.data, [scene(card, *size, seed) for seed, size in enumerate(sizes)])
        self.backbone, self.checkpoint = write_tiny(root)
        torch.manual_seed(7)
        upsampler = JBUOne(24)
        torch.save({"state_dict": {f"upsampler.{k}": v for k, v in upsampler.state_dict().items()}}, root / "up.ckpt")
        self.config = root / "benchmark.yaml"
        self.configure()

    def configure(self, **rows: dict) -> None:
        """Writes the configuration: the shipped one with a small geometry, and these rows changed."""
        content = read_yaml(shipped("benchmark.yaml"), "another")
        content["protocol"] |= {"resize": {"long_side": 64}, "window": 48, "stride": 16}
        for name, row in rows.items():
            content["rows"][name.replace("_", "-")] = row
        self.config.write_text(json.dumps(content))  # YAML too, and written in no time

    def own_card(self) -> Path:
        """Writes a folder with the card of a dataset `mine`, which is LoveDA's but for the number of images."""
        content = read_yaml(shipped("datasets/loveda.yaml"), "another") | {"name": "mine"}
        del content["expected_count"]
        folder = self.root / "cards"
        folder.mkdir(exist_ok=True)
        (folder / "mine.yaml").write_text(json.dumps(content))
        return folder

    def arguments(self, *flags: str, results: str = "results") -> list[str]:
        return [
            *(
                "run",
                "--config",
                str(self.config),
                "--data-root",
                str(self.data),
                "--results",
                str(self.root / results),
            ),
            *("--backbone", str(self.backbone), "--checkpoint", str(self.checkpoint), "--device", "cpu"),
            *("--upsampler-checkpoint", str(self.root / "up.ckpt"), "--workers", "0", "--allow-incomplete", *flags),
        ]

    def run(self, *flags: str, results: str = "results") -> int:
        return main(self.arguments(*flags, results=results))

    def process(self, *flags: str, results: str = "results", launcher: Sequence[str] = ()) -> CompletedProcess:
        """Runs it in a process with one thread. launcher: module and flags that start `-m bench …`."""
        command = [sys.executable, *launcher, "-m", "bench", *self.arguments(*flags, results=results)]
        root, environment = Path(__file__).resolve().parents[1], {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300)

    def counts(self, results: str = "results") -> dict[str, bytes]:
        """Bytes of every counts file, by cell."""
        cells = self.root / results / "cells"
        return {
            str(file.parent.relative_to(cells)): file.read_bytes() for file in sorted(cells.rglob("counts.parquet"))
        }
