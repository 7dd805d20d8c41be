"""Commands in processes of their own, forked from one that has imported bench, and ended at a file of their choice."""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 120  # that a command may take before it counts as a hang
WARM = [  # what commands, methods and the module of the tests themselves import, once for all processes
    *("children", "pytest", "bench.cli.run", "bench.cli.stored", "bench.cli.figure", "bench.evaluation.run"),
    *("bench.maps.predictor", "bench.report.frames", "bench.training.loop", "datasets", "matplotlib.pyplot"),
    *("scipy.ndimage", "scipy.sparse.csgraph", "scipy.spatial.distance", "scipy.stats"),
]
TOUCHES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")  # events of the interpreter's audit


class Ended(NamedTuple):
    """How a command ended: its exit code (a signal's below zero), what it printed, how many files it touched."""

    code: int
    out: str
    err: str
    touched: int


def run(arguments: Sequence[str | Path], root: Path, ending: signal.Signals | None = None, at: int = 0) -> Ended:
    """Run one command, with the environment of now.

    root: folder of its files; in a folder beside it are those of its output.
    ending, at: the signal that it gets before it touches its at-th file below the root.
    """
    said = root.with_name(f"{root.name}-said")
    said.mkdir(exist_ok=True)
    process = _server().Process(
        target=_command, args=([str(argument) for argument in arguments], root, said, ending, at, dict(os.environ))
    )
    process.start()
    process.join(SECONDS)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(arguments)
    out, err = ((said / name).read_text(errors="replace") for name in ("out", "err"))
    touched = said / "touched"
    return Ended(process.exitcode, out, err, int(touched.read_text()) if touched.exists() else 0)


@functools.cache
def _server() -> multiprocessing.context.ForkServerContext:
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(WARM)
    with patch.dict(os.environ, PYTHONPATH=os.pathsep.join(map(str, (ROOT, ROOT / "tests")))):
        forkserver.ensure_running()
    return server


def _command(
    arguments: list[str], root: Path, said: Path, ending: signal.Signals | None, at: int, environ: dict[str, str]
) -> None:
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(said / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ.clear()
    os.environ.update(environ)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    from bench.cli import main
    from bench.store import writer

    writer.FLUSH_SECONDS = 0.0  # a part for every image
    counter = itertools.count(1)
    sys.addaudithook(_hook(root, counter, ending, at))
    code = main(arguments)
    (said / "touched").write_text(str(next(counter)))
    sys.exit(code)


def _hook(
    root: Path, counter: itertools.count[int], ending: signal.Signals | None, at: int
) -> Callable[[str, tuple[object, ...]], None]:
    below = f"{root}{os.sep}"

    def touch(event: str, arguments: tuple[object, ...]) -> None:
        if event in TOUCHES and str(arguments[0]).startswith(below) and next(counter) == at and ending is not None:
            os.kill(os.getpid(), ending)

    return touch
