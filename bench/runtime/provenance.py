"""Versions, commit and machine that a number was made with, and when."""

from __future__ import annotations

import datetime
import functools
import platform
import re
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path

from bench.errors import BenchError
from bench.runtime.git import git

_PACKAGES = (
    "ovss-bench",
    "torch",
    "open_clip_torch",
    "numpy",
    "opencv-python-headless",
    "pillow",
    "pyarrow",
    "datasets",
)


MACHINE = ("cpu", "simd", "threads", "mkl", "onednn", "gpu", "batch")
"""Facts on which the rounding of a result depends, besides the version of torch; the batch is a run's."""


def utc_now() -> str:
    """Return the time by UTC, to the second, as records have it."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def provenance() -> dict[str, str]:
    """Versions, git commit of a checkout, host and system, and the facts of `machine`."""
    return _versions() | machine()


def installed() -> list[str]:
    """Return the packages that are installed, as "name==version", by name."""
    found = {(one.metadata["Name"] or "").lower(): one.version for one in distributions()}
    return [f"{name}=={version}" for name, version in sorted(found.items()) if name]


def machine() -> dict[str, str]:
    """Return the facts that MACHINE names of a machine; only the CPU where torch is not in use.

    These are the model of the CPU, its widest instructions that torch uses, torch's threads, math libraries and GPU.
    """
    facts = {"cpu": _cpu()}
    torch = sys.modules.get("torch")
    if torch is None:
        return facts
    build = torch.__config__.show()
    facts |= {"simd": torch.backends.cpu.get_cpu_capability(), "threads": str(torch.get_num_threads())}
    for name, pattern in (("mkl", r"Math Kernel Library Version (\S+)"), ("onednn", r"MKL-DNN v(\S+)")):
        if found := re.search(pattern, build):
            facts[name] = found[1]
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def differing(one: Mapping[str, object], other: Mapping[str, object]) -> list[str]:
    """ "threads 2 -> 4" for what of MACHINE, and of torch, differs between two records that both know it."""
    names = [name for name in ("torch", *MACHINE) if name in one and name in other and one[name] != other[name]]
    return [f"{name} {one[name]} -> {other[name]}" for name in names]


@functools.cache
def _cpu() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


@functools.cache
def _versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide numbers, git commit of a checkout, host and system."""
    facts = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    return facts | {"commit": _commit(), "host": platform.node(), "system": f"{platform.system()} {platform.machine()}"}


def _commit() -> str:
    """Commit of the checkout that holds this file, with `+changes` where files differ from it; else "none"."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return "none"

    try:
        changes = "+changes" if git(root, "status", "--porcelain", "-uno", seconds=10) else ""
        return git(root, "rev-parse", "HEAD", seconds=10) + changes
    except BenchError:
        return "none"
