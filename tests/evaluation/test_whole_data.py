"""Data that are incomplete, change or go wrong: seen everywhere, and no more is counted again than has to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from project import Project

from bench.cli import main
from bench.store.store import Store

LOVEDA = ("--datasets", "loveda", "--methods", "clip,sclip")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def run(project: Project, *flags: str) -> int:
    """Without the flag that the other tests pass."""
    return main([flag for flag in project.arguments(*LOVEDA, *flags) if flag != "--allow-incomplete"])


def labels(project: Project) -> list[Path]:
    return sorted((project.data / "LoveDA").rglob("masks_png/*.png"))


def test_too_few_images_are_incomplete_everywhere(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(project) == 1
    told = capsys.readouterr()
    assert "incomplete: 3 of 1,669 images" in told.out  # the plan
    assert "3 of 1,669 images" in told.out.splitlines()[-3]  # the summary
    assert "bench: clip on loveda: 3 of 1,669 images" in told.err
    assert main(project.arguments(*LOVEDA)) == 0  # --allow-incomplete
    assert "2 cached" in capsys.readouterr().out
    results = project.root / "results"
    cell = Store(results).cell("clip", "loveda")
    assert (cell.status, cell.reason) == ("incomplete", "3 of 1,669 images")
    table = (results / "tables" / "table1.md").read_text()
    line = next(line for line in table.splitlines() if line.startswith("| CLIP"))
    assert "(3 of 1,669 images)" in line and "**" not in line.split("|")[4]
    frame = pd.read_csv(results / "tables" / "table1.csv")
    assert frame[frame.dataset == "average"].measured.isna().all()
    assert "(0/8)" in (results / "tables" / "headline.md").read_text()
    assert main(["compare", "clip", "sclip", "--results", str(results)]) == 0
    assert "loveda: clip: 3 of 1,669 images" in capsys.readouterr().out
    assert main(["datasets", "--data-root", str(project.data)]) == 1  # the other datasets are not there
    assert "3 of 1,669 images" in capsys.readouterr().out


def test_a_label_changed_in_place_is_counted_again_alone(
    project: Project, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def bmp(values: np.ndarray) -> None:  # uncompressed: every label has the same number of bytes
        Image.fromarray(values).save(label, format="BMP")

    label = labels(project)[1]
    size = np.asarray(Image.open(label)).shape
    bmp(np.full(size, 1, np.uint8))
    run(project)
    before, bytes_before = project.counts()["loveda/clip"], label.stat().st_size
    capsys.readouterr()
    bmp(np.full(size, 2, np.uint8))
    assert label.stat().st_size == bytes_before
    run(project)
    told = capsys.readouterr()
    assert "clip on loveda is partial: the files of 1 images changed" in told.out and "1 of 1 images" in told.err
    assert project.counts()["loveda/clip"] != before
    bmp(np.full(size, 1, np.uint8))
    run(project)
    assert project.counts()["loveda/clip"] == before
    capsys.readouterr()
    label.touch()  # another time, the same content
    run(project)
    assert "2 cached" in capsys.readouterr().out


def test_an_impossible_label_costs_its_image(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    label = labels(project)[2]
    whole, values = label.read_bytes(), np.array(Image.open(label))
    values[:2, :3] = 200
    Image.fromarray(values).save(label)
    assert run(project) == 1
    told = capsys.readouterr().err
    assert f"the label of {label.stem}" in told.replace("3_", "") or label.stem in told
    assert "holds 199 (one less than the file stores) on 6 pixels, but the classes are 0 to 6" in told
    cell = Store(project.root / "results").cell("clip", "loveda")
    assert (cell.status, cell.counted) == ("partial", 2)
    label.write_bytes(whole)
    run(project)
    assert "1 of 1 images" in capsys.readouterr().err
    assert Store(project.root / "results").cell("clip", "loveda").counted == 3


def test_an_unreadable_label_costs_its_image(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    labels(project)[0].write_bytes(b"no image")
    assert run(project) == 1
    assert f"{labels(project)[0].name}: not an image that Pillow can read" in capsys.readouterr().err
    assert Store(project.root / "results").cell("sclip", "loveda").counted == 2


def test_results_of_earlier_versions_stay_valid(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """They know names and sizes of the files, and no contents."""
    with monkeypatch.context() as earlier:
        names = "bench.data.samples.SampleSet.names_fingerprint"
        earlier.setattr(names, lambda samples: samples.fingerprint())
        earlier.setattr("bench.data.samples.FileSamples.content", lambda *_: "")
        run(project)
    before = project.counts()
    cell = Store(project.root / "results").cell("clip", "loveda")
    assert cell.contents == {}
    run(project)
    assert project.counts() == before
