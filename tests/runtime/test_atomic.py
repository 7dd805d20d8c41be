"""Files that are there whole or not at all, and what is said where they cannot be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.errors import BenchError, reading
from bench.runtime.atomic import TEMPORARY, replacing, write_asked, write_atomic


def test_a_file_that_is_not_finished_replaces_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_atomic(file, b"old")
    with pytest.raises(RuntimeError), replacing(file) as temporary:
        temporary.write_bytes(b"half of the n")
        assert temporary.match(TEMPORARY)  # what a killed process leaves is found
        raise RuntimeError
    assert file.read_bytes() == b"old" and list(tmp_path.iterdir()) == [file]
    write_atomic(file, b"new")
    assert file.read_bytes() == b"new" and list(tmp_path.iterdir()) == [file]


def test_what_a_killed_process_left_is_removed_when_its_file_is_written(tmp_path: Path) -> None:
    new, old, other, foreign = (tmp_path / name for name in (".b.7.tmp", ".a.7.tmp", ".c.7.tmp", ".a.own.tmp"))
    for file in (new, old, other, foreign):
        file.write_bytes(b"half of the n")
    for file in (old, other, foreign):
        os.utime(file, (0, 0))
    for name in "ab":
        write_atomic(tmp_path / name, b"new")
    assert {file.name for file in tmp_path.iterdir()} == {"a", "b", new.name, other.name, foreign.name}


def test_what_goes_wrong_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    write_asked(tmp_path / "new" / "a.txt", b"text")
    with pytest.raises(BenchError, match=r"^--out x: cannot be written \(.*\); give another place$"):
        write_asked(tmp_path / "new" / "a.txt" / "b", b"", "--out x")
    gone = tmp_path / "absent"
    with pytest.raises(BenchError, match=r"absent: cannot be read \(.*\); give one$"), reading(gone, "give one"):
        gone.read_text()
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(BenchError, match=r"bytes: not a text file$"), reading(tmp_path / "bytes"):
        (tmp_path / "bytes").read_text(encoding="utf-8")
