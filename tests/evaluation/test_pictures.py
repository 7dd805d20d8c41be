"""Label maps that a run keeps: those that were counted, for as long as they are true."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import numpy as np
import pytest
from narrowed import present
from PIL import Image
from project import Project

from bench.data.cards import load_card
from bench.evaluation.pictures import label_maps
from bench.evaluation.run import planned
from bench.inference.visualize import palette_png
from bench.metrics import confusion
from bench.runtime.atomic import write_atomic
from bench.spec import RunSpec
from bench.store.maps import LabelMaps
from bench.store.store import Store

pytestmark = pytest.mark.usefixtures("any_count")

LOVEDA = ("--datasets", "loveda", "--methods", "clip,sclip")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def files(project: Project, row: str = "clip") -> dict[str, bytes]:
    folder = project.root / "results" / "cells" / "loveda" / row / "predictions"
    return {file.name: file.read_bytes() for file in folder.glob("*.png")}


def test_the_maps_are_those_that_were_counted(project: Project) -> None:
    assert project.run(*LOVEDA, "--save-predictions") == 0
    card, labels = load_card("loveda"), sorted((project.data / "LoveDA").rglob("annfiles/*.png"))
    labels = labels or sorted((project.data / "LoveDA").rglob("masks_png/*.png"))
    for row in ("clip", "sclip"):
        cell = Store(project.root / "results").cell(row, "loveda")
        counted = cell.confusion().sum(0)  # of all images
        total = np.zeros_like(counted)
        for sample in cell.ids:
            png = LabelMaps.of(cell).find(sample)
            assert png is not None
            picture = Image.open(io.BytesIO(png))
            assert picture.mode == "P" and present(picture.getpalette())[:3] == list(card.colours[0])
            label = np.asarray(Image.open(next(path for path in labels if path.stem == sample))).astype(np.uint8)
            total += confusion(label - 1, np.asarray(picture), len(card.classes))  # 0 is ignored in the file: 255
        assert np.array_equal(total, counted)


def test_maps_of_stored_results_are_made_without_counting_again(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert project.run(*LOVEDA) == 0
    before = project.counts()
    assert project.run(*LOVEDA, "--save-predictions", "2", "--dry-run") == 0
    assert "2 no maps" in capsys.readouterr().out
    assert project.run(*LOVEDA, "--save-predictions", "2") == 0
    assert len(files(project)) == len(files(project, "sclip")) == 2
    assert project.counts() == before
    capsys.readouterr()
    assert project.run(*LOVEDA, "--save-predictions", "2") == 0
    assert "2 cached" in capsys.readouterr().out


def test_the_samples_are_spread_over_the_dataset(project: Project) -> None:
    assert project.run(*LOVEDA, "--save-predictions", "2") == 0
    ids = Store(project.root / "results").cell("clip", "loveda").ids
    assert sorted(files(project)) == sorted(f"{ids[number * len(ids) // 2]}.png" for number in range(2))


def test_maps_of_other_settings_are_forgotten(project: Project) -> None:
    assert project.run(*LOVEDA, "--save-predictions") == 0
    first = files(project)
    project.configure(clip={"method": "clip", "threshold": 0.6})
    assert project.run(*LOVEDA) == 0  # the threshold moved, and nobody asked for maps
    cell = Store(project.root / "results").cell("clip", "loveda")
    assert not LabelMaps.of(cell).valid and LabelMaps.of(cell).find(cell.ids[0]) is None
    assert project.run(*LOVEDA, "--save-predictions", "1") == 0
    assert LabelMaps.of(cell).valid and len(files(project)) == 1
    assert set(files(project).values()) != set(first.values())


def test_a_figure_shows_the_maps_that_were_kept(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    assert project.run("--datasets", "loveda", "--methods", "clip", "--save-predictions", "1") == 0
    ((name, data),) = files(project).items()
    spec = RunSpec(
        datasets=["loveda"],
        methods=["clip"],
        results=project.root / "results",
        config=project.config,
        backbone=str(project.backbone),
        checkpoint=project.checkpoint,
        data_root=project.data,
        device="cpu",
    )
    with planned(spec, writes=False) as run:
        (dataset,) = run.datasets
        assert dataset.samples is not None
        number = list(dataset.samples.ids).index(name.removesuffix(".png"))
        computed = label_maps(run, dataset, (number + 1) % len(dataset.samples))["clip"]  # of which none was kept
        monkeypatch.setattr("bench.evaluation.pictures.segmenters_of", lambda run, cells: [] if not cells else 1 / 0)
        shown = label_maps(run, dataset, number)["clip"]
    assert np.array_equal(shown, np.asarray(Image.open(io.BytesIO(data)))) and computed.dtype == np.uint8


def test_a_full_disk_ends_the_run_and_keeps_what_was_counted(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, data: bytes) -> None:
        if path.suffix == ".png":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_atomic(path, data)

    with monkeypatch.context() as patched:
        patched.setattr("bench.store.maps.write_atomic", full)
        assert project.run(*LOVEDA, "--save-predictions") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("bench: results folder ") and "predictions: cannot be written (No space left" in said
    assert project.run(*LOVEDA, "--save-predictions") == 0
    assert len(files(project)) == len(Store(project.root / "results").cell("clip", "loveda").ids)


def test_a_map_that_is_damaged_swapped_or_of_an_older_version_is_drawn_again(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert project.run(*LOVEDA, "--save-predictions") == 0
    before = files(project)
    cell = Store(project.root / "results").cell("clip", "loveda")
    folder = cell.pieces[0].folder / "predictions"
    first, second, third = (folder / f"{sample}.png" for sample in cell.ids)
    first.rename(folder / "x")
    second.rename(first)
    (folder / "x").rename(second)
    third.write_bytes(palette_png(np.asarray(Image.open(third)), [(0, 0, 0)] * 7))  # carries no checksum
    assert [LabelMaps.of(cell).find(sample) for sample in cell.ids] == [None] * 3
    capsys.readouterr()
    assert project.run(*LOVEDA, "--save-predictions") == 0
    said = capsys.readouterr().out
    assert "1 no maps" in said and "1 cached" in said
    assert files(project) == before


def test_names_that_files_cannot_have(project: Project) -> None:
    assert project.run(*LOVEDA) == 0
    maps = LabelMaps.of(Store(project.root / "results").cell("clip", "loveda"))
    maps.begin()
    names = ["a/b", "a%2Fb", "..", "x" * 300, "x" * 299 + "y", "größe 1"]
    sizes = {name: (1, number) for number, name in enumerate(names, 1)}
    for name in names:
        maps.write(name, palette_png(np.zeros(sizes[name], np.uint8), [(0, 0, 0)]))
    for name in names:
        png = maps.find(name)
        assert png is not None and np.asarray(Image.open(io.BytesIO(png))).shape == sizes[name]
