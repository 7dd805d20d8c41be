"""Room on disks and in memory, and sizes as text."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from bench.errors import BenchError


def size_text(size: int | None) -> str:
    """Write a number of bytes for a reader.

    >>> size_text(2_425_958_254), size_text(5_690_000), size_text(None)
    ('2.4 GB', '5.7 MB', '?')
    """
    if size is None:
        return "?"
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def free_bytes(folder: Path) -> int:
    """Bytes that are free on the disk of a folder, which need not exist yet."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free


def check_room(folder: Path, needed: int) -> None:
    """Refuse, with a BenchError, what takes more bytes than the disk of a folder has left."""
    free = free_bytes(folder)
    if free < needed:
        room = f"about {size_text(needed)} are needed and {size_text(free)} are free"
        raise BenchError(f"{folder}: {room}; make room or give another folder")


def memory_bytes() -> int | None:
    """Bytes of this machine's memory; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def time_text(seconds: float | None) -> str:
    """Write a time for a reader.

    >>> time_text(40), time_text(600), time_text(18_000), time_text(None)
    ('40 seconds', '10 minutes', '5.0 hours', 'unknown')
    """
    if seconds is None:
        return "unknown"
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
