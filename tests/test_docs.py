"""Commands of README, docs and help are understood, examples run, and links and names of files lead somewhere."""

from __future__ import annotations

import ast
import doctest
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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


def test_the_page_of_methods_has_the_head_of_each_file() -> None:
    page = GENERATED["methods.md"]()
    heads = [
        ast.get_docstring(ast.parse(file.read_text("utf-8"))) or file.name for file in (ROOT / "methods").glob("*.py")
    ]
    assert heads and all(head in page for head in heads)


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


def code(page: str, language: str = "python") -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def notebook(page: str) -> list[str]:
    cells = json.loads((ROOT / page).read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


RUN = 'import bench\nbench.run("{}", "whu_aerial", demo=True, device="cpu", config={})'
OVERLAY = '"mine.yaml"'
SCRIPTS: dict[str, tuple[list[str], str]] = {  # page -> its examples, and what has to be true after them
    "docs/python-api.md": (
        code("docs/python-api.md"),
        """
assert list(ran.scores.row) == ["clip", "segearth-ov"]
found = segment("scene.png")
assert found.labels.shape == (90, 120) and found.names == ("background", "road", "building", "water")
assert found.scores.shape[0] == 5
assert not made.failures
with Image.open(made.files[0]) as image:
    assert np.asarray(image).shape == found.labels.shape
assert Path("tables/leaderboard-demo.md").exists()""",
    ),
    "README.md": (
        [*code("README.md"), RUN.format("mine", None), *map(doctest.script_from_examples, code("README.md", "pycon"))],
        'assert list(table.row) == ["mine"] and found.labels.shape == (90, 120)',
    ),
    "docs/your-method.md": (
        [*code("docs/your-method.md"), RUN.format("clip+mine", OVERLAY)],
        'assert list(bench.scores("results/demo-run", config="mine.yaml").status) == ["ok"]',
    ),
    "docs/first-steps.ipynb": (
        notebook("docs/first-steps.ipynb"),
        """
assert list(found.scores.row) == ["clip", "sclip", "sclip+ours"]
assert Path("notebook-results/tables/leaderboard-demo.md").exists()""",
    ),
}


def test_every_page_with_examples_is_run() -> None:
    pages = [
        page for page in PAGES if re.search(r"^```(python|pycon)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    pages += sorted((ROOT / "docs").rglob("*.ipynb"))
    assert {page.relative_to(ROOT).as_posix() for page in pages} == set(SCRIPTS)


@pytest.mark.slow
@pytest.mark.parametrize("page", SCRIPTS)
def test_the_examples_of_a_page_run_as_a_plain_script(page: str, tmp_path: Path) -> None:
    """Without a guard around the script's body, which loader processes must not run again."""
    examples, checks = SCRIPTS[page]
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "scene.png")
    (tmp_path / "mine.yaml").write_text("".join(code("docs/your-method.md", "yaml")))
    needed = "from pathlib import Path\nimport numpy as np\nfrom PIL import Image\nprint('body')"
    (tmp_path / "script.py").write_text("\n".join([*examples, needed, checks]))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("body") == 1
