"""What README and docs tell people to type: the real parser takes it, and the files that they link to exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from bench.cli.app import _parser

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
_COMMAND = re.compile(r"python -m bench ((?:\\\n|[^`\n])+)")


def commands() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for text in _COMMAND.findall(page.read_text(encoding="utf-8")):
            line = text.replace("\\\n", " ").partition(" #")[0].strip().replace("$SLURM_ARRAY_TASK_ID", "0")
            if not re.search(r"[…]|COMMAND|\bA B\b|--help|\bNAME\b", line):
                found.append((page.name, line))
    return found


@pytest.mark.parametrize(("page", "line"), commands())
def test_a_documented_command_is_understood(page: str, line: str) -> None:
    arguments = shlex.split(line)
    _parser(arguments).parse_args(arguments)


def test_there_are_commands() -> None:
    assert len(commands()) > 25


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http", "mailto:")):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_tests_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for file, test in re.findall(r"`((?:tests|bench)/[\w/]+\.py)(?:::(\w+))?`", text):
        assert (ROOT / file).is_file(), file
        assert not test or f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), test
