"""The command git, which is asked and never built in."""

from __future__ import annotations

import subprocess
from pathlib import Path

from bench.errors import BenchError, one_line


def git(folder: Path, *command: str, seconds: float = 60.0) -> str:
    """Run a command of git in a folder and return what it prints. BenchError with git's reason where it fails."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *command],
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=seconds,
            check=True,
        )
    except FileNotFoundError:
        raise BenchError(f"{folder}: git is not installed; install it") from None
    except subprocess.CalledProcessError as error:
        raise BenchError(f"{folder}: git {command[0]}: {one_line(error.stderr or error.stdout)}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"{folder}: git {command[0]}: {one_line(str(error))}") from None
    return done.stdout.strip()
