"""Figures 1, 4, 5 and 6 of the paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from project import SMALL
from store_helpers import stored

from bench.cli import main
from bench.config import load_config
from bench.data.cards import load_card
from bench.errors import BenchError
from bench.evaluation.pictures import _WithCls
from bench.figures import paper_figure
from bench.models.backbone import Features
from bench.report.figure import draw_bias, draw_radar
from bench.settings import Overrides

pytestmark = pytest.mark.usefixtures("any_count")

GOOD, FAIR = [[40, 0], [0, 40]], [[20, 20], [0, 40]]


def test_a_radar_of_stored_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr("bench.figures.draw_radar", lambda scores, out, note: drawn.append((scores, note)))
    config = load_config()
    for row in ("clip", "sclip"):
        for dataset in ("whu_aerial", "wbs_si", "inria"):
            now = config.settings_of(row, load_card(dataset), Overrides()).model_dump(exclude={"row", "dataset"})
            stored(tmp_path, row, dataset, [GOOD if row == "clip" else FAIR] * 2, changes=now, metric="foreground_iou")
    stored(tmp_path, "clip", "loveda", [GOOD], metric="miou")  # of one row alone
    assert main(["figure", "paper-1", "-o", str(tmp_path / "f.png"), "--results", str(tmp_path)]) == 0
    ((scores, note),) = drawn
    assert note == "" and [list(of) for _, of in scores] == [["WHU Aerial", "Inria", "WBS-SI"]] * 2
    assert scores[0][1]["Inria"] == 1.0
    with pytest.raises(BenchError, match="holds no results"):
        paper_figure(1, tmp_path / "f.png", results=tmp_path, limit=3)


def test_names_are_beside_the_circle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, *_, **__: drawn.append(figure))
    draw_radar([("A", {f"Dataset {number:02}": 0.5 for number in range(17)})], tmp_path / "r.png")
    (figure,) = drawn
    figure.draw_without_rendering()
    (axis,) = figure.axes
    (x, y), radius = axis.transAxes.transform((0.5, 0.5)), axis.bbox.width / 2
    for name in axis.get_xticklabels():
        box = name.get_window_extent()
        nearest = np.clip(x, box.x0, box.x1) - x, np.clip(y, box.y0, box.y1) - y
        assert np.hypot(*nearest) > radius and figure.bbox.containsx(box.x0) and figure.bbox.containsx(box.x1)


def test_files_and_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = [{"x": 0.4, "y": 0.2, "z": 0.0}, {"x": 0.2, "y": 0.1, "z": 0.0}]
    draw_radar([("A", values[0]), ("B", values[1])], tmp_path / "r.png")
    draw_radar([("A", values[0]), ("A", values[1])], tmp_path / "same.png")  # two rows that share a label are two lines
    draw_radar([("A", values[1])], tmp_path / "one.png")
    assert (tmp_path / "same.png").read_bytes() != (tmp_path / "one.png").read_bytes()
    assert Image.open(tmp_path / "r.png").width > 900
    image, map_ = np.zeros((20, 30, 3), np.uint8), np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30)
    draw_bias([{"cosine with CLS": map_, "image": image, "before": map_, "after": map_ / 2}] * 2, tmp_path / "b.pdf")
    assert (tmp_path / "b.pdf").read_bytes().startswith(b"%PDF")
    for flags, said in (
        (["paper-2"], "paper-2: of the paper's figures paper-1, paper-4, paper-5, paper-6 can be drawn"),
        (["paper-6", "--count", "2"], "paper-6: --gains and --count do not go with it"),
        (["loveda"], "--methods is missing"),
        (["paper-1", "--results", str(tmp_path / "none")], "holds no results; give another with --results"),
        (["paper-5", "--demo", "--methods", "sclip"], "row 'sclip': subtracts no bias"),
    ):
        assert main(["figure", *flags, "-o", str(tmp_path / "f.png")]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("number", [4, 5, 6])
def test_label_maps_and_cosines_of_the_demo(number: int, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    flags = ["--demo", "--config", str(tmp_path / "small.yaml"), "-o", str(tmp_path / "f.png")]
    assert main(["figure", f"paper-{number}", *flags]) == 0
    assert np.asarray(Image.open(tmp_path / "f.png").convert("RGB")).std() > 10


def test_the_cosine_with_cls_by_hand() -> None:
    import torch

    patches, cls = torch.tensor([[[3.0, 0.0], [1.0, 1.0], [0.0, 2.0], [-1.0, 0.0]]]), torch.tensor([[2.0, 0.0]])
    trunk: Any = type("Trunk", (), {"grid": (2, 2)})()
    found = _WithCls(lambda _: Features(patches, cls)).scores(trunk, torch.zeros(1, 2))
    assert found.tolist() == [[[[1.0, pytest.approx(0.70711, abs=1e-5)], [0.0, -1.0]]]]
