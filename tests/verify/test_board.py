"""`bench board check`: what others submit is looked at from all sides, and nothing of it is run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from board_helpers import DATASET, GOOD, SOURCE, git, submitted
from store_helpers import edit

from bench.cli import main
from bench.registry import find_refinement, source_hash
from bench.runtime.sources import hash_of
from bench.settings import EXTERNAL, ResizeRule
from bench.store.count_table import encode
from bench.store.store import Store
from bench.verify.board import Board, check

pytestmark = pytest.mark.usefixtures("any_count")


def faults(board: Path, only: str | None = None) -> list[str]:
    return check(Board(board), only and [only]).faults


def test_sound_results_have_no_fault(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert faults(board) == []
    assert main(["board", "check", str(board)]) == 0
    assert "1 of 1 submissions checked, 2 readable cells: nothing is wrong" in capsys.readouterr().out


def test_equal_runs_of_two_people_are_no_copies(board: Path) -> None:
    submitted(board / "submissions/bob", "clip", info={"device": "cuda"})
    assert faults(board) == []


OTHER = "wbs_si"
NEUTRAL = {"method": EXTERNAL, "backbone": EXTERNAL, "resize": ResizeRule(long_side=16)}


@pytest.mark.parametrize(
    ("row", "changes"),
    [
        ("sclip[residual=keep]", {}),
        ("sclip@remoteclip-vit-b32", {"inputs": {"weights": "bb"}}),
        ("sclip+ours", {"inputs": {"upsampler": "aa"}}),
        ("sclip[upsampler=anyup]", {"inputs": {"upsampler": "anyup, drawn with seed 1"}}),
        ("clip+pamr", {"inputs": {"refinement": source_hash(find_refinement("pamr").file)}}),
        ("proxyclip", {"inputs": {"model vfm": "aa"}}),
        ("mine", {"dataset": OTHER, "inputs": {"dtype": "bf16"}}),
        ("mine[strength=2,mode=a]", {}),
        ("mine+ours", {"inputs": {"upsampler": "aa"}}),
        ("unet", {"settings": NEUTRAL, "source": None, "info": {"label": "U-Net", "caveat": "external"}}),
        (
            "clip",
            {"dataset": "spacenet_road", "ids": ["AOI_2_Vegas_img1", "AOI_2_Vegas_img2"], "scene": "2_Vegas"}
            | {"info": {"layout": "official"}},
        ),
    ],
)
def test_honest_results_of_every_kind_pass(row: str, changes: dict[str, Any], board: Path) -> None:
    submitted(board / "submissions/bob", row, **changes)
    assert faults(board) == []


def in_clip(change: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda ada: change(ada / "cells" / DATASET / "clip")


def edited(**changes: Any) -> Callable[[Path], object]:
    def change(cell: Path) -> None:
        content = json.loads((cell / "cell.json").read_text())
        for key, value in changes.items():
            owner, _, name = key.rpartition("__")
            (content[owner] if owner else content)[name] = value
        edit(cell / "cell.json", **content)

    return in_clip(change)


def linked(name: str, target: str) -> Callable[[Path], object]:
    def change(ada: Path) -> None:
        file = ada / name
        if file.is_dir():
            shutil.rmtree(file)
        file.unlink(missing_ok=True)
        file.symlink_to(target)

    return change


def huge(name: str) -> Callable[[Path], object]:
    return lambda ada: os.truncate(ada / name, 1 << 30)


def written(name: str, text: str = "x") -> Callable[[Path], object]:
    def change(ada: Path) -> None:
        (ada / name).parent.mkdir(parents=True, exist_ok=True)
        (ada / name).write_text(text)

    return change


def one_image_twice(ada: Path) -> None:
    store = Store(ada)
    cell = store.cell("clip", DATASET)
    assert cell is not None
    ids = pa.array([cell.ids[0]] * 2)
    counts = encode(cell.table.set_column(cell.table.schema.get_field_index("id"), "id", ids), cell.record.fingerprint)
    cell.record.counts_sha256 = hashlib.sha256(counts).hexdigest()
    (store.place("clip", DATASET) / "counts.parquet").write_bytes(counts)
    cell.record.write(store.place("clip", DATASET))


CLIP = f"cells/{DATASET}/clip"
ATTACKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "other counts": (written(f"{CLIP}/counts.parquet"), "its counts are not those that cell.json names"),
    "no counts": (lambda ada: (ada / CLIP / "counts.parquet").unlink(), "its counts are not those that cell.json"),
    "no record": (lambda ada: (ada / CLIP / "cell.json").unlink(), "no cell.json that can be read"),
    "a damaged record": (written(f"{CLIP}/cell.json", "[" * 100_000), "no cell.json that can be read"),
    "one image twice": (one_image_twice, "its counts are no result"),
    "another score": (edited(metrics__score=0.99), "cell.json states another score than they give"),
    "a number of nowhere": (edited(metrics__boundary_iou=[0.9, 0.9]), "states another boundary_iou than they give"),
    "another row": (lambda ada: (ada / CLIP).rename(ada / "cells" / DATASET / "sclip"), "holds clip on whu_aerial"),
    "limited": (edited(limit=2), "of the first 2 images"),
    "a demo": (edited(demo=True), "of the demo; real and demo results are kept apart"),
    "more classes": (edited(classes=["a", "b", "c"], metric="miou"), "its counts are no result"),
    "other classes": (edited(classes=["building", "background"]), "its classes are not the 2 of the dataset's card"),
    "another metric": (edited(metric="miou"), "it is scored by miou, the dataset's card says foreground_iou"),
    "no layout": (edited(info__layout=None), "layout 'None' is none of the dataset's card"),
    "defaults of nobody": (edited(info__method_defaults={"debias": "x"}), "no cell.json that can be read"),
    "other defaults": (edited(info__method_defaults={"debias": 0.3}), "states other defaults of 'clip' than it has"),
    "a cost that is no number": (edited(cost={"images": 10**400, "seconds": 1}), "no cell.json that can be read"),
    "a long text": (edited(info__footnote="x" * 9_000), "info.footnote has 9,000 characters, at most 500 are taken"),
    "an empty folder": (lambda ada: (ada / "methods/a").mkdir(), "methods/a: an empty folder or another repository"),
    "another's name": (edited(info__label="SCLIP"), "is called 'SCLIP' in tables, and the row clip is called 'CLIP'"),
    "control characters": (edited(info__layout="\x1b[2J\n::error::x"), "layout ' [2J ::error::x' is none"),
    "source that was changed": (written("methods/mine/mine.py", SOURCE + "1"), "is not the source that counted it"),
    "source beside it": (written("methods/mine/other.py"), "methods/mine/ is not the source that counted it"),
    "no source": (lambda ada: shutil.rmtree(ada / "methods"), "the source of 'mine' is missing"),
    "source of no cell": (written("methods/yours/yours.py"), "no sound cell was counted by it"),
    "source of what ships": (written("methods/clip/clip.py"), "methods/clip/ is not needed, for 'clip' ships"),
    "deep source": (written("methods/mine/mine.py", "(" * 50_000), "is not the source that counted it"),
    "deep terms": (written("methods/mine/mine.py", "1" + "+1" * 50_000), "is not the source that counted it"),
    "a file of another kind": (written(f"{CLIP}/run.sh"), f"{CLIP}/run.sh: no part of a submission is called so"),
    "a file above": (written("setup.py"), "ada/setup.py: no part of a submission"),
    "a hidden file": (written("methods/mine/.pth"), ".pth: no part of a submission"),
    "a hidden folder": (written(".git/config"), ".git: no part of a submission"),
    "a folder for limits": (written("limited-2/cells/a/b/cell.json"), "limited-2/cells/a/b/cell.json: no part"),
    "a strange name": (written("methods/mine/\x1b[2J\n.py"), "methods/mine/ [2J .py: no part of a submission"),
    "a link to a file": (linked(f"{CLIP}/cell.json", "/etc/passwd"), "cell.json: is a link or no file"),
    "a link to a folder": (linked("methods/mine", "/etc"), "methods/mine: no part of a submission is called so"),
    "an endless file": (linked(f"{CLIP}/counts.parquet", "/dev/zero"), "counts.parquet: is a link or no file"),
    "a pipe": (lambda ada: os.mkfifo(ada / "environment.txt"), "environment.txt: is a link or no file"),
    "a gigabyte of counts": (huge(f"{CLIP}/counts.parquet"), "1,073,741,824 bytes, at most 104,857,600 are taken"),
    "a gigabyte of source": (huge("methods/mine/mine.py"), "1,073,741,824 bytes, at most 1,048,576 are taken"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_is_wrong_is_one_line(attack: str, board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, message = ATTACKS[attack]
    change(board / "submissions/ada")
    assert main(["board", "check", str(board)]) == 1
    told = capsys.readouterr().out
    wrong = [line for line in told.splitlines() if message in line]
    assert len(wrong) == 1 and all(line.startswith("submissions/ada") for line in told.splitlines()[:-1]), told


def test_submitted_source_is_not_run(board: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    source = f"open({str(ran)!r}, 'w')\nraise SystemExit\n"
    submitted(board / "submissions/bob", "evil", source=source)
    assert faults(board) == [] and not ran.exists()


@pytest.mark.parametrize(
    ("row", "changes", "message"),
    [
        (
            "clip",
            {"images": [[[30_000, 10_000], [0, 40_000]], GOOD]},
            "points from ada's run, 62500.0 pixels",
        ),
        ("clip", {"images": [[[40_000, 0], [0, 39_000]], GOOD]}, "other labels in 1 of 2 images; one of the two"),
        ("clip", {"inputs": {"dtype": "bf16"}}, "ada has another cell of this name (dtype changed)"),
        ("mine", {"source": SOURCE.replace("mine(", "yours(")}, "ada has another cell of this name (plug-in changed)"),
        ("yours", {"info": {"label": "SCLIP"}}, "is called 'SCLIP' in tables, as the row sclip is"),
        ("yours", {"info": {"label": " SCLIP\u200b"}}, "is called 'SCLIP' in tables, as the row sclip is"),
        ("yours", {"info": {"label": "mine"}}, "ada has another row called 'mine'; give yours another name"),
        ("sclip", {"settings": NEUTRAL, "source": None}, "score them under a --row that is not called sclip"),
        ("mine", {"source": SOURCE + "X = 1", "dataset": OTHER}, "ada has another source of 'mine'"),
        ("mine", {"info": {"method_defaults": {"scale": 10}}, "dataset": OTHER}, "another set of defaults of 'mine'"),
        ("clip", {"inputs": {"plug-in": None}}, "was not counted by the 'clip' of ovss-bench"),
        ("mine", {"inputs": {"plug-in": None}}, "methods/mine/ is not the source that counted it"),
        ("yours[refine=new]", {}, "the source of 'new' is missing"),
        ("clip", {"dataset": OTHER, "settings": {"backbone": "new"}}, "other backbone: its backbone is new"),
        ("sclip", {"settings": {"options": {"a": 1}}}, "stale: changed since it was counted: option a 1 -> none"),
        ("clip", {"source": SOURCE}, "was not counted by the 'clip' of ovss-bench"),
        ("clip", {"settings": {"row": "champion"}}, "stale: changed since it was counted: method clip -> champion"),
        ("clip", {"settings": {"row": "sclip"}}, "method clip -> sclip"),
        ("clip", {"settings": {"threshold": 0.3}}, "threshold 0.3 -> 0.6"),
        ("sclip", {"inputs": {"weights": "bb"}}, "other weights: its weights are bb, those of most rows aa"),
        ("sclip", {"images": [[[1, 0], [0, 1]], GOOD]}, "other labels: its labels are not those of most rows"),
        ("sclip", {"scene": "a"}, "its scenes are not those of the dataset's card"),
        ("clip", {"images": [GOOD], "store": {"shard": (0, 2)}}, "shard-0-of-2/cell.json: no part of a submission"),
    ],
)
def test_results_beside_those_of_others(row: str, changes: dict[str, Any], message: str, board: Path) -> None:
    submitted(board / "submissions/bob", row, **changes)
    found = faults(board, "bob")
    assert any(message in fault and fault.startswith("submissions/bob") for fault in found), found


def test_nobody_outvotes_what_is_there(board: Path) -> None:
    """Not by many rows, and not by a later date."""
    for row in ("sclip", "gem", "clearclip"):
        submitted(board / "submissions/eve", row, [[[1, 0], [0, 1]], GOOD])
    assert len(faults(board, "eve")) == 3 and all("other labels" in fault for fault in faults(board, "eve"))


def test_one_method_has_one_set_of_defaults_on_all_datasets(board: Path) -> None:
    """What is chosen on each dataset is no default."""
    bob = board / "submissions/bob"
    for dataset, scale in ((DATASET, 10.0), (OTHER, 60.0)):
        changes = {"settings": {"scale": scale}, "info": {"method_defaults": {"scale": scale}}}
        submitted(bob, "yours", dataset=dataset, **changes)
    found = faults(board, "bob")
    assert len(found) == 2 and all("bob has another set of defaults of 'yours'" in fault for fault in found)


def test_source_of_upsamplers_and_refinements_belongs_to_it(board: Path) -> None:
    code, bob = hash_of([SOURCE.encode()]), board / "submissions/bob"
    changes = {
        "settings": {"upsampler": "up", "refine": "crf"},
        "inputs": {"upsampler": f"aa, {code}", "refinement": code},
    }
    submitted(bob, "yours", **changes)
    missing = [fault for fault in faults(board, "bob") if "is missing" in fault]
    assert len(missing) == 2 and "'crf'" in missing[0] and "'up'" in missing[1]
    for name in ("up", "crf"):
        written(f"methods/{name}/{name}.py", SOURCE)(bob)
    assert not [fault for fault in faults(board, "bob") if "source" in fault]


def test_a_copy_is_no_second_run(board: Path) -> None:
    shutil.copytree(board / "submissions/ada", board / "submissions/mallory")
    (one, other) = faults(board, "mallory")
    assert "mallory: clip on whu_aerial: its cell.json is a copy of ada's" in one and "mine on" in other


def test_folders_that_are_no_submissions(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, make in {"Ada Lovelace": os.mkdir, "x.txt": lambda path: Path(path).touch()}.items():
        place = board / "submissions" / name
        make(place)
        assert main(["board", "check", str(board)]) == 2
        assert f"submissions/{name}: is no folder of a submission" in capsys.readouterr().err
        (place.rmdir if place.is_dir() else place.unlink)()
    assert main(["board", "check", str(board / "submissions/ada")]) == 2
    assert "is no board, for it has no folder submissions/" in capsys.readouterr().err


def test_rows_and_datasets_that_the_board_knows(board: Path) -> None:
    """A board's own benchmark.yaml names further rows, its folder datasets/ further datasets."""
    cell = submitted(board / "submissions/bob", "clip", settings={"row": "champion"}, info={"label": "Champion"})
    (board / "benchmark.yaml").write_text("rows: {champion: {method: clip, label: Champion}}\n")
    assert faults(board, "bob") == []
    other = cell.parent.parent / "mytown" / "champion"
    shutil.move(cell.parent, other.parent)
    content = json.loads((other / "cell.json").read_text())
    content["dataset"] = content["settings"]["dataset"] = "mytown"
    edit(other / "cell.json", **content)
    (board / "submissions/bob/datasets").mkdir()
    (board / "submissions/bob/datasets/mytown.yaml").write_text("a: &a [*a, *a]\nsplit: {file: /etc/passwd}")
    (fault,) = faults(board, "bob")
    assert "the board has no such dataset; who keeps it copies submissions/bob/datasets/mytown.yaml" in fault


def test_the_page_shows_runs_of_one_cell_together(board: Path, tmp_path: Path) -> None:
    submitted(board / "submissions/bob", "clip", [GOOD, [[39_999, 1], [0, 40_000]]])
    assert main(["board", "page", str(board), "-o", str(tmp_path / "site"), "--draws", "10"]) == 0
    page = (tmp_path / "site/index.html").read_text()
    assert "also run by bob: 100.00, 0.00 points apart; 6.2 pixels in a million" in page
    assert '"origin":"imported from submissions/ada","notes":["also run by bob' in page
    assert (tmp_path / "site/tables/leaderboard.md").exists()
    (board / "submissions/bob/more").symlink_to("/etc")
    assert main(["board", "page", str(board), "-o", str(tmp_path / "other")]) == 2 and not (tmp_path / "other").exists()


def test_a_pull_request_changes_one_submission(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    git(clone, "switch", "-q", "-c", "both")
    submitted(clone / "submissions/bob", "sclip")
    (clone / "submissions/ada/environment.txt").write_text("x")
    (clone / ".github").mkdir()
    (clone / ".github/x.yml").write_text("x")
    git(clone, "add", ".")
    git(clone, "commit", "-q", "-m", "Both")
    assert main(["board", "check", str(clone), "--since", "main"]) == 1
    told = capsys.readouterr().out
    assert ".github/x.yml: is no part of a submission" in told and "ada, bob: several submissions" in told
    assert main(["board", "check", str(clone), "--since", "nowhere"]) == 2
    assert "git diff: fatal: ambiguous argument 'nowhere...HEAD'" in capsys.readouterr().err
