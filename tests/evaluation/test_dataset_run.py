"""One dataset in one pass: interruptions, and failures that cost their own cells alone."""

from __future__ import annotations

import json
import re

import pytest
import torch
from narrowed import present
from project import BOTH, Project
from store_helpers import edit

from bench.cli import main
from bench.store.store import Store
from tools.pretended_cuda import pretended_cuda

pytestmark = pytest.mark.usefixtures("any_count")


INTERRUPT = """
import signal
from bench.api import last_block, method
calls = []
@method("maskclip2")
def maskclip2(trunk):
    calls.append(1)
    if len(calls) == {at}:
        {action}
    return last_block(trunk, lambda q, k, v: v, residual=False, ffn=False)
"""


def _plugin(project: Project, at: int, action: str) -> str:
    file = project.root / "maskclip2.py"
    file.write_text(INTERRUPT.format(at=at, action=action))
    return str(file)


@pytest.mark.slow
@pytest.mark.parametrize("signal", ["SIGINT", "SIGKILL"])
def test_an_interrupted_run_goes_on_where_it_was(finished: Project, project: Project, signal: str) -> None:
    """The plug-in stops its own process in the middle; its source then changes back, which makes no
    difference to maskclip.
    """
    deliverable = "signal.signal(signal.SIGINT, signal.default_int_handler)"  # it is ignored in the background
    plugin = _plugin(project, 4, f"import os; {deliverable}; os.kill(os.getpid(), signal.{signal})")
    flags = (*BOTH, "--methods", "maskclip,maskclip2", "--plugin", plugin)
    stopped = project.process(*flags)
    assert stopped.returncode == (130 if signal == "SIGINT" else -9)
    assert "Traceback" not in stopped.stderr
    if signal == "SIGINT":
        assert "interrupted; what was computed is stored" in stopped.stderr
    assert project.run(*BOTH, "--methods", "maskclip") == 0
    expected = finished.counts()
    for dataset in ("loveda", "whu_aerial"):
        assert project.counts()[f"{dataset}/maskclip"] == expected[f"{dataset}/maskclip"]


WATCHED = """
from pathlib import Path
from bench.api import method
@method("watched")
def watched(trunk):
    with Path(__file__).with_name("seen.txt").open("a") as file:
        print(float(trunk.images.double().sum()), file=file)
    return trunk.project(trunk.input(-1))
"""


def test_batches_of_a_gpu_are_the_same_in_shards_and_in_a_run_that_goes_on(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch holds windows of several images: never fewer of them because some are counted or another shard's."""
    (project.root / "watched.py").write_text(WATCHED)
    seen = project.root / "seen.txt"
    flags = ("--datasets", "loveda", "--methods", "watched", "--plugin", str(project.root / "watched.py"))

    def batches(*more: str, results: str, code: int = 0) -> set[str]:
        seen.unlink(missing_ok=True)
        assert project.run(*flags, "--device", "cuda", *more, results=results) == code
        return set(seen.read_text().split())

    with pretended_cuda(monkeypatch):
        whole = batches(results="whole")
        assert len(whole) == 2  # the third image is lower than a window
        assert [batches("--shard", f"{part}/2", results="shards") for part in (0, 1)] == [whole, whole]
        image = next((project.data / "LoveDA").rglob("images_png/2523.png"))
        content = image.read_bytes()
        image.write_bytes(content[: len(content) // 2])
        assert not whole <= batches(results="resumed", code=1)
        image.write_bytes(content)
        assert batches(results="resumed") == whole


def test_a_run_has_one_batch_and_another_run_of_a_cell_says_that_it_had_another(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By default it follows from a GPU's free memory, of which a first dataset leaves less to the second."""
    flags = ("--methods", "clip", "--device", "cuda")
    with pretended_cuda(monkeypatch):
        free = iter([(6 << 30, 6 << 30), (1 << 30, 6 << 30)])
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: next(free))
        assert project.run(*BOTH, *flags, "--limit", "2") == 0
        for dataset in ("loveda", "whu_aerial"):
            cell = Store(project.root / "results", limit=2).cell("clip", dataset)
            assert present(cell).record.made_with["batch"] == "9"
        project.run("--datasets", "loveda", *flags, "--shard", "0/2")
        project.run("--datasets", "loveda", *flags, "--shard", "1/2", "--batch", "2")
    mixture = str(present(Store(project.root / "results").cell("clip", "loveda")).mixture)
    assert re.search(r"\(batch (2 -> 1|1 -> 2)\)", mixture)  # made in one second, either may be the newer


def test_a_cell_that_was_counted_and_not_put_together_is_finished(finished: Project, project: Project) -> None:
    """What a kill between the last image and the end of a dataset leaves: parts, and a record that says "partial"."""
    assert project.run(*BOTH, "--methods", "maskclip") == 0
    folder = project.root / "results" / "cells" / "loveda" / "maskclip"
    (folder / "counts.parquet").rename(folder / "part-000000.parquet")
    record = json.loads((folder / "cell.json").read_text())
    edit(folder / "cell.json", status="partial", metrics={}, counts_sha256=None)
    assert project.run(*BOTH, "--methods", "maskclip") == 0
    assert project.counts()["loveda/maskclip"] == finished.counts()["loveda/maskclip"]
    assert json.loads((folder / "cell.json").read_text())["metrics"] == record["metrics"]


def test_an_unknown_upsampler_of_a_plug_in_fails_its_own_cells_only(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    file = project.root / "mine.py"
    file.write_text(
        "from bench.api import method\n\n"
        "@method('mine', upsampler='simfeetup')\ndef mine(trunk):\n    return trunk.project(trunk.input(-1))\n"
    )
    assert project.run(*BOTH, "--methods", "clip,mine", "--plugin", str(file)) == 1
    assert "unknown upsampler 'simfeetup'; did you mean simfeatup" in capsys.readouterr().err
    store = Store(project.root / "results")
    assert (store.cell("clip", "loveda").status, store.cell("mine", "loveda").status) == ("ok", "failed")


def test_a_plug_in_that_raises_fails_its_own_cells_only(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    plugin = _plugin(project, 1, "raise ValueError('no luck')")
    assert project.run(*BOTH, "--methods", "clip,maskclip2", "--plugin", plugin) == 1
    store = Store(project.root / "results")
    assert store.cell("clip", "loveda").status == "ok"
    failed = store.cell("maskclip2", "loveda")
    assert failed.status == "failed"
    assert "ValueError: no luck (maskclip2.py, line 9)" in present(failed.reason)  # where to look
    assert "maskclip2 on loveda: " in capsys.readouterr().err
    assert "failed" in (project.root / "results" / "tables" / "leaderboard.md").read_text()


def test_a_truncated_image_is_named_and_mended_later(
    finished: Project, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    image = next((project.data / "LoveDA").rglob("images_png/2523.png"))
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    assert project.run("--datasets", "loveda", "--methods", "clip") == 1
    cell = Store(project.root / "results").cell("clip", "loveda")
    assert (cell.status, cell.images.num_rows) == ("partial", 2)
    assert "2523.png" in capsys.readouterr().err
    image.write_bytes(whole)
    assert project.run("--datasets", "loveda", "--methods", "clip") == 0
    told = capsys.readouterr()
    assert "1 partial" in told.out and "1 of 1 images" in told.err  # one image again, not three
    assert project.counts()["loveda/clip"] == finished.counts()["loveda/clip"]


def test_missing_upsampler_fails_its_rows_and_leaves_the_others(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = project.arguments("--datasets", "loveda", "--methods", "clip,segearth-ov")
    place = arguments.index("--upsampler-checkpoint")
    del arguments[place : place + 2]
    assert main([*arguments, "--dry-run"]) == 1
    told = capsys.readouterr().out
    assert "segearth-ov: upsampler simfeatup:" in " ".join(told.split()) and "not every cell can be run" in told
    assert main(arguments) == 1
    store = Store(project.root / "results")
    assert (store.cell("clip", "loveda").status, store.cell("segearth-ov", "loveda").status) == (
        "ok",
        "failed",
    )
    assert "--upsampler-checkpoint simfeatup=FILE" in capsys.readouterr().err
    assert main([*arguments, "--methods", "segearth-ov"]) == 2
    capsys.readouterr()
    assert main([*arguments, "--methods", "segearth-ov", "--fresh", "--dry-run"]) == 1
    told = capsys.readouterr().out
    assert (
        "dataset" in told.splitlines()[0]
        and "not every cell can be run" in told
        and "weights simfeatup are missing" in told
    )
