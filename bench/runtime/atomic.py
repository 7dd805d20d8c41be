"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from bench.errors import writing

TEMPORARY = ".*.tmp"  # glob of what a killed process may leave behind


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file to write to, which then takes the place of `path`.

    It is in the same folder, is forced to the disk and renamed: one step, which survives a crash of the machine. Where
    writing it fails, `path` is as it was before. Raises OSError, for example when the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Put `data` at `path`, replacing what is there; see `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_asked(path: Path, data: bytes, what: object = None, instead: str = "give another place") -> None:
    """Put a file where the user asked for it, with its folder. BenchError where that cannot be done.

    what: the file as errors call it, with its flag
    """
    with writing(path if what is None else what, instead):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)


def sync(path: Path) -> None:
    """Force a file's content, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
