"""A board with sound results, and the same under git."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from board_helpers import git, new_board, submitted


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, any_count: None) -> Path:
    folder = new_board(tmp_path_factory.mktemp("made") / "board")
    for row in ("clip", "mine"):
        submitted(folder / "submissions/ada", row)
    return folder


@pytest.fixture
def board(made: Path, tmp_path: Path) -> Path:
    """A board with the sound results of ada: a shipped row, and one of a plug-in."""
    return shutil.copytree(made, tmp_path / "board")


@pytest.fixture
def clone(board: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The board under git, as somebody has it."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Bob")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "bob@example.org")
    git(board, "init", "-q", "-b", "main")
    git(board, "add", ".")
    git(board, "commit", "-q", "-m", "Begin")
    return board
