"""What a run counts and stores, whole, in parts, and on several workers, threads and processes."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from narrowed import present
from project import BOTH, Project

from bench.config import load_config
from bench.data.cards import load_card
from bench.data.images import resize
from bench.data.prepared import find_samples
from bench.demo.config import with_backbone
from bench.evaluation.models import ModelCache, build_row
from bench.inference.postprocess import classify
from bench.inference.segmenter import Segmenter
from bench.metrics import confusion
from bench.registry import load_methods
from bench.settings import ResizeRule
from bench.store.result import TIES
from bench.store.store import Store

pytestmark = pytest.mark.usefixtures("any_count")


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
    assert cell.measured == pytest.approx(100 * present(stored.record.metrics["miou"]), abs=0.06)
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


def test_threads_move_ties_at_most(finished: Project, project: Project) -> None:
    """Of all pixels together, since few of them make a million: as many as docs/architecture.md allows, or three."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
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
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = project.process(*BOTH, "--methods", "clip,segearth-ov", launcher=torchrun)
    assert done.returncode == 0, done.stderr
    expected = finished.counts()
    assert project.counts() == {cell: expected[cell] for cell in project.counts()}
    assert len(project.counts()) == 4


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
    finished: Project, capsys: pytest.CaptureFixture[str], flags: str
) -> None:
    assert finished.run(*flags.split()) == 2
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
    assert record["made_with"]["torch"] and record["made_with"]["batch"] == "4"
