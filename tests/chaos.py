"""Ways to break a data tree, a results folder, its files or a process; each is one line of a table.

Commands run in this process, which is warm. A traceback or a hang fails the test.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import shutil
import signal
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from bench.cli import main

SECONDS = 120  # that a command may take before it counts as a hang
SECTOR = 512
Break = Callable[[Path, np.random.Generator], object]


class Said(NamedTuple):
    """Exit code of a command, and all that it printed."""

    code: int
    text: str


def bench(*arguments: str | Path) -> Said:
    """One command in this process. Raises what would be its traceback, and TimeoutError where it hangs."""

    def hang(*_: object) -> None:
        raise TimeoutError(arguments)

    printed = io.StringIO()
    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            code = main([str(argument) for argument in arguments])
    except SystemExit as end:
        code = int(str(end.code))
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert code in (0, 1, 2), printed.getvalue()
    return Said(code, printed.getvalue())


def one_bit(data: bytearray, random: np.random.Generator) -> None:
    data[random.integers(len(data))] ^= 1 << int(random.integers(8))


def one_byte(data: bytearray, random: np.random.Generator) -> None:
    data[random.integers(len(data))] = int(random.integers(256))


def a_zeroed_sector(data: bytearray, random: np.random.Generator) -> None:
    start = int(random.integers(len(data) // SECTOR + 1)) * SECTOR
    data[start : start + SECTOR] = bytes(len(data[start : start + SECTOR]))


def two_bytes_swapped(data: bytearray, random: np.random.Generator) -> None:
    one, other = random.integers(len(data), size=2)
    data[one], data[other] = data[other], data[one]


DAMAGES = (one_bit, one_byte, a_zeroed_sector, two_bytes_swapped)


def damaged(data: bytes, random: np.random.Generator) -> bytes:
    """The bytes with one small damage of a random kind."""
    changed = bytearray(data)
    DAMAGES[random.integers(len(DAMAGES))](changed, random)
    return bytes(changed)


class Breakage(NamedTuple):
    """target: image, label, folder (of a dataset), cell (its cell.json) or counts. break_it gets that path.

    affects: "image" (one image may be lost), "dataset" (it may not be evaluated), or what a run makes whole again.
    """

    target: str
    break_it: Break
    affects: str


def write(data: bytes) -> Break:
    return lambda path, _: path.write_bytes(data)


def cut(share: float) -> Break:
    return lambda path, _: path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def replaced(make: Callable[[Path], object]) -> Break:
    def break_it(path: Path, _: np.random.Generator) -> object:
        path.unlink()
        return make(path)

    return break_it


def spoilt(path: Path, random: np.random.Generator) -> object:
    data = bytearray(path.read_bytes())
    for place in random.integers(len(data) // 3, len(data), 40):
        data[place] = int(random.integers(256))
    return path.write_bytes(bytes(data))


def resaved(change: Callable[[np.ndarray], np.ndarray]) -> Break:
    return lambda path, _: Image.fromarray(change(np.array(Image.open(path)))).save(path)


def fields(**values: object) -> Break:
    return lambda path, _: path.write_text(json.dumps(json.loads(path.read_text()) | values))


def without(key: str) -> Break:
    return lambda path, _: path.write_text(
        json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != key})
    )


def value_200(label: np.ndarray) -> np.ndarray:
    label[:3, :3] = 200
    return label


HTML = b"<!DOCTYPE html><html><body>404</body></html>"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
BREAKAGES = {
    **{
        f"{kind}: {name}": Breakage(kind, break_it, "image")
        for kind in ("image", "label")
        for name, break_it in {
            "empty": write(b""),
            "a page": write(HTML),
            "a pointer of git-lfs": write(LFS),
            "zeros": lambda path, _: path.write_bytes(bytes(path.stat().st_size)),
            "noise": lambda path, random: path.write_bytes(random.bytes(path.stat().st_size)),
            "cut to a tenth": cut(0.1),
            "cut to a half": cut(0.5),
            "cut by a little": cut(0.95),
            "spoilt bytes": spoilt,
            "a broken link": replaced(lambda path: path.symlink_to("nowhere")),
            "a link to itself": replaced(lambda path: path.symlink_to(path.name)),
            "a pipe": replaced(os.mkfifo),
            "a link to an endless device": replaced(lambda path: path.symlink_to("/dev/zero")),
            "too small": resaved(lambda pixels: pixels[:20, :20].copy()),
            "turned": resaved(lambda pixels: np.ascontiguousarray(np.rot90(pixels[:50, :40]))),
            "one pixel": resaved(lambda pixels: pixels[:1, :1].copy()),
            "16 bits": lambda path, _: Image.fromarray(np.full((60, 80), 40000, np.uint16)).save(path),
            "a zip": lambda path, _: zipfile.ZipFile(path, "w").writestr("x", "y"),
            "a gzip of itself": lambda path, _: path.write_bytes(gzip.compress(path.read_bytes())),
            "a JSON": write(b"{}"),
        }.items()
    },
    "label: impossible value": Breakage("label", resaved(value_200), "image"),
    "label: colours": Breakage("label", resaved(lambda label: np.stack([label] * 3, axis=2)), "image"),
    "label: floats": Breakage(
        "label", lambda path, _: Image.fromarray(np.zeros((60, 80), np.float32)).save(path, "TIFF"), "image"
    ),
    "image: missing": Breakage("image", lambda path, _: path.unlink(), "dataset"),
    "label: missing": Breakage("label", lambda path, _: path.unlink(), "dataset"),
    "image: a folder": Breakage("image", replaced(Path.mkdir), "dataset"),
    "label: a folder": Breakage("label", replaced(Path.mkdir), "dataset"),
    "image: a name that is not UTF-8": Breakage(
        "image", lambda path, _: path.rename(path.with_name(os.fsdecode(b"\xff\xfe.png"))), "dataset"
    ),
    "folder: a folder called x.zip": Breakage("folder", lambda path, _: (path / "x.zip").mkdir(), "nothing"),
    "folder: a folder called x.tar.gz": Breakage("folder", lambda path, _: (path / "x.tar.gz").mkdir(), "nothing"),
    "folder: an empty zip": Breakage("folder", lambda path, _: (path / "x.zip").write_bytes(b""), "dataset"),
    "folder: a page called x.zip": Breakage("folder", lambda path, _: (path / "x.zip").write_bytes(HTML), "dataset"),
    "folder: a cut x.tar.gz": Breakage(
        "folder", lambda path, _: (path / "x.tar.gz").write_bytes(gzip.compress(bytes(5000))[:-9]), "dataset"
    ),
    "folder: a file in its place": Breakage(
        "folder", lambda path, _: (shutil.rmtree(path), path.write_text("x")), "dataset"
    ),
    "folder: empty": Breakage("folder", lambda path, _: (shutil.rmtree(path), path.mkdir()), "dataset"),
    "folder: a link to itself": Breakage(
        "folder", lambda path, _: (shutil.rmtree(path), path.symlink_to(path.name)), "dataset"
    ),
    "folder: a loop inside": Breakage("folder", lambda path, _: (path / "loop").symlink_to("loop"), "nothing"),
    "folder: an odd name inside": Breakage(
        "folder", lambda path, _: Path(os.fsdecode(os.fsencode(path) + b"/\xe9t\xe9")).mkdir(), "nothing"
    ),
    "folder: hidden files": Breakage("folder", lambda path, _: (path / "._x.zip").write_bytes(b"x"), "nothing"),
    **{
        f"cell: {name}": Breakage("cell", break_it, "cell")
        for name, break_it in {
            "empty": write(b""),
            "cut": cut(0.5),
            "noise": lambda path, random: path.write_bytes(random.bytes(500)),
            "a list": write(b"[]"),
            "null": write(b"null"),
            "another format": fields(format=99),
            "a wrong status": fields(status="fine"),
            "numbers for names": fields(row=3),
            "no settings": without("settings"),
            "no images": without("images"),
            "no classes": without("classes"),
            "no fingerprint": without("fingerprint"),
            "settings of text": fields(settings="x"),
            "images of text": fields(images="x"),
            "a folder": replaced(Path.mkdir),
            "a broken link": replaced(lambda path: path.symlink_to("nowhere")),
            "a link to itself": replaced(lambda path: path.symlink_to(path.name)),
        }.items()
    },
    **{
        f"counts: {name}": Breakage("counts", break_it, "cell")
        for name, break_it in {
            "empty": write(b""),
            "cut": cut(0.5),
            "noise": lambda path, random: path.write_bytes(random.bytes(3000)),
            "spoilt bytes": spoilt,
            "missing": lambda path, _: path.unlink(),
            "a folder": replaced(Path.mkdir),
            "a broken link": replaced(lambda path: path.symlink_to("nowhere")),
            "a link to itself": replaced(lambda path: path.symlink_to(path.name)),
            "text": write(b"index,id\n1,2\n"),
        }.items()
    },
    "cells: a stray file": Breakage("cells", lambda path, _: (path / "notes.txt").write_text("x"), "nothing"),
    "cells: a stray folder": Breakage("cells", lambda path, _: (path / "x" / "y" / "z").mkdir(parents=True), "nothing"),
    "cells: a part that was torn": Breakage(
        "cells", lambda path, _: (path / "loveda" / "clip" / "part-000000.parquet").write_bytes(b"PAR1"), "nothing"
    ),
    "cells: a temporary file": Breakage(
        "cells", lambda path, _: (path / "loveda" / "clip" / "cell.json.123.tmp").write_bytes(b"{"), "nothing"
    ),
}
