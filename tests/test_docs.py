"""Commands of README, docs and help are understood, and links and names of files in them lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from bench.cli.app import COMMANDS, parser_of
from tools.site_pages import PAGES as GENERATED

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
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
    parser_of(arguments).parse_args(arguments)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_has_an_example_that_is_understood(command: str) -> None:
    _, example = COMMANDS[command]
    arguments = shlex.split(example)
    assert parser_of(arguments).parse_args(arguments).command == command
    assert f"## {command}\n" in (page := GENERATED["commands.md"]()) and f"python -m bench {example}\n" in page


def test_there_are_commands() -> None:
    assert len(commands()) > 25


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    generated = {ROOT / "docs" / name for name in GENERATED} if page.is_relative_to(ROOT / "docs") else set()
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http", "mailto:")):
            file = (page.parent / target).resolve()
            assert file.exists() or file in generated, target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_tests_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for file, test in re.findall(r"`((?:tests|bench)/[\w/]+\.py)(?:::(\w+))?`", text):
        assert (ROOT / file).is_file(), file
        assert not test or f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), test
