"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

TEMPORARY = ".*.tmp"  # glob of what a killed process may leave behind


def write_atomic(path: Path, data: bytes) -> None:
    """Puts `data` at `path`, replacing what is there, in one step that survives a crash of the machine.

    The bytes go to a temporary file in the same folder, are forced to the disk and renamed. Raises OSError,
    for example when the disk is full; then `path` is as it was before.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Forces the new name itself to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
