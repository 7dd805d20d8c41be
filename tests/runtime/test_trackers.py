"""What a run tells experiment trackers."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.errors import BenchError
from bench.runtime.trackers import check, open_tracker


def test_lines_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "logs" / "run.jsonl"
    arguments = ["run", "--demo", "--datasets", "whu_aerial", "--methods", "clip", "--results", str(tmp_path / "r")]
    assert main([*arguments, "--log-to", f"jsonl:{file}"]) == 0, capsys.readouterr().err
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [line["kind"] for line in lines] == ["run", "numbers", "numbers", "text"]
    assert lines[0]["rows"] == ["clip"] and lines[0]["demo"] is True
    assert lines[1]["step"] == 2 and lines[1]["values"]["images/whu_aerial"] == 2
    score = lines[2]["values"]["score/whu_aerial/clip"]
    assert f"{score:.1f}" in lines[3]["content"]


@pytest.mark.parametrize("kind", ["wandb", "trackio"])
def test_projects_are_told_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    package: Any = types.ModuleType(kind)
    package.__spec__ = types.SimpleNamespace(name=kind)
    package.init = lambda **options: told.append(("init", options))
    package.log = lambda values, step: told.append((step, values))
    package.finish = lambda: told.append("finish")
    setattr(package, "Html" if kind == "wandb" else "Markdown", lambda text: f"shown {text}")
    monkeypatch.setitem(sys.modules, kind, package)
    tracker = open_tracker(f"{kind}:mine", {"rows": ["clip"]})
    tracker.numbers(3, {"images": 3.0})
    tracker.text("scores", "| a |")
    tracker.close()
    shown = "shown <pre>| a |</pre>" if kind == "wandb" else "shown | a |"
    assert told == [
        ("init", {"project": "mine", "config": {"rows": ["clip"]}}),
        (3, {"images": 3.0}),
        (3, {"scores": shown}),
        "finish",
    ]


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    tracker = open_tracker(f"tensorboard:{tmp_path / 'runs'}", {"rows": ["clip"]})
    tracker.numbers(1, {"images": 1.0})
    tracker.text("scores", "| a |")
    tracker.close()
    assert list((tmp_path / "runs").glob("events*"))


def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--demo", "--log-to", "nothing"]) == 2
    assert "--log-to nothing: no such tracker; give one of jsonl, tensorboard" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BenchError, match="--log-to wandb: needs the package wandb; pip install wandb"):
        check("wandb:mine")
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match="cannot be written"):
        open_tracker(f"jsonl:{tmp_path / 'file' / 'run.jsonl'}", {})
