"""One writer a results folder."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from bench.errors import BenchError


@contextlib.contextmanager
def folder_lock(folder: Path, name: str = ".lock") -> Iterator[None]:
    """Holds `folder`/`name` for the calling process; readers need no lock.

    The operating system lets go of it when the process ends, however that happens, so a lock file that lies
    about says nothing. Raises BenchError when another process holds it (saying which) and where the file
    system has no locks.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / name).open("a+", encoding="utf-8")
    except OSError as error:
        raise BenchError(
            f"results folder {folder}: cannot be used ({error.strerror}); choose another with --results"
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise BenchError(
                f"results folder {folder}: in use by {holder}; "
                "wait for it to end, or choose another folder with --results"
            ) from None
        except OSError as error:
            raise BenchError(
                f"results folder {folder}: its file system has no file locks ({error.strerror}); "
                "choose a folder on a local disk with --results"
            ) from None
        file.truncate(0)
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {now}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)
