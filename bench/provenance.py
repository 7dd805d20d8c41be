"""What a number was made with: versions, commit, machine."""

from __future__ import annotations

import functools
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

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


@functools.cache
def provenance() -> dict[str, str]:
    """Versions of Python and of the packages that decide numbers, git commit of a checkout, host and system."""
    facts = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    return facts | {"commit": _commit(), "host": platform.node(), "system": f"{platform.system()} {platform.machine()}"}


def _commit() -> str:
    """Commit of the checkout that this file lies in, with `+changes` where files differ from it; else "none"."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return "none"

    def git(*command: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *command], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return "none"
