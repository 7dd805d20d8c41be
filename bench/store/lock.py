"""One writer for each results folder."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from bench.errors import BenchError
from bench.runtime.provenance import utc_now


@contextlib.contextmanager
def folder_lock(folder: Path, name: str = ".lock") -> Iterator[None]:
    """Hold `folder`/`name` for the calling process; readers need no lock.

    The operating system releases it when the process ends, however that happens, so a lock file that is left behind
    says nothing. Beside it, `name`.holder says which process holds it. Raises BenchError when another process does,
    and where the folder or its file system cannot be used.
    """
    holder = folder / f"{name}.holder"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / name, timeout=0)
        lock.acquire()
    except Timeout:
        raise BenchError(
            f"results folder {folder}: in use by {_read(holder) or 'another process'}; "
            "wait for it to end, or choose another folder with --results"
        ) from None
    except OSError as error:
        cannot = "its file system has no file locks" if error.errno == errno.ENOLCK else "cannot be used"
        raise BenchError(
            f"results folder {folder}: {cannot} ({error.strerror}); choose another, on a local disk, with --results"
        ) from None
    try:
        now = utc_now()
        with contextlib.suppress(OSError):  # a full disk is named by what has to be on it
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()} since {now}\n", encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):
            holder.unlink()
        lock.release()


def _read(holder: Path) -> str:
    try:
        return holder.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
