"""`bench submit`: results are put onto a branch of a board's clone, with all that belongs to them."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from board_helpers import DATASET, GOOD, SOURCE, git, submitted
from store_helpers import settings, spec

from bench.cli import main
from bench.paths import shipped
from bench.registry import source_hash
from bench.runtime.yaml_files import read_yaml
from bench.store.store import Store
from bench.verify.board import Board, check

pytestmark = pytest.mark.usefixtures("any_count")


def test_submit_is_one_commit_on_a_branch(clone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, plugin = tmp_path / "results", tmp_path / "mine.py"
    submitted(results, "clip", info={"device": "cuda"})
    submitted(results, "mine", info={"device": "cuda"})
    shutil.rmtree(results / "methods")
    command = ["submit", str(clone), "--name", "bob", "--results", str(results)]
    assert main(command) == 2 and "the source of 'mine' belongs to it" in capsys.readouterr().err
    plugin.write_text(SOURCE.replace("trunk", "other"))
    assert main([*command, "--plugin", str(plugin)]) == 2
    assert "mine.py changed since; run it again" in capsys.readouterr().err
    assert git(clone, "branch", "--format=%(refname:short)") == "main" and not git(clone, "status", "--porcelain")
    store = Store(results)  # what could not even be counted stays here
    store.record_gap(replace(spec(2), settings=settings("clip", "vdd")), "no data", "not here")
    assert main([*command, "--methods", "clip"]) == 0
    assert "next: git -C" in capsys.readouterr().out and git(clone, "branch", "--show-current") == "submit-bob"
    place = f"submissions/bob/cells/{DATASET}/clip"
    changed = git(clone, "diff", "--name-only", "main").split()
    assert changed == [f"{place}/cell.json", f"{place}/counts.parquet", "submissions/bob/environment.txt"]
    assert "numpy==" in (clone / changed[-1]).read_text() and Store(clone / "submissions/bob").cells()
    assert main(["board", "check", str(clone), "--since", "main", "--by", "Bob"]) == 0
    assert main(["board", "check", str(clone), "--since", "main", "--by", "eve"]) == 1
    assert "cell.json: is not eve's; a pull request with results changes one submission" in capsys.readouterr().out
    assert main([*command, "--methods", "clip"]) == 2 and "holds all of it already" in capsys.readouterr().err


def test_what_is_submitted_again_takes_the_place_of_what_was(clone: Path, tmp_path: Path) -> None:
    """Source is replaced as a whole, and other cells of the submission stay."""
    (tmp_path / "plug-in").mkdir()
    plugin, place = tmp_path / "plug-in/yours.py", clone / "submissions/bob"
    command = ["submit", str(clone), "--name", "bob", "--results"]
    source = SOURCE.replace("mine", "yours")
    with_old = {"old.py": "X = 1\n", "yours.py": f"from .old import X\n{source}"}
    for name, text in with_old.items():
        (tmp_path / "plug-in" / name).write_text(text)
    submitted(tmp_path / "a", "yours", inputs={"plug-in": source_hash(plugin)})
    assert main([*command, str(tmp_path / "a"), "--plugin", str(plugin)]) == 0
    assert [file.name for file in sorted(place.rglob("*.py"))] == ["old.py", "yours.py"]
    plugin.write_text(source)
    (tmp_path / "plug-in/old.py").unlink()
    submitted(tmp_path / "b", "yours", source=source)
    submitted(tmp_path / "c", "gem")
    for results in ("b", "c"):
        assert main([*command, str(tmp_path / results), "--plugin", str(plugin)]) == 0
    assert [file.name for file in sorted(place.rglob("*.py"))] == ["yours.py"]
    assert {cell.row for cell in Store(place).cells()} == {"gem", "yours"}
    assert len(git(clone, "log", "--oneline", "--", str(place)).splitlines()) == 3


def test_the_card_of_an_own_dataset_goes_along(clone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cards, results = tmp_path / "cards", tmp_path / "results"
    cards.mkdir()
    content = read_yaml(shipped(f"datasets/{DATASET}.yaml"), "another") | {"name": "mytown", "aliases": []}
    split = {"key": "{n}", "file": "val.txt"}
    del content["expected_count"]
    content["layouts"] = {"original": {**content["layouts"]["original"], "split": split}}
    (cards / "mytown.yaml").write_text(json.dumps(content))
    (cards / "val.txt").write_text("a\nb\n")
    submitted(results, "clip", dataset="mytown", cards=[cards])
    command = ["submit", str(clone), "--name", "bob", "--results", str(results)]
    assert main(command) == 2
    assert "mytown: its card belongs to its results; give its folder with --cards" in capsys.readouterr().err
    command += ["--cards", str(cards)]
    assert main(command) == 1 and "the board has no such dataset" in capsys.readouterr().out
    shutil.copytree(cards, clone / "datasets")
    git(clone, "add", ".")
    git(clone, "commit", "-q", "-m", "Take mytown in")
    assert main(command) == 0
    assert {file.name for file in (clone / "submissions/bob/datasets").iterdir()} == {"mytown.yaml", "val.txt"}
    assert check(Board(clone)).faults == []
    content["layouts"]["original"]["split"]["file"] = "../results/secret.txt"
    (results / "secret.txt").write_text("a\n")
    (cards / "mytown.yaml").write_text(json.dumps(content))
    assert main(command) == 2 and "a text file (.txt) beside the card is needed" in capsys.readouterr().err


def test_submit_checks_as_the_board_will(clone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results"
    submitted(results, "clip", [[[10_000, 30_000], [0, 40_000]], GOOD])
    command = ["submit", str(clone), "--results", str(results), "--name"]
    assert main([*command, "bob"]) == 1 and "points from ada's run" in capsys.readouterr().out
    assert not (clone / "submissions/bob").exists() and git(clone, "branch", "--show-current") == "main"
    assert main([*command, "../eve"]) == 2 and "the name of your account is needed" in capsys.readouterr().err
    (clone / "submissions/ada/environment.txt").write_text("x")
    assert main([*command, "ada"]) == 2 and "changes that are not committed" in capsys.readouterr().err


def test_a_folder_without_git_takes_no_submissions(
    board: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    submitted(tmp_path / "results", "clip", info={"device": "cuda"})
    assert main(["submit", str(board), "--name", "bob", "--results", str(tmp_path / "results")]) == 2
    told = capsys.readouterr().err
    assert "git" in told and told.count("\n") == 1


README = Path(__file__).resolve().parents[2] / "docs/board/README.md"


def follow(block: int, **changes: str) -> list[int]:
    """Run the commands of a block of README with these words changed; return the exit codes of those of bench."""
    text = re.findall(r"^```bash\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)[block]
    for old, new in changes.items():
        text = text.replace(old, new)
    codes = []
    for line in text.splitlines():
        words = shlex.split(line)
        if words[:3] == ["python", "-m", "bench"]:
            codes.append(main(words[3:]))
        else:
            subprocess.run(words, check=True, capture_output=True)
    return codes


@pytest.mark.slow
def test_two_people_and_who_keeps_the_board_follow_its_readme(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the template, in a bare repository."""
    shutil.rmtree(clone / "submissions")
    shutil.copytree(README.parent, clone, dirs_exist_ok=True)
    git(clone, "add", "-A")
    git(clone, "commit", "-q", "-m", "A board")
    bare = tmp_path / "board.git"
    git(tmp_path, "clone", "-q", "--bare", str(clone), str(bare))
    (tmp_path / "somewhere").mkdir()
    monkeypatch.chdir(tmp_path / "somewhere")
    Path("mine.py").write_text(SOURCE)
    for who, device in {"ada": "cpu", "bob": "cuda"}.items():
        for row in ("sclip", "mine"):
            submitted(Path("results"), row, info={"device": device})
        assert follow(0, **{"https://github.com/ada/BOARD": str(bare), "ada": who}) == [0]
        shutil.rmtree("board")
        git(tmp_path, "clone", "-q", "-b", f"submit-{who}", str(bare), "somewhere/board")
        assert follow(1) == [0, 0 if who == "bob" else 2, 0]  # the second is of both
        git(Path("board"), "push", "-q", "origin", "HEAD:main")
        shutil.rmtree("board")
        shutil.rmtree("results")
    told = capsys.readouterr().out
    assert "whu_aerial: not counted again" in told and "0 are further apart than machines are" in told
    assert Path("site/index.html").read_text().count("also run by bob: 100.00") >= 2
