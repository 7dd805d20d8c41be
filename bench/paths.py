"""Where the files that ship with the harness are, and where a user's files are by default.

From a wheel, methods/, datasets/, results/published/ and benchmark.yaml are below `bench/_shipped`; in a
checkout and in an editable install they are beside `bench/`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeAlias

from bench.errors import BenchError

Paths: TypeAlias = str | Path | Sequence[str | Path]
"""One path or several."""

DEMO_RESULTS: Final = "results/demo-run"
"""Results folder of `run --demo`."""

EARLIER_HASHES: Final = "methods/earlier_hashes.yaml"
"""Shipped file of `bench.runtime.sources.shipped_codes`."""

_PACKAGE = Path(__file__).resolve().parent


def each_path(given: Paths) -> list[Path]:
    """List the paths, also where one was given without a list around it."""
    return [Path(path) for path in ([given] if isinstance(given, str | Path) else given)]


def shipped(name: str) -> Path:
    """Path of a shipped file or folder, e.g. ``shipped("datasets")``."""
    inside = _PACKAGE / "_shipped" / name
    return inside if inside.exists() else _PACKAGE.parent / name


def cache_dir() -> Path:
    """Folder for downloaded weights and text embeddings: $OVSS_BENCH_CACHE, else ~/.cache/ovss-bench."""
    root = os.environ.get("OVSS_BENCH_CACHE")
    return Path(root).expanduser() if root else Path.home() / ".cache" / "ovss-bench"


def weights_dir() -> Path:
    """Folder in which named checkpoints are looked for (see `upsamplers:` in benchmark.yaml)."""
    return cache_dir() / "weights"


def data_root(flag: str | Path | None = None) -> Path:
    """Folder that holds all datasets: --data-root, else $OVSS_BENCH_DATA, else ./data; BenchError for a file."""
    root = Path(flag or os.environ.get("OVSS_BENCH_DATA") or "data").expanduser()
    if root.exists() and not root.is_dir():
        raise BenchError(f"data root {root}: is no folder; give the folder of all datasets with --data-root")
    return root


def existing_root(given: str | Path) -> Path:
    """Return the folder that --data-root names; BenchError where there is none."""
    root = Path(given).expanduser()
    if not root.is_dir():
        raise BenchError(f"--data-root {given}: no such folder; check the path")
    return root


def demo_hint(results: str | Path) -> str:
    """Write the tail of a "nothing is stored" message where the demo's results are the ones that were meant."""
    meant = Path(results) == Path("results") and any(Path(DEMO_RESULTS, "cells").glob("*/*"))
    return f"; `--demo` reads {DEMO_RESULTS}" if meant else ""
