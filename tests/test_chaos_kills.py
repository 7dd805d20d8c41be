"""Every command that writes, ended by a signal before a file that is drawn at random, then started again.

It leaves the bytes that an undisturbed one does, and no other file; Ctrl-C and SIGTERM are answered in one line.
Then each process of a run that several share.
`python -m pytest -m chaos`, with `--chaos-seed N` for other moments; the ordinary suite runs a tenth.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import children
import numpy as np
import pytest
import torch
from chaos import bench
from project import Project
from training_helpers import write_images

pytestmark = [pytest.mark.chaos, pytest.mark.slow]
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
TIMES = {"run": 3}  # kills by one signal, for a command that has many moments
ROWS = "clip,maskclip"
PASSING = ("written", "cost", "earlier", "made_with", "checksum")  # keys of cell.json that differ between runs
LOVEDA = ("--datasets", "loveda")


class Commands(Project):
    """A project with results, an archive of them, label maps, and images; `command` names one by one what writes."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.cards = self.own_card()
        self.results, self.archive, self.kept = root / "results", root / "archive.zip", root.with_name("kept")
        assert self.run(*LOVEDA, "--methods", ROWS, "--save-predictions", "3") == 0
        assert bench("export", self.archive, "--results", self.results).code == 0
        write_images(root / "images", 3)
        shutil.copytree(self.results / "cells/loveda/clip/predictions", root / "maps")
        shutil.copytree(root, self.kept)
        self._undisturbed: dict[str, tuple[int, dict[str, object]]] = {}

    def restore(self) -> None:
        shutil.rmtree(self.root)
        shutil.copytree(self.kept, self.root)

    def undisturbed(self, name: str) -> tuple[int, dict[str, object]]:
        """How many files a command touches, and what is stored after it."""
        if name not in self._undisturbed:
            self.restore()
            whole = children.run(self.command(name), self.root)
            assert whole.code == 0, whole.err
            self._undisturbed[name] = whole.touched, stored(self.root)
        return self._undisturbed[name]

    def command(self, name: str) -> list[str | Path]:
        model = ("--config", self.config, "--backbone", self.backbone, "--checkpoint", self.checkpoint)
        device, image = ("--device", "cpu"), self.root / "images" / "0.png"
        data, here = ("--data-root", self.data), ("--results", self.results)
        words, cards = ("--classes", "water; road"), ("--cards", self.cards)
        commands: dict[str, list[Any]] = {
            "run": self.arguments(*LOVEDA, "--methods", ROWS, "--save-predictions", "3", "--fresh", results="new"),
            "shard": self.arguments(*LOVEDA, "--methods", ROWS, "--shard", "0/2", results="new"),
            "tables": ["tables", *here, "--draws", "10"],
            "report": ["report", *here, "--draws", "10"],
            "compare": ["compare", "clip", "maskclip", *here, "--draws", "10", "--out", self.root / "compared.csv"],
            "export": ["export", self.root / "new.zip", *here],
            "import": ["import", self.archive, "--results", self.root / "new"],
            "score": ["score", self.root / "maps", "--dataset", "mine", "--row", "mine", *here, *data, *cards],
            "prepare": ["prepare", "mine", *data, *cards],
            "predict": ["predict", image, *words, "--method", "clip", *model, *device, "-o", self.root / "out.png"],
            "templates": ["templates", image, *words, *model, *device, "-o", self.root / "ranked.txt"],
            "figure": [
                *("figure", "loveda", "--methods", "clip", *data, *model, *device),
                *("-o", self.root / "figure.png"),
            ],
            "train": [
                *("train", "upsampler", "--images", self.root / "images", "--out", self.root / "new", *model, *device),
                *("--kind", "jbu_stack", "--crop", "48", "--batch", "1", "--jitters", "1", "--workers", "0"),
                *("--no-uncertainty", "--save-every", "1"),
            ],
        }
        return commands[name]


NAMES = (
    *("run", "shard", "tables", "report", "compare", "export", "import"),
    *("score", "prepare", "predict", "templates", "figure", "train"),
)


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    root = tmp_path_factory.mktemp("commands")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVSS_BENCH_CACHE", str(root / "project" / "cache"))
        yield Commands(root / "project")


@pytest.mark.parametrize("ending", SIGNALS, ids=[ending.name for ending in SIGNALS])
@pytest.mark.parametrize("name", NAMES)
def test_a_command_that_was_ended_can_be_started_again(
    name: str, ending: signal.Signals, commands: Commands, request: pytest.FixtureRequest
) -> None:
    random = np.random.default_rng([request.config.getoption("--chaos-seed"), crc32(name.encode()), ending])
    command, root = commands.command(name), commands.root
    touched, expected = commands.undisturbed(name)
    for _ in range(TIMES.get(name, 1)):
        commands.restore()
        at = int(random.integers(1, touched))
        ended = children.run(command, root, ending, at)
        if ending is signal.SIGKILL:
            assert ended.code == -ending
        elif ended.code != 0:  # it was not over before the signal was handled
            lines = [line for line in ended.err.splitlines() if "interrupted" in line]
            assert ended.code == 130 and len(lines) == 1 and "Traceback" not in ended.err, ended.err
        for file in root.rglob(".*.tmp"):
            assert ending is signal.SIGKILL, file
            os.utime(file, (0, 0))  # as if that had been long ago
        resumed = ["--resume"] if name == "train" and (root / "new" / "last.ckpt").exists() else []
        again = children.run([*command, *resumed], root)
        assert again.code == 0, again.err
        assert stored(root) == expected, (at, touched)


DEED = """
import os
import signal
from pathlib import Path

from bench.api import last_block, method

CALLS = [0]


@method("mine")
def mine(trunk):
    CALLS[0] += 1
    if CALLS[0] == 3 and os.environ.get("RANK") == "{rank}" and not Path(__file__).with_suffix(".done").exists():
        Path(__file__).with_suffix(".done").touch()
        os.kill({process}, signal.{ending})
    return last_block(trunk, lambda q, k, v: v, residual=False, ffn=False)
"""


@pytest.mark.chaos(one_in=0)  # each starts a dozen interpreters
@pytest.mark.parametrize(
    ("rank", "process", "ending", "code", "said"),
    [
        (0, "os.getpid()", "SIGKILL", 1, "bench: a process was ended by signal 9; "),
        (1, "os.getpid()", "SIGKILL", 1, "bench: a process was ended by signal 9; "),
        (1, "os.getppid()", "SIGTERM", 130, "bench: interrupted; "),
        (1, "os.getppid()", "SIGINT", 130, "bench: interrupted; "),
    ],
)
def test_processes_that_share_a_run_end_together(
    rank: int, process: str, ending: str, code: int, said: str, commands: Commands
) -> None:
    """One of them, or the command that started them, is ended; none is left, and the same command continues."""
    commands.restore()
    plugin = commands.root / "mine.py"
    plugin.write_text(DEED.format(rank=rank, process=process, ending=ending))
    flags = (*LOVEDA, "--methods", "maskclip,mine", "--plugin", str(plugin), "--processes", "2")
    command = [sys.executable, "-m", "bench", *commands.arguments(*flags, results="new")]
    deliverable = [
        sys.executable,
        "-c",
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])",
        *command,
    ]  # it is ignored in the background
    together: dict[str, Any] = {"cwd": children.ROOT, "capture_output": True, "text": True, "timeout": children.SECONDS}
    ended = subprocess.run(deliverable, **together)  # waits for all that hold its output
    lines = [line for line in ended.stderr.splitlines() if line.startswith("bench:")]
    assert ended.returncode == code and "Traceback" not in ended.stderr, ended.stderr
    assert len(lines) == 1 and lines[0].startswith(said), ended.stderr
    again = subprocess.run(command, **together)
    assert again.returncode == 0, again.stderr
    assert commands.counts("new")["loveda/maskclip"] == commands.counts()["loveda/maskclip"]
    assert not list((commands.root / "new").rglob(".*.tmp")) and not list((commands.root / "new").rglob("part-*"))


def stored(root: Path) -> dict[str, object]:
    """All files below a folder: what they hold, but for times and machines."""
    files = (file for file in sorted(root.rglob("*")) if file.is_file())
    # a run that was ended after its last image knows no time, so it has no table of costs
    return {str(file.relative_to(root)): content(file) for file in files if file.name != "cost.csv"}


def content(file: Path) -> object:
    if file.name == "cell.json":
        return {key: value for key, value in json.loads(file.read_text()).items() if key not in PASSING}
    if file.name == "last.ckpt":
        return repr(torch.load(file, weights_only=True))
    if file.name == "log.csv":
        return [line.split(",")[:2] for line in file.read_text().splitlines()]
    return file.read_bytes()
