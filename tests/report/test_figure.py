"""The `figure` command, and what it draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from project import Project
from table_helpers import FAIR, GOOD, put

from bench.cli import main
from bench.data.cards import load_card
from bench.data.prepared import find_samples
from bench.report.figure import DIFFERING, Example, FigureBlock, coloured, differences, draw_blocks
from bench.store.maps import LabelMaps
from bench.store.store import Store

pytestmark = pytest.mark.usefixtures("any_count")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("figure"))


def command(project: Project, out: Path, *flags: str) -> int:
    results = project.arguments().index("--results")
    models = [flag for place, flag in enumerate(project.arguments()[1:], 1) if place not in (results, results + 1)]
    return main(["figure", "loveda", "-o", str(out), *models[: models.index("--workers")], *flags])


def test_labels_become_the_colours_of_the_card() -> None:
    card = load_card("loveda")
    picture = coloured(np.array([[0, 1, 255, 7]], np.uint8), card)
    assert [tuple(int(c) for c in pixel) for pixel in picture[0]] == [
        *card.colours[:2],
        (128, 128, 128),
        (128, 128, 128),
    ]


def test_a_figure_holds_the_pixels_of_its_panels(tmp_path: Path) -> None:
    card = load_card("whu_aerial")
    label = np.zeros((60, 60), np.uint8)
    label[20:40, 20:40] = 1
    example = Example("a", np.full((60, 60, 3), (10, 200, 30), np.uint8), label, {"clip": 1 - label})
    draw_blocks([FigureBlock([example], card, {"clip": "CLIP"})], tmp_path / "f.png")
    with Image.open(tmp_path / "f.png") as picture:
        found = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24) or ()}
    assert {(10, 200, 30), *card.colours} <= found
    draw_blocks([FigureBlock([example], card, {"clip": "CLIP"})], tmp_path / "f.pdf")
    assert (tmp_path / "f.pdf").read_bytes().startswith(b"%PDF")


def test_samples_by_number_and_by_largest_gain(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Example] = []
    monkeypatch.setattr("bench.figures.draw_blocks", lambda blocks, *_: drawn.extend(blocks[0].examples))
    assert command(project, tmp_path / "f.png", "--methods", "clip,sclip", "--samples", "2,0") == 0
    assert project.run("--datasets", "loveda", "--methods", "clip,sclip") == 0
    gains = ["--gains", "clip", "sclip", "--results", str(project.root / "results")]
    assert command(project, tmp_path / "f.png", "--methods", "clip,sclip", *gains) == 0
    cells = [Store(project.root / "results").cell(row, "loveda") for row in ("clip", "sclip")]
    assert [example.id for example in drawn[:2]] == [cells[0].ids[2], cells[0].ids[0]]
    assert list(drawn[0].predictions) == ["clip", "sclip"] and drawn[2].id in cells[0].ids
    for example in drawn:  # the maps that were counted
        for row, cell in zip(("clip", "sclip"), cells, strict=True):
            place = cell.ids.index(example.id)
            areas = np.bincount(example.predictions[row][example.label != 255], minlength=7)
            assert np.array_equal(cell.areas().stack[place, 2], areas)


def test_rows_that_another_program_made_are_drawn_from_the_maps_that_score_kept(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn: list[FigureBlock] = []
    monkeypatch.setattr("bench.figures.draw_blocks", lambda blocks, *_: drawn.extend(blocks))
    samples = find_samples(load_card("loveda"), project.data)
    maps = tmp_path / "maps"
    maps.mkdir()
    for index, name in enumerate(samples.ids):
        Image.fromarray(np.full_like(samples.read(index).label, index)).save(maps / f"{name}.png")
    results, data = ["--results", str(tmp_path / "results")], ["--data-root", str(project.data)]
    assert main(["score", str(maps), "--dataset", "loveda", "--row", "unet", "--label", "U-Net", *data, *results]) == 0
    assert command(project, tmp_path / "f.png", "--methods", "unet,clip", "--count", "2", *results) == 0
    assert drawn[0].labels == {"unet": "U-Net", "clip": "CLIP"}
    assert [list(one.predictions) for one in drawn[0].examples] == [["unet", "clip"]] * 2
    assert [np.unique(one.predictions["unet"]).tolist() for one in drawn[0].examples] == [[0], [1]]
    assert main(["figure", "loveda", "--gains", "unet", "unet", "-o", "f.png", *data, *results]) == 0
    assert (list(drawn[1].labels), drawn[1].differing) == (["unet"], ("unet", "unet"))
    (Store(tmp_path / "results").place("unet", "loveda") / f"predictions/{samples.ids[0]}.png").unlink()
    assert command(project, tmp_path / "f.png", "--methods", "unet", *results) == 2
    assert f"the label map of {samples.ids[0]} was not kept; `bench run --save-predictions`" in capsys.readouterr().err


def test_where_two_maps_differ_is_one_of_four_colours() -> None:
    label, first, second = (
        np.array([line], np.uint8) for line in ([0, 0, 0, 0, 255], [0, 0, 1, 1, 0], [0, 1, 0, 1, 0])
    )
    assert differences(label, first, second)[0].tolist() == [*map(list, DIFFERING), [128, 128, 128]]


def test_the_gains_on_each_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for dataset, scenes in (("whu_aerial", 8), ("vdd", 3)):
        put(tmp_path, "a", dataset, [GOOD, FAIR] * scenes)
        put(tmp_path, "b", dataset, [FAIR, FAIR] * scenes)
    flags = ["figure", "gains", "--results", str(tmp_path)]
    assert main([*flags, "--methods", "a,b", "-o", str(tmp_path / "gains.png")]) == 0
    with Image.open(tmp_path / "gains.png") as picture:
        found = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24) or ()}
    assert (0, 114, 178) in found and (213, 94, 0) not in found
    put(tmp_path, "c", "udd5", [GOOD])
    for methods, said in (("a", "takes two stored rows"), ("a,c", "share no dataset that may be compared")):
        assert main([*flags, "--methods", methods, "-o", str(tmp_path / "f.png")]) == 2
        assert said in capsys.readouterr().err


def test_gains_show_the_maps_that_were_counted(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[FigureBlock] = []
    monkeypatch.setattr("bench.figures.draw_blocks", lambda blocks, *_: drawn.extend(blocks))
    samples = find_samples(load_card("loveda"), project.data)
    results, data = ["--results", str(tmp_path / "results")], ["--data-root", str(project.data)]
    config = ["--config", str(project.config)]
    models = ["--backbone", str(project.backbone), "--checkpoint", str(project.checkpoint), "--device", "cpu"]
    flags = ["--methods", "clip,sclip", "--datasets", "loveda", "--save-predictions", "--workers", "0"]
    assert main(["run", *flags, *models, *config, *data, *results]) == 0
    # of another backbone, whose weights are not there
    assert main(["figure", "loveda", "--gains", "clip", "sclip", "-o", "f.png", *config, *data, *results]) == 0
    ((example,), cell) = drawn[0].examples, Store(tmp_path / "results").cell("clip", "loveda")
    assert cell is not None and example.id in samples.ids
    assert np.array_equal(example.predictions["clip"], LabelMaps.of(cell).labels(example.id))


def test_gains_of_results_that_may_not_be_compared_are_refused(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert project.run("--datasets", "loveda", "--methods", "clip,sclip") == 0
    project.configure(sclip={"method": "sclip", "scale": 40})
    gains = ["--gains", "clip", "sclip", "--results", str(project.root / "results")]
    assert command(project, tmp_path / "f.png", "--methods", "clip,sclip", *gains) == 2
    assert "--gains: sclip on loveda may not be compared: stale" in capsys.readouterr().err


MISTAKES = {
    "--methods clip --samples 9": "loveda has 3 samples, numbered from 0",
    "--methods clip --samples 1_x": "no such sample",
    "--methods clop": "unknown row or method 'clop'",
    "--methods clip --gains clip sclip --results nowhere": "nothing is stored of clip on loveda",
    "--methods clip -o f.jpg": ".png or .pdf",
}


@pytest.mark.parametrize("flags", MISTAKES)
def test_mistakes(flags: str, project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(project, tmp_path / "f.png", *flags.split()) == 2
    assert MISTAKES[flags] in capsys.readouterr().err
