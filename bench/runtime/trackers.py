"""Progress and scores of a run for experiment trackers: a JSON-lines file, TensorBoard, Weights & Biases, Trackio."""

from __future__ import annotations

import importlib
import importlib.util
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from bench.errors import BenchError, writing

KINDS: Final = ("jsonl", "tensorboard", "wandb", "trackio")
DEFAULT_TARGET: Final = {"jsonl": "run.jsonl", "tensorboard": "runs", "wandb": "ovss-bench", "trackio": "ovss-bench"}
PAUSE: Final = 10.0  # seconds between reports of progress


class Tracker(Protocol):
    """Receiver of a run's metrics."""

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Named numbers after `step` images."""

    def text(self, name: str, content: str) -> None:
        """Take a table, as Markdown."""

    def close(self) -> None:
        """Nothing more follows."""


def open_tracker(flag: str, facts: Mapping[str, Any]) -> Tracker:
    """Open the tracker of `--log-to KIND[:TARGET]`. BenchError where its package is missing.

    facts: of the run

    TARGET: a file for jsonl, a folder for tensorboard, a project for wandb and trackio.
    """
    kind, _, target = flag.partition(":")
    check(flag)
    target = target or DEFAULT_TARGET[kind]
    if kind == "jsonl":
        return _Lines(Path(target), facts)
    if kind == "tensorboard":
        return _TensorBoard(target, facts)
    return _Project(importlib.import_module(kind), target, facts)


def check(flag: str) -> None:
    """BenchError for a kind that does not exist, or whose package is not installed."""
    kind = flag.partition(":")[0]
    if kind not in KINDS:
        raise BenchError(f"--log-to {flag}: no such tracker; give one of {', '.join(KINDS)}, as in jsonl:run.jsonl")
    if kind != "jsonl" and importlib.util.find_spec(kind) is None:
        raise BenchError(f"--log-to {kind}: needs the package {kind}; pip install {kind}")


class _Lines:
    def __init__(self, file: Path, facts: Mapping[str, Any]) -> None:
        with writing(f"--log-to jsonl:{file}"):
            file.parent.mkdir(parents=True, exist_ok=True)
            self._file = file.open("a", encoding="utf-8")
        self._write("run", dict(facts))

    def _write(self, kind: str, content: Any) -> None:
        line = {"time": round(time.time(), 3), "kind": kind, **content}
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._file.flush()

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        self._write("numbers", {"step": step, "values": dict(values)})

    def text(self, name: str, content: str) -> None:
        self._write("text", {"name": name, "content": content})

    def close(self) -> None:
        self._file.close()


class _TensorBoard:
    def __init__(self, folder: str, facts: Mapping[str, Any]) -> None:
        writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter
        self._writer = writer(folder)
        self._writer.add_text("run", json.dumps(dict(facts), indent=1, ensure_ascii=False))

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def text(self, name: str, content: str) -> None:
        self._writer.add_text(name, content)

    def close(self) -> None:
        self._writer.close()


class _Project:
    """Weights & Biases, or Trackio, which has the same calls."""

    def __init__(self, package: Any, project: str, facts: Mapping[str, Any]) -> None:
        self._package = package
        package.init(project=project, config=dict(facts))
        self._step = 0

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        self._step = step
        self._package.log(dict(values), step=step)

    def text(self, name: str, content: str) -> None:
        html = getattr(self._package, "Html", None)  # Trackio has Markdown instead
        shown = html(f"<pre>{content}</pre>") if html else self._package.Markdown(content)
        self._package.log({name: shown}, step=self._step)

    def close(self) -> None:
        self._package.finish()
