"""`bench board check --recount`: images of submitted results are counted again where their data are."""

from __future__ import annotations

import hashlib
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from board_helpers import DATASET, new_board, submitted
from data_helpers import scene
from project import SMALL

from bench.cli import main
from bench.data.cards import load_card
from bench.data.prepared import find_samples
from bench.demo.writers import write_dataset
from bench.store.count_table import encode
from bench.store.store import Store
from bench.verify.board import Board, check
from bench.verify.recount import Recount, recount

SIZES = [(48, 64), (64, 40), (30, 50)]


def test_a_few_images_are_not_the_dataset(tmp_path: Path) -> None:
    submitted(new_board(tmp_path) / "submissions/ada", "clip")
    assert check(Board(tmp_path)).faults == ["submissions/ada: clip on whu_aerial: 2 of 1,036 images"]


@pytest.mark.usefixtures("any_count")
def test_label_pixels_are_held_against_the_labels_here(tmp_path: Path) -> None:
    card = load_card(DATASET)
    scenes = [scene(card, *size, seed) for seed, size in enumerate(SIZES)]
    write_dataset(card, tmp_path / "data", scenes)
    ids = find_samples(card, tmp_path / "data").ids
    areas = [np.bincount(label.ravel(), minlength=2) for _, label in scenes]
    board = new_board(tmp_path / "board")
    for name, cheated in (("ada", 0), ("bob", 1)):
        images = [[[area[0] - cheated, 0], [0, area[1] + cheated]] for area in areas]
        submitted(board / "submissions" / name, name, images, ids=ids)
    submitted(board / "submissions/eve", "eve", images, ids=["a", "b", "c"])
    cells = check(Board(board)).cells
    faults, said = recount(Board(board), cells, Recount(2, tmp_path / "data"), random.Random(0))
    assert [fault.partition(" on ")[0] for fault in faults] == ["submissions/bob: bob", "submissions/eve: eve"]
    assert f"its label pixels of '{ids[1]}' are not those here" in faults[0]
    assert f"has no image '{ids[1]}', which the dataset here has" in faults[1]
    assert said[0] == "whu_aerial: labels of 2 of 3 images counted again"
    assert said[1].endswith("its source was submitted; read it, then run it yourself with --plugin")
    for name, layout in (("ada", "prepared"), ("bob", "prepared"), ("eve", "new")):  # which are not here
        cells[name][0].info.layout = layout
    faults, said = recount(Board(board), cells, Recount(2, tmp_path / "data"), random.Random(0))
    assert not faults and said[0].startswith("whu_aerial: not counted again: whu_aerial has no layout 'new'")
    apart = "; it was counted in the layout 'prepared', here is 'original'"
    assert said[1] == f"submissions/bob: bob on whu_aerial: its label pixels of '{ids[1]}' are not those here{apart}"
    assert said[2] == "whu_aerial: labels of 2 of 3 images counted again"
    faults, said = recount(Board(board), {"ada": cells["ada"]}, Recount(2, tmp_path / "nowhere"))
    assert not faults and len(said) == 1 and said[0].startswith("whu_aerial: not counted again: whu_aerial: no folder")


@pytest.mark.usefixtures("any_count")
def test_half_precision_of_a_gpu_is_not_computed_on_a_cpu(tmp_path: Path) -> None:
    card = load_card(DATASET)
    image, label = scene(card, 48, 64, 0)
    write_dataset(card, tmp_path / "data", [(image, label)])
    area, ids = np.bincount(label.ravel(), minlength=2), find_samples(card, tmp_path / "data").ids
    board, rounded = new_board(tmp_path / "board"), "bf16, tf32 after the trunk"
    counted = {"images": [[[area[0], 0], [0, area[1]]]], "ids": ids}
    submitted(board / "submissions/ada", "clip", **counted, info={"dtype": "bf16"}, inputs={"dtype": rounded})
    faults, said = recount(Board(board), check(Board(board)).cells, Recount(1, tmp_path / "data", "cpu"))
    assert not faults and said[1].endswith(f"not computed again: it was counted in {rounded}, which a cpu does not do")


@pytest.mark.slow
def test_what_a_shipped_method_counted_is_computed_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the demo: the same image by image, and seen where counts were invented."""
    board, ada = new_board(tmp_path / "board"), tmp_path / "board/submissions/ada"
    config = board / "benchmark.yaml"
    config.write_text(SMALL)
    run = [
        "run",
        "--demo",
        "--config",
        str(config),
        "--methods",
        "clip,sclip",
        "--datasets",
        DATASET,
        "--device",
        "cpu",
    ]
    assert main([*run, "--results", str(ada)]) == 0
    for other in ("tables", ".lock"):
        shutil.rmtree(ada / other, ignore_errors=True)
        (ada / other).unlink(missing_ok=True)
    command = ["board", "check", str(board), "--demo", "--recount", "1", "--device", "cpu"]
    capsys.readouterr()
    assert main(command) == 0
    assert capsys.readouterr().out.count("1 image computed again: equal counts") == 2
    store = Store(ada, demo=True)
    honest, copied = store.cell("clip", DATASET), store.cell("sclip", DATASET)
    assert honest and copied
    record, counts = (
        honest.record,
        encode(copied.table, honest.record.fingerprint),
    )  # the counts of sclip as those of clip
    record.counts_sha256, record.metrics = hashlib.sha256(counts).hexdigest(), copied.record.metrics
    (store.place("clip", DATASET) / "counts.parquet").write_bytes(counts)
    record.write(store.place("clip", DATASET))
    assert main(command) == 1
    told = capsys.readouterr().out
    assert "clip on whu_aerial: computed again, it is " in told and "in another hundredth, more than ties move" in told
    assert told.count("1 image computed again: equal counts") == 1
