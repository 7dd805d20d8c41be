from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from project import Project
from store_helpers import edit

from bench.cli import main
from bench.config import load_config
from bench.data.cards import load_card
from bench.data.images import resize
from bench.data.prepared import find_samples
from bench.demo.config import with_backbone
from bench.evaluation.models import ModelCache, build_row
from bench.inference.postprocess import classify
from bench.inference.segmenter import Segmenter
from bench.metrics import confusion
from bench.paths import shipped
from bench.registry import load_methods
from bench.runtime.sources import source_hash, text_hash
from bench.settings import ResizeRule
from bench.store.result import TIES
from bench.store.store import Store

SHIPPED_CLIP = "13a1343a02b7d782f9ae4ae0a253b24a0aaef37fd908898c2f6bebdb882e39bf"  # sha256 of clip.py at b6b4ccc
BOTH = ("--datasets", "loveda,whu_aerial")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project after an undisturbed run of all rows on both datasets."""
    project = Project(tmp_path_factory.mktemp("finished"))
    assert project.run(*BOTH) == 0
    return project


def test_every_cell_holds_what_a_plain_evaluation_gives(finished: Project) -> None:
    """The stored confusion matrices against: one image, one row, one pass, thresholded labels, counted pixel
    by pixel.
    """
    config = with_backbone(load_config(finished.config), str(finished.backbone))
    files = {"simfeatup": finished.root / "up.ckpt"}
    models = ModelCache(config, load_methods(), finished.checkpoint, files)
    store = Store(finished.root / "results")
    for name in ("loveda", "whu_aerial"):
        card = load_card(name)
        samples = find_samples(card, finished.data)
        for row in config.default_rows:
            cell = store.cell(row, name)
            assert cell.status == "ok"
            settings = config.settings_of(row, card, models.methods[config.row(row).method].defaults)
            built = build_row(settings, card.vocabularies["cvpr2025"], models)
            for index in range(len(samples)):
                sample = samples.read(index)
                small = resize(sample.image, ResizeRule(long_side=64))
                scores = Segmenter(models.backbone(settings.backbone), [built], 48, 16).scores(small)[row]
                winners, probability = classify(scores, sample.label.shape, built.classes, 50.0)
                labels = np.where(probability < np.float32(card.threshold), np.uint8(card.background), winners)
                expected = confusion(sample.label, labels, len(card.classes))
                assert np.array_equal(cell.confusion()[index], expected), (row, name, sample.id)


def test_tables_of_a_run_are_written_and_marked(finished: Project) -> None:
    tables = finished.root / "results" / "tables"
    table = pd.read_csv(tables / "table1.csv")
    cell = table[(table.row == "sclip") & (table.dataset == "loveda")].iloc[0]
    stored = Store(finished.root / "results").cell("sclip", "loveda")
    assert cell.measured == pytest.approx(100 * stored.record.metrics["miou"], abs=0.06)
    assert float(cell.published) == 30.4
    assert "backbone" in cell.caveat  # given on the command line, so it is not the paper's
    assert pd.isna(cell.difference)


def test_workers_change_no_byte(finished: Project, project: Project) -> None:
    assert project.run(*BOTH, "--methods", "sclip,segearth-ov", "--workers", "2") == 0
    expected = finished.counts()
    assert project.counts() == {cell: expected[cell] for cell in project.counts()}
    assert len(project.counts()) == 4


def test_batch_size_changes_nothing_but_rounding(finished: Project, project: Project) -> None:
    """A pixel may cross a tie or the edge of a hundredth where a matrix product is summed in another order."""
    assert project.run(*BOTH, "--methods", "sclip,segearth-ov", "--batch", "1") == 0
    for row in ("sclip", "segearth-ov"):
        for dataset in ("loveda", "whu_aerial"):
            one, four = (Store(p.root / "results").cell(row, dataset).histogram() for p in (project, finished))
            assert one.sum() == four.sum()
            assert np.abs(one - four).sum() <= 4  # two pixels of 15,000


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_move_ties_at_most(finished: Project, project: Project, threads: int) -> None:
    """Of all pixels together, since few of them make a million: as many as docs/architecture.md allows, or three."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert project.run(*BOTH, "--methods", "sclip,segearth-ov") == 0
    finally:
        torch.set_num_threads(before)
    moved = total = 0.0
    for row in ("sclip", "segearth-ov"):
        for dataset in ("loveda", "whu_aerial"):
            one, other = (Store(p.root / "results").cell(row, dataset).histogram() for p in (project, finished))
            moved += np.abs(one - other).sum() / 2
            total += one.sum()
    assert moved <= max(3, TIES * total / 1e6)


def test_a_second_run_has_nothing_to_do(finished: Project, capsys: pytest.CaptureFixture[str]) -> None:
    before = {
        file: file.stat().st_mtime_ns for file in (finished.root / "results" / "cells").rglob("*") if file.is_file()
    }
    assert finished.run(*BOTH) == 0
    after = {
        file: file.stat().st_mtime_ns for file in (finished.root / "results" / "cells").rglob("*") if file.is_file()
    }
    assert after == before
    assert "10 cached" in capsys.readouterr().out


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


def _subprocess(project: Project, *flags: str) -> subprocess.CompletedProcess:
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "bench", *project.arguments(*flags)]
    return subprocess.run(
        command,
        cwd=root,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
@pytest.mark.parametrize("signal", ["SIGINT", "SIGKILL"])
def test_an_interrupted_run_goes_on_where_it_was(finished: Project, project: Project, signal: str) -> None:
    """The plug-in stops its own process in the middle; its source then changes back, which makes no
    difference to maskclip.
    """
    deliverable = "signal.signal(signal.SIGINT, signal.default_int_handler)"  # it is ignored in the background
    plugin = _plugin(project, 4, f"import os; {deliverable}; os.kill(os.getpid(), signal.{signal})")
    flags = (*BOTH, "--methods", "maskclip,maskclip2", "--plugin", plugin)
    stopped = _subprocess(project, *flags)
    assert stopped.returncode == (130 if signal == "SIGINT" else -9)
    assert "Traceback" not in stopped.stderr
    if signal == "SIGINT":
        assert "interrupted; what was computed is stored" in stopped.stderr
    assert project.run(*BOTH, "--methods", "maskclip") == 0
    expected = finished.counts()
    for dataset in ("loveda", "whu_aerial"):
        assert project.counts()[f"{dataset}/maskclip"] == expected[f"{dataset}/maskclip"]


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


def test_a_plan_with_nothing_to_do_says_so(finished: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert finished.run(*BOTH, "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "nothing to do" in shown and "about" not in shown


@pytest.mark.parametrize("text", [SHIPPED_CLIP, text_hash(shipped("methods/clip.py"))], ids=["shipped", "as it is"])
def test_a_cell_that_names_its_plug_in_by_the_hash_of_its_text_stays_valid(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    """Cells of earlier versions: by the text that was shipped then, and by a text of the user that has not changed."""
    flags = ("--datasets", "loveda", "--methods", "clip")
    with monkeypatch.context() as patch:
        patch.setattr("bench.registry.source_hash", lambda _: text)
        assert project.run(*flags) == 0
    before = project.counts()
    stored = json.loads((project.root / "results/cells/loveda/clip/cell.json").read_text())
    assert stored["inputs"]["plug-in"] == text != source_hash(shipped("methods/clip.py"))
    capsys.readouterr()
    assert project.run(*flags, "--dry-run") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert project.run(*flags) == 0 and project.counts() == before


def test_a_cell_of_another_plug_in_is_stale(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--datasets", "loveda", "--methods", "clip")
    with monkeypatch.context() as patch:
        patch.setattr("bench.registry.source_hash", lambda _: "0" * 64)
        assert project.run(*flags) == 0
    capsys.readouterr()
    assert project.run(*flags, "--dry-run") == 0
    assert "1 stale" in capsys.readouterr().out


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
    assert "ValueError: no luck (maskclip2.py, line 9)" in failed.reason  # where to look
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


def test_limited_results_lie_apart(project: Project) -> None:
    assert project.run("--datasets", "loveda", "--methods", "clip", "--limit", "2") == 0
    results = project.root / "results"
    assert Store(results).cell("clip", "loveda") is None
    limited = Store(results, limit=2).cell("clip", "loveda")
    assert (limited.status, limited.total) == ("ok", 2)
    assert "limited" in (results / "tables" / "leaderboard-limited-2.md").read_text().lower()


def test_shards_merge_to_the_whole(finished: Project, project: Project) -> None:
    flags = ("--datasets", "loveda", "--methods", "clip")
    assert project.run(*flags, "--shard", "0/2") == 0
    store = Store(project.root / "results")
    assert (store.cell("clip", "loveda").status, store.cell("clip", "loveda").images.num_rows) == (
        "partial",
        1,
    )
    assert project.run(*flags, "--shard", "1/2") == 0
    whole = Store(finished.root / "results").cell("clip", "loveda")
    assert store.cell("clip", "loveda").status == "ok"
    assert np.array_equal(store.cell("clip", "loveda").confusion(), whole.confusion())


@pytest.mark.slow
def test_two_processes_count_what_one_does(finished: Project, project: Project) -> None:
    root = Path(__file__).resolve().parents[2]
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "bench",
    ]
    command = [*torchrun, *project.arguments(*BOTH, "--methods", "clip,segearth-ov")]
    done = subprocess.run(
        command,
        cwd=root,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    expected = finished.counts()
    assert project.counts() == {cell: expected[cell] for cell in project.counts()}
    assert len(project.counts()) == 4


def test_a_changed_setting_makes_a_cell_stale_and_says_what_changed(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--datasets", "loveda", "--methods", "sclip")
    assert project.run(*flags) == 0
    before = project.counts()
    project.configure(sclip={"method": "sclip", "options": {"residual": "keep"}})
    assert project.run(*flags) == 0
    assert "sclip on loveda is stale: option residual" in capsys.readouterr().out
    assert project.counts() != before


def test_a_changed_threshold_needs_no_images(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--datasets", "loveda", "--methods", "sclip")
    assert project.run(*flags) == 0
    counts = project.counts()
    project.configure(sclip={"method": "sclip", "threshold": 0.9})
    assert project.run(*flags) == 0
    assert "sclip on loveda is rescore: threshold 0.3 -> 0.9" in capsys.readouterr().out
    assert project.counts() == counts
    cell = Store(project.root / "results").cell("sclip", "loveda")
    background = cell.confusion()[..., 0].sum() / cell.confusion().sum()
    assert background > 0.99  # an untrained model is never that sure


def test_dry_run_plans_and_stores_nothing(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert project.run(*BOTH, "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "10 missing" in shown
    assert "seconds on cpu" in shown
    assert not list((project.root / "results").rglob("cell.json"))


def test_datasets_all_runs_what_is_there_and_strict_minds(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert project.run("--methods", "clip") == 0
    assert "no data" in capsys.readouterr().out
    assert Store(project.root / "results").cell("clip", "isaid").status == "no data"
    assert project.run("--methods", "clip", "--strict") == 1
    assert "isaid: no data" in capsys.readouterr().err


def test_an_empty_data_root_is_named_with_the_next_command(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--methods", "clip", "--data-root", str(tmp_path))
    line = "17 of 17 datasets have no data; `python -m bench datasets`"
    assert project.run(*flags, "--dry-run") == 1
    shown = capsys.readouterr().out
    assert line in shown and "nothing to do" not in shown
    assert project.run(*flags) == 1
    assert line in capsys.readouterr().err


def test_a_part_of_the_data_is_enough_but_for_strict(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert project.run("--methods", "clip", "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "15 of 17 datasets have no data" in shown and "seconds on cpu" in shown
    assert project.run("--methods", "clip", "--dry-run", "--strict") == 1


def test_only_selects_by_state(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert project.run("--datasets", "loveda", "--methods", "clip") == 0
    capsys.readouterr()
    assert project.run("--datasets", "loveda", "--methods", "clip,sclip", "--only", "missing") == 0
    assert "1 missing" in capsys.readouterr().out
    assert project.run("--datasets", "loveda", "--methods", "clip,sclip", "--only", "stale") == 0
    assert project.run("--datasets", "loveda", "--only", "lost") == 2
    assert "--only lost: not a state" in capsys.readouterr().err


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
    assert "dataset" in told.splitlines()[0] and "not every cell can be run" in told and "about" not in told


MISTAKES = {
    "--methods sclp": "--methods: unknown row or method 'sclp'; did you mean sclip",
    "--methods sclip+our": "unknown modifier '+our'; did you mean ours?",
    "--methods sclip@remoteclip": "unknown backbone '@remoteclip'; did you mean remoteclip-vit-b32?",
    "--datasets lovda": "unknown dataset 'lovda'; did you mean loveda",
    "--datasets uavid": "uavid: no folder",
    "--table 9": "--table 9: benchmark.yaml has no such table",
    "--upsampler-checkpoint nope=x": "unknown upsampler 'nope'",
    "--device nonsense --datasets loveda": "--device nonsense",
    "--plugin absent.py": "--plugin absent.py: no such file or folder",
    "--config absent.yaml": "absent.yaml: cannot be read",
}


@pytest.mark.parametrize("flags", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(
    project: Project, capsys: pytest.CaptureFixture[str], flags: str
) -> None:
    assert project.run(*flags.split()) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert MISTAKES[flags] in error[-1]
    assert len([line for line in error if "Traceback" in line]) == 0


def test_cell_json_tells_where_a_number_comes_from(finished: Project) -> None:
    record = json.loads((finished.root / "results" / "cells" / "loveda" / "segearth-ov" / "cell.json").read_text())
    assert record["settings"]["debias"] == 0.3
    assert {"weights", "upsampler", "vocabulary", "plug-in", "data list", "card", "dtype", "harness"} == set(
        record["inputs"]
    )
    assert record["info"]["label"] == "SegEarth-OV"
    assert record["cost"]["images"] == 3
    assert record["made_with"]["torch"]
