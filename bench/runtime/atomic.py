"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.errors import writing

TEMPORARY = ".*.tmp"  # glob of what a killed process may leave behind
_LONG = 3600.0  # seconds after which no process is writing a temporary file any more


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file to write to, which then takes the place of `path`.

    It is in the same folder, is forced to the disk and renamed: one step, which survives a crash of the machine. Where
    writing it fails, `path` is as it was before. What a killed process left of it is removed after an hour.
    Raises OSError, for example when the disk is full.
    """
    for left in _left_behind(path.parent).pop(path.name, ()):
        left.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@functools.cache
def _left_behind(folder: Path) -> dict[str, list[Path]]:
    """Temporary files in a folder that nobody is writing, by the name of the file that they were for."""
    found: dict[str, list[Path]] = {}
    for file in folder.glob(TEMPORARY):
        name = re.fullmatch(r"\.(.+)\.\d+\.tmp", file.name)
        with contextlib.suppress(OSError):
            if name and time.time() - file.stat().st_mtime > _LONG:
                found.setdefault(name[1], []).append(file)
    return found


def write_atomic(path: Path, data: bytes) -> None:
    """Put `data` at `path`, replacing what is there; see `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_asked(path: Path, data: bytes, what: object = None, instead: str = "give another place") -> None:
    """Put a file where the user asked for it, with its folder. BenchError where that cannot be done.

    what: the file as errors call it, with its flag
    """
    write_together({path: data}, path if what is None else what, instead)


def write_together(files: Mapping[Path, bytes], what: object, instead: str) -> None:
    """Put files where the user asked for them, as `write_asked` does; where one cannot be written, none is replaced."""
    with writing(what, instead), contextlib.ExitStack() as written:
        for path, data in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = written.enter_context(replacing(path))
            temporary.write_bytes(data)
            sync(temporary)  # where the disk is full, this may be what says so


def sync(path: Path) -> None:
    """Force a file's content, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
